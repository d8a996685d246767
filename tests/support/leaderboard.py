"""Made-up results files of several models, protocols, licenses and media, for a leaderboard."""

import hashlib
import json

from vistok.eval.results.rows import Network, Reference, Results, Row

INCEPTION = Network(name="inception", sha256="69" * 32, preprocess="TF1 bilinear to 299")
CNN = Network(name="vistok-cnn", sha256="24" * 32)
IMAGENET = Reference(name="imagenet", split="val", manifest="a1" * 32, count=50_000)
TRAIN = Reference(name="VIRTUAL_imagenet256_labeled", split="unknown", manifest="b2" * 32, count=0)
UCF = Reference(name="ucf101", split="val", manifest="c3" * 32, count=2048)


def sha(name):
    return hashlib.sha256(name.encode()).hexdigest()


def row(metric, run, value, kind="tokenizer", **rest):
    """A row of a run whose weights are named after it."""
    common = {"features": INCEPTION, "reference": IMAGENET, "count": 50_000, "size": (256, 256)}
    common |= {"crop": "center", "filter": "bicubic", "commit": "3f2c9a1b7d40", "length": 256}
    common |= {"weights": {kind: sha(run)}, "date": "2026-11-28T10:00:00+00:00"}
    if not metric.startswith(("rF", "gF")):
        common["features"] = None
    return Row(metric=metric, run=run, value=value, **{**common, **rest})


def run(name, license=None, bits=12, length=256, kind="tokenizer", **rest):
    """The record of a run of `length` tokens of `bits` each; 0 bits: continuous tokens."""
    lengths = {n: {"tokens": n, "bits": n * bits} for n in (length, length // 4)}
    return {
        **{"name": name, "kind": kind, "sha256": sha(name), "parameters": 1e8},
        "spec": {"blocks": [[length]], "vocab": [2**bits] if bits else []},
        "lengths": {str(n): at for n, at in lengths.items()},
        **{"license": license, "config": None, "model": {}, "history": []},
        **rest,
    }


def made(*parts, pairs=None):
    """Results of (run, rows) pairs."""
    rows = tuple(one for _, own in parts for one in own)
    return Results(rows=rows, runs=tuple(one for one, _ in parts), facts={"pairs": pairs or {}})


def tokenizer(name, value, license, bits=12, half=0.0, **rest):
    """(run, rows) of a tokenizer: rFID at two lengths, PSNR and SSIM."""
    spread = {"interval": (value - half, value + half), "varies": "images"} if half else {}
    own = [
        row("rFID", name, value, **spread, **rest),
        row("rFID", name, 4 * value, length=64, **rest),
        row("PSNR", name, 24 - value, **rest),
        row("SSIM", name, 0.7 - value / 20, **rest),
    ]
    return run(name, license, bits), own


def write(folder):
    """Files of six tokenizers, two generators and a tokenizer of clips, in sub-folders; some are
    alike, contradictory or broken."""
    research = "Apache-2.0 (weights trained on ImageNet: research purposes)"
    alpha = tokenizer("alpha-256", 1.03, "MIT", 13, 0.02)
    files = {
        "alpha/results.json": made(alpha),
        "again/results.json": made(alpha),  # sent twice
        "labs/one.results.json": made(
            tokenizer("beta-b64", 1.045, research, 12, 0.03),
            tokenizer("gamma-s128", 1.71, "Apache-2.0", 12, 0.05),
            tokenizer("delta-vae", 0.84, research, 0),
        ),
        "labs/two.results.json": made(
            tokenizer("epsilon-adm", 0.61, None, 14, crop="adm"),
            tokenizer("zeta-few", 3.2, "MIT", 10, count=1000),
        ),
        "old/results.json": made(tokenizer("gamma-s128", 1.93, "Apache-2.0", 12)),
    }
    generators = []
    for name, values, kind in (("ar-large", (2.6, 2.7, 2.5), "gen"), ("ar-small", (3.5,) * 3, "x")):
        facts = run(name, "MIT", 13, kind="generator", model={"note": kind})
        rows = []
        for guidance, plus in ((1.0, 4.0), (1.5, 0.0)):
            each = tuple(value + plus for value in values)
            mean = sum(each) / 3
            rows.append(
                row("gFID", name, mean, "generator", reference=TRAIN, seed=0, seeds=(0, 1, 2),
                    each=each, interval=(mean - 0.3, mean + 0.3), varies="seeds",
                    floor={"value": 2.8, "count": 50_000, "reference": IMAGENET},
                    sampling={"generator": {"guidance": guidance, "temperature": 1.0}},
                    condition="class")
            )  # fmt: skip
        generators.append((facts, rows))
    alone = (alpha[0], [])
    pairs = {"alpha-256": ["ar-large", "ar-small"]}
    files["generators/results.json"] = made(alone, *generators, pairs=pairs)
    clips = {"reference": UCF, "count": 2048, "size": (16, 128, 128), "features": CNN}
    films = [row("rFVD", "film-1", 88.0, **clips), row("PSNR", "film-1", 27.0, **clips)]
    films[1] = films[1].model_copy(update={"features": None})
    files["clips/results.json"] = made((run("film-1", "MIT", 16), films))
    for name, results in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(results.json_text())
    (folder / "broken").mkdir()
    (folder / "broken/results.json").write_text('{"schema": 1}')
    data = json.loads((folder / "old/results.json").read_text())
    data["runs"][0]["sha256"] = sha("another")
    (folder / "broken/mixed.results.json").write_text(json.dumps(data))
    return folder
