"""Made-up results with everything that a report can show: no network and no training."""

import torch

from vistok.eval.results.rows import Network, Reference, Results, Row
from vistok.eval.strips import grid

NETWORK = Network(name="vistok-cnn", sha256="ab" * 32)
PHOTOS = Reference(name="photos", split="val", manifest="m" * 64, count=64, described="photographs")
DELTAS, ALPHAS = (5, 280), (0.1, 0.9)


def row(metric, run, value, length=16, **rest):
    common = {"reference": PHOTOS, "count": 64, "crop": "center", "filter": "bicubic"}
    common |= {"protocol": "rfid", "size": (32, 32), "features": None}
    if metric.startswith(("rFID", "pFID", "gFID")):
        common["features"] = NETWORK
    return Row(metric=metric, run=run, value=value, length=length, **{**common, **rest})


def spec(length=16, prefix="token"):
    return {"blocks": [[length]], "vocab": [4096], "dim": 4, "branches": 1, "prefix": prefix}


def lengths(all_lengths=(1, 4, 16)):
    return {str(n): {"tokens": n, "bits": 12 * n} for n in all_lengths}


def generated(guidance):
    """Sampling of a generator at one guidance, as rows carry it."""
    return {"sampling": {"generator": {"guidance": guidance}}, "seed": 0}


def run_facts(name, kind="tokenizer", **own):
    return {
        **{"name": name, "kind": kind, "sha256": name * 4, "parameters": 1_230_000},
        **{
            "spec": spec(),
            "lengths": lengths(),
            "config": {"name": name},
            "model": {},
            "history": [],
        },
        **own,
    }


def strips(kind, run, size=32, lengths=(16, 4, 1), cells=4, seed=0):
    """A grid whose originals are the same for all runs and whose strips differ."""
    noise = torch.Generator().manual_seed(1)
    plain = torch.randint(0, 256, (cells, 3, size // 8, size // 8), generator=noise)
    originals = torch.nn.functional.interpolate(plain.float(), size=size).to(torch.uint8)
    own = torch.Generator().manual_seed(seed)
    rows, places = [("original", originals)], [{}]
    for length in lengths:
        far = torch.randint(-30, 31, originals.shape, generator=own) * 4 // (length + 3)
        moved = (originals + far).clamp(0, 255).to(torch.uint8)
        rows.append((f"{length} tokens" if kind == "reconstructions" else f"α {length / 4}", moved))
        places.append({"tokens": length, "bits": length * 12} if kind == "reconstructions" else {})
    if kind == "generated":
        rows = [(f"class {i}", images) for i, (_, images) in enumerate(rows[1:])]
        return grid(kind, run, rows, [])
    return grid(kind, run, rows, [f"class {i}" for i in range(cells)], places)


def of_run(name, i):
    """Rows of one tokenizer and its generator; i makes its numbers."""
    rows = []
    for length in (1, 4, 16):
        rows.append(row("rFID", name, 90.0 / length + i, length))
        rows.append(row("PSNR", name, 14 + length**0.5 + i / 3, length))
        rows.append(row("bits/image", name, 12.0 * length, length))
        for codec, share in (("packed", 1.0), ("zstd", 0.9)):
            size = 8 + 1.5 * length * share
            rate = {"protocol": "rate_distortion", "point": {"codec": codec}}
            rate["measured"] = {"bytes": size}
            rows.append(row("PSNR", name, 14 + length**0.5 + i / 3, length, **rate))
    rows.append(row("PSNR-mean-color", name, 11.5, None))
    rows += [row("pFID-v1", name, 60.0 - 3 * i), row("codebook-usage", name, 0.9 - i / 50)]
    for alpha in ALPHAS:
        for delta in DELTAS:
            cell = {"point": {"alpha": alpha, "delta": delta}}
            cell["measured"] = {"delta": delta, "changed": alpha, "expected": alpha}
            rows.append(row("pFID-v1-cell", name, 50 + alpha * delta, **cell))
    for guidance in (1.0, 1.5):
        value = 120.0 + 2 * i / guidance
        rows.append(row("gFID", f"{name}/probe-tiny", value, **generated(guidance)))
    for kind in ("bit_flip", "drop_tail"):
        for share in (0.01, 0.1):
            point = {"damage": kind, "share": share}
            rows.append(row("PSNR", name, 15 - 20 * share, point=point, seed=0))
    rows += [
        row("probe-top1", name, 0.3 + i / 50, point={"tap": tap}) for tap in ("latents", "codes")
    ]
    return rows


def made(count=3, size=32, images=True, lengths=(16, 4, 1), cells=4):
    """Results of `count` tokenizers, each with a probe; the last was measured on fewer images."""
    names = [("nested", "tail", "fixed")[i] if i < 3 else f"variant-{i}" for i in range(count)]
    rows, runs, grids, facts = [], [], [], {"codebook": {}, "order": {}}
    for i, name in enumerate(names):
        mine = of_run(name, i)
        if count > 2 and i == count - 1:
            mine = [r.model_copy(update={"count": 60}) if r.metric == "rFID" else r for r in mine]
        rows += mine
        runs += [run_facts(name), run_facts(f"{name}/probe-tiny", "generator")]
        if images:
            grids.append(strips("reconstructions", name, size, lengths, cells, seed=i))
            grids.append(strips("perturbed", name, size, (3, 2, 1), cells, seed=i))
            grids.append(strips("generated", f"{name}/probe-tiny", size, (3, 2), cells, seed=i))
        facts["codebook"][name] = {
            **{"codes": 4096, "used": 4096, "position_entropy": [8.0] * 16},
            "sorted_counts": [[rank, 4096 - rank] for rank in range(0, 4096, 64)],
        }
        facts["order"][name] = {"entropy": [9.0, 5.0, 1.0], "change": [0.1, 0.02, 0.001]}
    for place, codec in enumerate(("JPEG", "WebP", "AVIF")):
        rows += [
            row(
                "PSNR",
                codec,
                10 + place + b**0.4,
                None,
                protocol="rate_distortion",
                point={"codec": codec},
                measured={"bytes": b},
            )
            for b in (20.0, 40.0, 80.0)
        ]
    facts |= {
        "pairs": {name: [f"{name}/probe-tiny"] for name in names},
        "image_grids": grids,
        "features": NETWORK.model_dump(),
        "command": "vistok eval " + " ".join(names),
    }
    return Results(rows=tuple(rows), runs=tuple(runs), facts=facts)
