"""Codebooks of 2^14 and 2^18 codes by the commands: cache, a generator of factors, every number."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

from tests.quantizers.test_vq_memory import Largest
from tests.support.recipes import TINY_GENERATORS
from tests.support.training import forget_accelerate
from vistok.cli import main
from vistok.config import validate
from vistok.eval.protocols import pfid
from vistok.eval.protocols.pfid import Decoding
from vistok.generators import load_generator
from vistok.metrics.codebook import CodebookStats
from vistok.metrics.perturbed import FULL_GRID, relative
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import TokenSpec

pytestmark = pytest.mark.filterwarnings("ignore:Fréchet")
CODES = 2**18
QUANTIZERS = {
    "ibq": {"kind": "ibq", "codebook_size": CODES, "dim": 4},
    "lfq": {"kind": "lfq", "bits": 18},
}
FACTORS = {CODES: [64, 4096], 2**14: [128, 128]}


def call(*arguments: object) -> str:
    forget_accelerate()
    result = CliRunner().invoke(main, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def made(tree, tmp_path, monkeypatch):
    """made(quantizer) -> an untrained tokenizer of four tokens, in runs/big."""
    monkeypatch.chdir(tmp_path)

    def make(quantizer: dict) -> Tokenizer:
        torch.manual_seed(0)
        config = validate(TokenizerConfig, {**tree(), "quantizer": quantizer})
        tokenizer = Tokenizer(config).eval()
        tokenizer.save_pretrained("runs/big/model")
        data = {"kind": "photos", "size": 8, "val_count": 8, "count": 40}
        Path("runs/big/config.yaml").write_text(yaml.safe_dump({"name": "big", "data": data}))
        return tokenizer

    return make


def recipe(name: str, **generator: object) -> str:
    """The file of a tiny generator's recipe, changed: on the cache of runs/big, for some steps."""
    small = {"transformer": {"width": 16, "depth": 1, "heads": 2}, **generator}
    tree = {
        "base": str(TINY_GENERATORS[name]),
        "name": name,
        "task": {"generator": small},
        "data": {"path": "runs/big/tokens"},
        **{"steps": 4, "warmup": 1, "batch_size": 8, "trackers": []},
    }
    Path(f"{name}.yaml").write_text(yaml.safe_dump(tree))
    return f"{name}.yaml"


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_262144_codes_from_cache_to_gfid(made, kind):
    tokenizer = made(QUANTIZERS[kind])
    spec = tokenizer.spec()
    assert spec.codebook_size == CODES
    call("cache", "runs/big", "limit=40")
    call("train", recipe("factorized", regroup=FACTORS[CODES]))
    generator = load_generator("runs/factorized/model")
    assert generator.inner.vocab == (64, 4096) and generator.spec == spec
    table = sum(p.numel() for p in generator.parameters())
    assert table < CODES  # no layer has a row for each code
    options = ("gfid.seeds=1", "gfid.samples=16", "gfid.guidance=[1]", "batch=8")
    ask = ("protocols=[rfid,pfid,gfid]", "report=report.html", *options)
    call("eval", "runs/big", "runs/factorized", *ask)
    rows = json.loads(Path("results.json").read_text())["rows"]
    found = {row["metric"] for row in rows}
    assert {"rFID", "pFID-v1", "pFID-v1-rel", "pFID-v1-quick", "gFID"} <= found
    (use,) = (row["value"] for row in rows if row["metric"] == "codebook-usage")
    assert 0 < use <= 32 / CODES
    Image.new("RGB", (8, 8), (250, 10, 90)).save("image.png")
    assert "bits/image               72" in call("info", "runs/big")
    call("encode", "runs/big", "image.png", "--out", "codes")
    call("decode", "runs/big", "codes/image.vtk", "--out", "back")
    assert Image.open("back/image.png").size == (8, 8)


def test_one_softmax_over_16384_codes_is_trained_and_one_over_262144_is_refused(made):
    made({"kind": "ibq", "codebook_size": 2**14, "dim": 4})
    call("cache", "runs/big", "limit=40")
    call("train", recipe("llamagen_gpt"))
    assert load_generator("runs/llamagen_gpt/model").inner.vocab == (2**14,)
    call("train", recipe("factorized", regroup=FACTORS[2**14]))
    assert load_generator("runs/factorized/model").inner.vocab == (128, 128)
    made(QUANTIZERS["ibq"])
    shutil.rmtree("runs/big/tokens")
    call("cache", "runs/big", "limit=8")
    forget_accelerate()
    result = CliRunner().invoke(main, ["train", recipe("llamagen_gpt"), "name=plain"])
    assert result.exit_code and "regroup=[64,4096]" in result.output
    assert len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_pfid_holds_the_neighbors_of_a_few_images(context, made, monkeypatch, kind):
    """Of δ = 23,040 as well; and finds what it finds for all images at once."""
    tokenizer = made(QUANTIZERS[kind])
    found = context(tokenizer, count=6, batch=6)
    cells = relative(FULL_GRID, CODES)[-2:]
    assert max(cell.delta for cell in cells) == 23_040
    jobs = [Decoding(4, cell, False) for cell in cells]
    monkeypatch.setattr(pfid, "_HELD", 2 * 4 * 23_040)  # of two images
    held, plain = [], tokenizer.quantizer.neighbours
    note = lambda *given: held.append(plain(*given)) or held[-1]
    monkeypatch.setattr(tokenizer.quantizer, "neighbours", note)
    some = pfid.reconstruct(found, jobs, None)
    assert [tuple(near.shape) for near in held] == [(2, 4, 1, 23_040, 1)] * 3
    monkeypatch.setattr(pfid, "_HELD", 2**24)
    whole = pfid.reconstruct(found, jobs, None)
    for job, one in some.items():
        name = found.features.name
        assert torch.equal(one.changed, whole[job].changed) and one.changed > 0
        assert torch.equal(one.tokens, whole[job].tokens)
        assert torch.allclose(
            torch.as_tensor(one.stats[name].mean), torch.as_tensor(whole[job].stats[name].mean)
        )


def test_use_of_the_codes_is_counted_without_a_table_of_positions_by_codes():
    spec = TokenSpec(blocks=((16, 16),), vocab=(CODES,), dim=4)
    codes = torch.randint(CODES, (4, 256, 1))
    with Largest() as largest:
        stats = CodebookStats(spec)
        stats.update(codes)
        use = stats.compute()
    assert use.usage == len(codes.unique()) / CODES and use.position_entropy is None
    assert largest.bytes <= 8 * CODES
