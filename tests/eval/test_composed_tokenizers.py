"""A product of multi-scale codes goes through every protocol like any other tokenizer."""

import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

from vistok.cli import main
from vistok.core.draws import Draws
from vistok.core.records import Batch
from vistok.eval.config import EvalConfig
from vistok.eval.images import exact
from vistok.eval.measure import evaluate
from vistok.eval.protocols import pfid
from vistok.eval.protocols.pfid import Decoding
from vistok.metrics.perturbed import Cell
from vistok.tokenizer import Tokenizer
from vistok.tokens import Tokens

pytestmark = pytest.mark.filterwarnings("ignore:Fréchet")


@pytest.fixture
def tokenizer(make_tokenizer):
    """Two branches of 1 + 4 tokens with 12 codes each; two blocks."""
    return make_tokenizer("product_scales", "refuse")


def test_tokens_bytes_and_prefixes(tokenizer, tmp_path):
    spec, pixels = tokenizer.spec(), torch.rand(3, 3, 8, 8)
    assert (spec.blocks, spec.vocab, spec.branches) == (((1, 1), (2, 2)), (12, 12), 2)
    assert (spec.prefix, spec.length, spec.bits, spec.eval_lengths) == ("block", 5, 40, (1, 2))
    tokens = tokenizer.encode(pixels)
    assert tokens.indices.shape == (3, 5, 2)
    whole = tokenizer.decode(tokens)
    trained = tokenizer(Batch(torch.arange(3), pixels)).pixels.clamp(0, 1)
    assert torch.equal(trained, whole)
    short = tokens.prefix(1)
    assert torch.equal(tokenizer.encode(pixels, length=1).indices, short.indices)
    kept = tokenizer(Batch(torch.arange(3), pixels), Draws(keep=torch.tensor([1] * 3))).pixels
    assert torch.allclose(tokenizer.decode(short), kept.clamp(0, 1), atol=1e-6)
    assert not torch.allclose(tokenizer.decode(short), whole, atol=1e-4)
    for cut in (tokens, short):
        back = Tokens.from_bytes(cut.to_bytes(), spec)
        assert torch.equal(tokenizer.decode(back), tokenizer.decode(cut))
    tokenizer.save_pretrained(tmp_path)
    assert torch.equal(Tokenizer.from_pretrained(tmp_path).decode(tokens), whole)


def test_reconstruction_and_perturbation_at_every_number_of_scales(context, measure, tokenizer):
    found = context(tokenizer)
    rows = measure(found, "rfid")
    assert {row.length for row in rows if row.metric == "rFID"} == {1, 2}
    clean = next(r for r in rows if r.metric == "rFID" and r.length == 2)
    rows = measure(found, "pfid", mode="both")
    assert {row.length for row in rows if row.metric == "pFID-v1-quick"} == {1, 2}
    (full,) = (row for row in rows if row.metric == "pFID-v1")
    assert "N=10, K=12" in full.note and full.value != clean.value
    with exact():
        done = pfid.reconstruct(found, [Decoding(2, Cell(0.0, 9), False)], None)
    assert [float(one.changed) for one in done.values()] == [0]
    assert measure(found, "robust", flips=(0.1,), losses=(0.5,))


def test_every_branch_and_scale_is_perturbed(tokenizer):
    quantized = tokenizer.quantize(tokenizer.latents(torch.rand(64, 3, 8, 8)))
    near = tokenizer.quantizer.neighbours(quantized.queries, 12)
    assert near.shape == (64, 5, 2, 12, 1)
    cell = Decoding(2, Cell(1.0, 12), False)
    moved = pfid.perturb(tokenizer.spec(), quantized.indices, near, torch.arange(64), cell, 0)
    share = (moved != quantized.indices).float().mean(0)
    assert ((share - 11 / 12).abs() < 0.15).all()  # at each of ten tokens
    one = Decoding(1, Cell(1.0, 12), False)
    first = pfid.perturb(tokenizer.spec(), quantized.indices, near, torch.arange(64), one, 0)
    assert torch.equal(first[:, 1:], quantized.indices[:, 1:])


def test_an_ar_probe_learns_its_tokens(tokenizer, tmp_path, small_probe, in_process):
    """Tokens are cached, a generator trains on them, and its samples are decoded."""
    tokenizer.save_pretrained(tmp_path / "run" / "model")
    data = {"kind": "photos", "size": 8, "val_count": 8, "count": 20}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    options = EvalConfig(protocols=("gfid",), gfid={"probe": str(small_probe), "seeds": 1})
    results = evaluate([tmp_path / "run"], options)
    assert in_process == ["tokens", "small"] and not results.facts["skipped"]
    assert results.find("gFID", "run/small", length=2)[0].value > 0


def test_the_commands_take_it(tokenizer, tmp_path):
    def call(*arguments):
        result = CliRunner().invoke(main, [str(one) for one in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    model, image = tmp_path / "model", tmp_path / "image.png"
    tokenizer.save_pretrained(model)
    Image.new("RGB", (8, 8), (250, 10, 90)).save(image)
    text = call("info", model)
    assert "12 x 12" in text and "quantizer                product" in text
    for length in (1, 2):
        codes, back = tmp_path / f"codes{length}", tmp_path / f"back{length}"
        call("encode", model, image, "--length", length, "--out", codes)
        call("decode", model, codes / "image.vtk", "--out", back)
        assert Image.open(back / "image.png").size == (8, 8)


def test_code_vectors_of_scales_are_no_table(tokenizer, fails):
    from vistok.generators.embedding import CodeEmbedding

    embed = CodeEmbedding((12, 12), tokenizer.spec().dim, 8, frozen=False)
    with fails(ValueError, "144 positions", "expected 5"):
        embed.fill(tokenizer.quantizer, (12, 12))
