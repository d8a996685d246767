"""pFID-v1: the self tests of its card (section 7), and which numbers are reported."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.support.eval_tokenizers import PatchTokenizer
from vistok.core.shapes import Shape
from vistok.data import Dataset
from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.images import Views, exact
from vistok.eval.protocols import pfid
from vistok.eval.protocols.pfid import Decoding
from vistok.metrics import FeatureStats, frechet_distance
from vistok.metrics.perturbed import Cell
from vistok.tokens import TokenSpec


def distances(context, cells, length=None):
    length = length or context.spec.max_prefix
    with exact():
        done = pfid.reconstruct(context, [Decoding(length, cell, False) for cell in cells], None)
        real = context.views.stats(context.features)
        seen = [one.stats[context.features.name] for one in done.values()]
        return [frechet_distance(one, real) for one in seen], list(done.values())


def test_the_mean_of_a_cell_that_is_infinite_is(context, measure, make_tokenizer, monkeypatch):
    values = itertools.cycle((1.0, math.inf, 2.0))
    monkeypatch.setattr("vistok.eval.context.frechet_distance", lambda *rest: next(values))
    rows = measure(context(make_tokenizer("fsq")), "pfid", mode="quick_rel")[:4]
    assert [row.number for row in rows] == [math.inf, 1.0, math.inf, 2.0]
    assert rows[0].interval is None and rows[0].not_finite == "inf"


@pytest.mark.filterwarnings("ignore:Fréchet")
@pytest.mark.parametrize("quantizer", ["fsq", "vq", "lfq", "binary"])
def test_no_share_or_no_neighbours_change_nothing(context, measure, make_tokenizer, quantizer):
    found = context(make_tokenizer(quantizer))
    clean = next(r for r in measure(found, "rfid") if r.metric == "rFID" and r.length == 4)
    values, done = distances(found, [Cell(0.0, 200), Cell(1.0, 1)])
    assert values == pytest.approx([clean.value] * 2, rel=1e-6)
    assert [float(one.changed) for one in done] == [0, 0]


@pytest.mark.filterwarnings("ignore:Fréchet")
def test_batch_size_changes_nothing(context):
    cells = [Cell(0.5, 20), Cell(0.9, 50)]
    tokenizer = PatchTokenizer(8)
    one, first = distances(context(tokenizer, batch=24), cells)
    two, second = distances(context(tokenizer, batch=5), cells)
    assert one == pytest.approx(two, rel=1e-6)
    assert [float(a.changed) for a in first] == [float(b.changed) for b in second]


@pytest.mark.filterwarnings("ignore:Fréchet")
def test_share_of_changed_tokens(context):
    tokenizer = PatchTokenizer(16, patch=1)
    cell = Cell(0.7, 50)
    _, (done,) = distances(context(tokenizer, count=64, batch=64), [cell])
    changed = float(done.changed / done.tokens)
    assert float(done.tokens) == 64 * 256
    assert changed == pytest.approx(0.7 * 49 / 50, abs=0.005)


@pytest.mark.filterwarnings("ignore:Fréchet")
def test_grows_with_share_and_neighbourhood(context):
    found = context(PatchTokenizer(16), count=48, batch=48)
    cells = [Cell(a, d) for a in (0.3, 0.6, 0.9) for d in (20, 100, 400)]
    values, _ = distances(found, cells)
    grid = torch.tensor(values).view(3, 3)
    assert (grid.diff(dim=0) > 0).all() and (grid.diff(dim=1) > 0).all()


def test_only_kept_tokens_are_perturbed(context, make_tokenizer):
    tokenizer = make_tokenizer("fsq")
    spec = tokenizer.spec()
    pixels = torch.rand(6, 3, 8, 8)
    quantized = tokenizer.quantize(tokenizer.latents(pixels))
    near = tokenizer.quantizer.neighbours(quantized.queries, 12)
    job = Decoding(2, Cell(1.0, 12), False)
    moved = pfid.perturb(spec, quantized.indices, near, torch.arange(6), job, 0)
    assert torch.equal(moved[:, 2:], quantized.indices[:, 2:])
    assert not torch.equal(moved[:, :2], quantized.indices[:, :2])


def test_a_prefix_of_each_block_is_perturbed_where_it_is_kept():
    """Two blocks of 3 and 2 positions, of which the first 2 each are kept: 0, 1, 3, 4."""
    spec = TokenSpec(blocks=((3,), (2,)), vocab=(9,), dim=1, prefix="per_block")
    clean = torch.zeros(4, 5, 1, dtype=torch.int64)
    near = torch.arange(9).view(1, 1, 1, 9, 1).expand(4, 5, 1, 9, 1)
    every = Decoding(2, Cell(1.0, 9), False)
    moved = pfid.perturb(spec, clean, near, torch.arange(4), every, 0)
    assert not moved[:, 2].any()  # the third position of the first block is dropped
    assert moved[:, [0, 1, 3, 4]].any(0).all()
    whole = pfid.perturb(spec, clean, near, torch.arange(4), every._replace(length=3), 0)
    assert whole.any(0).all()


def test_plan(make_tokenizer):
    spec = make_tokenizer("fsq").spec()  # 12 codes
    numbers = pfid.plan(spec, "both", False)
    names = [(n.name, n.length, len(n.cells)) for n in numbers]
    assert names == [
        ("pFID-v1", 4, 15),
        ("pFID-v1-rel", 4, 15),
        ("pFID-v1-quick", 1, 3),
        ("pFID-v1-quick", 2, 3),
        ("pFID-v1-quick", 4, 3),
    ]
    assert {used.delta for _, used in numbers[0].cells} == {12}
    assert {used.delta for _, used in numbers[1].cells} == {2}
    whole = spec.model_copy(update={"vocab": (4096,)})
    assert [n.name for n in pfid.plan(whole, "full", False)] == ["pFID-v1"]


def test_quick_cells_as_published_and_scaled(make_tokenizer):
    """At 4,096 codes both are the same cells, decoded once; and both numbers are there."""
    spec = make_tokenizer("fsq").spec()
    for codes, deltas in ((1024, [50, 70, 90]), (4096, [200, 280, 360])):
        numbers = pfid.plan(spec.model_copy(update={"vocab": (codes,)}), "quick_rel", False)
        assert [(n.name, n.length) for n in numbers] == [
            ("pFID-v1-quick", 4),
            ("pFID-v1-rel-quick", 4),
        ]
        assert [used.delta for _, used in numbers[0].cells] == [200, 280, 360]
        assert [used.delta for _, used in numbers[1].cells] == deltas
        assert len({job for n in numbers for job in n.jobs()}) == (3 if codes == 4096 else 6)


@pytest.mark.filterwarnings("ignore:Fréchet")
def test_rows_say_what_they_are(context, measure, make_tokenizer):
    found = context(make_tokenizer("vq"))
    rows = measure(found, "pfid")
    mean = next(row for row in rows if row.metric == "pFID-v1")
    cells = [row for row in rows if row.metric == "pFID-v1-cell"]
    assert len(cells) == 15
    assert mean.value == pytest.approx(sum(row.value for row in cells) / 15)
    for words in ("query=latent", "N=4", "K=12", "200 to 12"):
        assert words in mean.note
    quick = [row for row in rows if row.metric == "pFID-v1-quick"]
    assert [row.length for row in quick] == [1, 2, 4] and "all 24 images" in quick[0].note
    assert cells[0].point == {"alpha": 0.5, "delta": 200} and cells[0].measured["delta"] == 12
    assert measure(found, "pfid", mode="none") == []
    assert "pfid.mode=none" in found.skipped[-1]["reason"]


@pytest.mark.filterwarnings("ignore:Fréchet")
def test_frames_of_clips_are_images(features, perceptual, context, measure, make_tokenizer):
    """A clip that stands still has the distances of its frame, seen T times."""
    still = context(make_tokenizer("fsq"), count=6)
    clean = {row.metric: row for row in measure(still, "pfid", mode="quick") if row.plain}

    class Still(Dataset):
        """The same photos as clips of two equal frames."""

        frames, classes, size = 2, (), (8, 8)

        def __len__(self):
            return len(still.views.dataset)

        def record(self):
            return still.views.dataset.record()

        def sample(self, index, epoch=0, seed=0):
            found = still.views.dataset.sample(index, epoch, seed)
            clip = found.pixels[:, None].repeat(1, 2, 1, 1)
            return replace(found, pixels=clip, fps=8.0)

    class OfClips:
        """The tokenizer of images, for the first frame of each clip; it shows it twice."""

        def __init__(self, inner):
            self.inner, self.quantizer, self.config = inner, inner.quantizer, inner.config
            self.shape = Shape(3, (2, *inner.shape.sides))
            self.spec, self.quantize = inner.spec, inner.quantize

        def latents(self, clips):
            return self.inner.latents(clips[:, :, 0])

        def decode(self, tokens):
            return self.inner.decode(tokens)[:, :, None].repeat(1, 1, 2, 1, 1)

    run = SimpleNamespace(name="tiny", sha256="0" * 64, tokenizer=OfClips(still.tokenizer))
    found = Context(run, Views(Still(), 4), features, perceptual)
    rows = {row.metric: row for row in measure(found, "pfid", mode="quick") if row.plain}
    assert set(rows) == {"pFID-v1-quick-frame"} and set(clean) == {"pFID-v1-quick"}
    one, two = clean["pFID-v1-quick"], rows["pFID-v1-quick-frame"]
    assert two.count == 2 * one.count and two.size == (2, 8, 8)
    # Covariances are divided by 2 n - 1 instead of n - 1, on both sides.
    assert two.value == pytest.approx(one.value, rel=0.15) and two.value < one.value


def test_cells_are_decoded_together():
    """Groups of exactly the size, in order, with nothing lost: cells of 3, 7 and 1 images."""
    cells = [Decoding(4, Cell(0.5, delta), False) for delta in (20, 50, 100)]
    images = torch.arange(7)
    pieces = [
        pfid.Piece(job, images[:count, None, None], images[:count])
        for job, count in zip(cells, (3, 7, 1), strict=True)
    ]
    groups = list(pfid.packed(pieces, 4))
    assert [sum(len(piece.row) for piece in group) for group in groups] == [4, 4, 3]
    for job, count in zip(cells, (3, 7, 1), strict=True):
        own = [piece for group in groups for piece in group if piece.job == job]
        assert torch.equal(torch.cat([piece.row for piece in own]), images[:count])
        assert torch.equal(torch.cat([piece.codes for piece in own])[:, 0, 0], images[:count])
    assert list(pfid.packed([], 4)) == []


@pytest.mark.filterwarnings("ignore:Fréchet")
def test_a_subset_is_read_alone(context, monkeypatch):
    """Quick cells look at their subset alone, each image under its own number, and find what they
    find in a pass over all images."""
    tokenizer, seen = PatchTokenizer(8), []
    quick = [Decoding(tokenizer.spec().max_prefix, Cell(0.7, 50), True)]
    plain = pfid.perturb
    note = lambda spec, clean, near, index, *rest: (
        seen.append(index) or plain(spec, clean, near, index, *rest)
    )
    monkeypatch.setattr(pfid, "perturb", note)
    found = context(tokenizer, batch=5)
    subset = [1, 4, 5, 11, 18, 20, 23]
    with exact():
        (one,) = pfid.reconstruct(found, quick, subset).values()
        assert torch.cat(seen).tolist() == subset and [len(own) for own in seen] == [5, 2]
        pixels = torch.stack([found.views.dataset[i].pixels for i in subset]).float() / 255
        quantized = tokenizer.quantize(tokenizer.latents(pixels))
        near = tokenizer.quantizer.neighbours(quantized.queries, 50)
        moved = plain(tokenizer.spec(), quantized.indices, near, torch.tensor(subset), quick[0], 0)
        decoded = to_uint8(tokenizer.decode(pfid.tokens_of(found, moved, quick[0].length)))
        expected = FeatureStats.of(found.features(decoded))
    own = one.stats[found.features.name]
    assert own.count == 7 and float(one.tokens) == 7 * tokenizer.spec().length
    assert own.mean == pytest.approx(expected.mean, rel=1e-6)
