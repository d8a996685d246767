"""iFID-discrete-v1: the self tests of docs/ideas/ifid.md, and what its rows say."""

import numpy as np
import pytest
import torch

from tests.support.eval_tokenizers import PatchTokenizer
from vistok.config import validate
from vistok.data import Dataset, Photos, PhotosConfig
from vistok.eval.config import EvalConfig
from vistok.eval.context import Context
from vistok.eval.images import Views, exact
from vistok.eval.protocols import ifid
from vistok.eval.protocols.neighbors import same_places
from vistok.eval.reference.training_set import Picked
from vistok.eval.result_cache import facts_of
from vistok.eval.resumable import digest
from vistok.eval.systems.runs import open_data, resolve
from vistok.metrics import frechet_distance
from vistok.metrics.perturbed import draws
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import TokenSpec

pytestmark = pytest.mark.filterwarnings("ignore:Fréchet")


def training(size=8, count=40):
    return Views(Picked(Photos(PhotosConfig(size=size)).open("train", augment=False), count), 16)


def run(measure, context, base=None, **config):
    base = training() if base is None else base
    return measure(context, "ifid", lambda context: base, **config)


def distances(context, other, shares, length=None):
    mixing = ifid.Mixing(context, length or context.spec.max_prefix, shares)
    with exact():
        clean = ifid.all_codes(context)
        mixing.measure(clean, other(clean), torch.arange(len(clean)))
        real = context.views.stats(context.features)
        return [frechet_distance(one.stats, real) for one in mixing.done.values()], mixing


@pytest.mark.parametrize("quantizer", ["fsq", "vq", "lfq", "binary", "scales", "product_scales"])
def test_no_share_and_a_neighbor_that_is_oneself_change_nothing(
    context, measure, make_tokenizer, quantizer
):
    blocks = {"missing": "refuse"} if "scales" in quantizer else {}
    found = context(make_tokenizer(quantizer, **blocks))
    whole = found.spec.max_prefix
    clean = next(r for r in measure(found, "rfid") if r.metric == "rFID" and r.length == whole)
    none, mixing = distances(found, lambda codes: codes.roll(1, 0), [0.0])
    assert none == [clean.value] and float(mixing.done[0.0].changed) == 0
    itself, _ = distances(found, lambda codes: codes, [0.3, 1.0])
    assert itself == [clean.value] * 2
    swapped, mixing = distances(found, lambda codes: codes.roll(1, 0), [1.0])
    assert float(mixing.done[1.0].tokens) == 24 * found.spec.length * found.spec.branches
    # All images are decoded from another's codes: the same set, in another order.
    assert swapped == pytest.approx([clean.value], rel=1e-6)


def test_grows_with_the_share(context, measure):
    """Patches of another image where they do not belong: the more the worse."""
    found = context(PatchTokenizer(16), count=32, batch=32)
    shares = [0.0, 0.125, 0.25, 0.5]
    values, mixing = distances(found, lambda codes: codes.roll(5, 0), shares)
    assert torch.tensor(values).diff().min() > 0
    changed = [float(one.changed / one.tokens) for one in mixing.done.values()]
    assert changed[0] == 0 and changed == sorted(changed)
    rows = run(measure, context(PatchTokenizer(16), count=32), training(16, 100))
    cells = [row.value for row in rows if row.metric == "iFID-discrete-v1-cell"]
    assert [values[0], *cells] == sorted([values[0], *cells])


def test_batch_size_changes_nothing(context, measure):
    whole = run(measure, context(PatchTokenizer(8), batch=24), mode="quick")
    parts = run(measure, context(PatchTokenizer(8), batch=5), mode="quick")
    assert [row.value for row in parts] == pytest.approx([row.value for row in whole], rel=1e-6)
    assert [row.measured for row in parts] == [row.measured for row in whole]
    assert [row.note for row in parts] == [row.note for row in whole]


def test_only_kept_tokens_are_mixed_and_factors_of_a_token_stay_together():
    spec = TokenSpec(blocks=((3,), (2,)), vocab=(9, 5, 9, 5), dim=1, branches=2, prefix="per_block")
    clean = torch.zeros(40, 5, 4, dtype=torch.int64)
    moved = ifid.mixed(spec, clean, clean + 1, torch.arange(40), 2, 0.5, 0)
    assert not moved[:, 2].any()  # the third position of the first block is dropped
    assert torch.equal(moved[..., 0], moved[..., 1]) and torch.equal(moved[..., 2], moved[..., 3])
    assert not torch.equal(moved[..., 0], moved[..., 2])
    u = draws(0, 7, 8)[0]  # branch 0's four kept positions, then branch 1's
    assert moved[7][[0, 1, 3, 4], 0].tolist() == (u[:4] <= 0.5).astype(int).tolist()
    assert moved[7][[0, 1, 3, 4], 2].tolist() == (u[4:] <= 0.5).astype(int).tolist()


def test_rows_say_what_they_are(context, measure, make_tokenizer):
    found = context(make_tokenizer("vq"))
    rows = run(measure, found)
    assert [row.metric for row in rows] == ["iFID-discrete-v1", *["iFID-discrete-v1-cell"] * 3]
    assert [row.point for row in rows] == [{}, *({"share": s} for s in (0.125, 0.25, 0.5))]
    assert rows[0].value == pytest.approx(sum(row.value for row in rows[1:]) / 3)
    assert rows[0].setting == {"neighbors": "train", "train_images": 50_000}
    assert rows[0].features.name == "vistok-cnn" and rows[0].seed == 0 and rows[0].length == 4
    for words in ("nearest of 40 training images", "apart per position", "N=4"):
        assert words in rows[0].note
    quick = run(measure, found, mode="quick")
    assert [row.length for row in quick if row.plain] == [1, 2, 4]
    assert {row.point.get("share") for row in quick} == {None, 0.5}
    assert "all 24 images" in quick[0].note
    few = run(measure, found, training(count=0))
    assert few == [] and "0 images to choose a neighbor from" in found.skipped[-1]["reason"]
    assert measure(found, "ifid", lambda context: "no training images: none") == []
    assert "ifid.neighbors=val" in found.skipped[-1]["reason"]


@pytest.mark.parametrize("kind", ["fsq", "kl"])
def test_quick_looks_at_its_own_images_alone(context, measure, tree, monkeypatch, kind):
    torch.manual_seed(1)
    config = tree("fsq") if kind == "fsq" else tree() | {"quantizer": {"kind": "kl", "dim": 3}}
    tokenizer = Tokenizer(validate(TokenizerConfig, config)).eval()
    few = np.arange(0, 24, 5)
    monkeypatch.setattr(ifid, "quick_subset", lambda size, noun: (few, None))
    read, plain = [], Views.batches

    def batches(self, title, done=0, only=None):
        read.append((title, only))
        return plain(self, title, done, only)

    monkeypatch.setattr(Views, "batches", batches)
    rows = run(measure, context(tokenizer, batch=2), mode="quick")
    assert rows and {row.count for row in rows} == {5}
    mixes = [only for title, only in read if "mix" in title]
    encoded = [only for title, only in read if title == "tiny: encode"]
    assert mixes and all(only == few.tolist() for only in [*mixes, *encoded])
    whole = run(measure, context(tokenizer, batch=24), mode="quick")
    assert [row.value for row in whole] == pytest.approx([row.value for row in rows], rel=1e-6)


def test_other_training_images_are_another_outcome(runs, features):
    (system,) = resolve(runs[:1])
    keys = set()
    for changes in ({}, {"count": 50}, {}):
        data = open_data(system.tokenizer, changes)
        found = Context(system.tokenizer, Views(data, 16), features)
        (job,) = ifid.IFID().jobs(system, EvalConfig(data=changes))
        assert found.views.identity == Views(open_data(system.tokenizer, {}), 16).identity
        keys.add(digest(facts_of(job, found)))
    assert len(keys) == 2


def test_an_image_is_never_its_own_neighbor(context, measure, make_tokenizer):
    found = context(make_tokenizer("fsq"))
    rows = run(measure, found, found.views, neighbors="val")
    assert "nearest of 24 evaluated images, never itself" in rows[0].note
    again = Views(Photos(PhotosConfig(size=8, val_count=24)).open("val"), 16)
    same = run(measure, found, again, neighbors="val")
    assert [row.value for row in same] == [row.value for row in rows]
    assert "24 training images, never itself" in same[0].note


def test_places_of_the_same_images():
    whole = Photos(PhotosConfig(size=8, val_count=10)).open("val")
    views = Views(whole, 4, limit=6)
    assert same_places(views, Views(whole, 4)).tolist() == list(range(6))
    picked = Picked(whole, 5)
    places = same_places(views, Views(picked, 4)).tolist()
    assert places == [
        picked.rows.tolist().index(i) if i in picked.rows.tolist() else -1 for i in range(6)
    ]
    assert same_places(views, training()) is None


def test_jobs(config, runs):
    (system,) = resolve(runs[:1])

    class Protocol(ifid.IFID):
        pass

    asked = lambda *overrides: [
        (job.config.mode, job.config.train_images)
        for job in Protocol().jobs(system, config(*overrides))
    ]
    assert asked() == [("full", 50_000)]
    assert asked("ifid.mode=both") == [("full", 50_000), ("quick", 10_000)]
    assert asked("ifid.mode=quick", "ifid.train_images=300") == [("quick", 300)]


def test_frames_of_clips_are_images(features, perceptual, measure):
    """Clips that stand still have the tokens and the distances of their frames."""
    from types import SimpleNamespace

    from tests.support.eval_tokenizers import ClipTokenizer

    class Colors(Dataset):
        """Clips of two frames, each of one color."""

        frames, classes, size = 2, (), (4, 4)

        def __init__(self, count, shift):
            self.count, self.shift = count, shift

        def __len__(self):
            return self.count

        def record(self):
            manifest = f"{self.count} {self.shift}"
            return {"kind": "colors", "manifest": manifest, "count": self.count}

        def sample(self, index, epoch=0, seed=0):
            from vistok.data import Sample

            color = (torch.tensor([37, 91, 17]) * (index + self.shift) % 256).to(torch.uint8)
            return Sample(index, color[:, None, None, None].expand(3, 2, 4, 4), -1, fps=8.0)

    class Clips(ClipTokenizer):
        def values(self, tokens):
            return tokens.indices.float()

    run_ = SimpleNamespace(name="clips", sha256="0" * 64, tokenizer=Clips(2, 4))
    found = Context(run_, Views(Colors(8, 0), 4), features, perceptual)
    base = Views(Colors(20, 1), 4)
    rows = measure(found, "ifid", lambda context: base)
    assert [row.metric for row in rows][:2] == ["iFID-discrete-v1-frame", *[rows[1].metric]]
    assert rows[0].count == 16 and rows[0].size == (2, 4, 4) and rows[0].note.count("clips") == 1
    # All evaluated colors but one (index 0: black) are training colors, at the place before.
    assert rows[0].value > 0 and rows[1].measured["changed"] == pytest.approx(0.125 / 8, abs=0.01)


def test_neighbors_are_found_again(context, measure, make_tokenizer, tmp_path, monkeypatch):
    """A killed evaluation does not search anew; other images are another file; damage is told."""
    from vistok.eval.protocols import neighbors
    from vistok.eval.resumable import Cache

    def again(count=40):
        found = context(make_tokenizer("fsq"))
        found.run.described = {}
        found.views.cache = Cache(tmp_path)
        return [row.value for row in run(measure, found, training(count=count))]

    first = again()
    (path,) = tmp_path.glob("neighbors-*.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(neighbors, "nearest_samples", None)
        assert again() == first
    again(30)
    assert len(list(tmp_path.glob("neighbors-*"))) == 2
    path.write_bytes(path.read_bytes()[:-8])
    assert again() == first
