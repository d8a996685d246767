"""FVD of reconstructed and generated clips: presets, networks of time, real sides, measures over
time."""

from types import SimpleNamespace

import pytest
import torch

from tests.support.eval_tokenizers import ClipTokenizer
from tests.support.recipes import TINY, read_config
from vistok.config import Config, ConfigError
from vistok.data import Photos, PhotosConfig
from vistok.eval.context import Context
from vistok.eval.images import Views, exact
from vistok.eval.protocols.base import PROTOCOLS, Job, Skip
from vistok.eval.protocols.fvd_presets import PRESETS, misfit
from vistok.eval.reference.training_set import Picked
from vistok.eval.report.comparison import comparison
from vistok.eval.results.rows import Results
from vistok.metrics import FeatureStats, frechet_distance
from vistok.metrics.over_time import Flicker
from vistok.metrics.video import MotionFeatures
from vistok.tokenizer import Tokenizer


@pytest.fixture
def clips(features, perceptual, context):
    """clips(tokenizer, count) -> a context of clips of photos."""

    def make(tokenizer, count=6):
        found = context(tokenizer)
        frames, size = tokenizer.shape.sides[:2]
        data = Photos(PhotosConfig(size=size, frames=frames, val_count=count)).open("val")
        return Context(found.run, Views(data, 4), features, perceptual)

    return make


def test_a_preset_takes_its_own_clips_alone():
    video = {"kind": "video", "stride": 1}
    assert misfit("larp", PRESETS["larp"], (16, 128, 128), video) == ""
    assert misfit("magvit", PRESETS["magvit"], (17, 128, 128), {**video, "stride": 4}) == ""
    said = misfit("larp", PRESETS["larp"], (17, 64, 64), {**video, "stride": 2})
    assert "16 frames, 128x128 pixels, frames at the file's own rate" in said
    assert "these clips are 17x64x64 at stride 2" in said
    assert misfit("open_magvit2", PRESETS["open_magvit2"], (17, 128, 128), video) == ""
    assert "256x256" in misfit(
        "omnitokenizer", PRESETS["omnitokenizer"], (17, 128, 128), {"kind": "photos"}
    )


def test_the_config_refuses_what_contradicts(config):
    assert config("rfvd.preset=larp").rfvd.preset == ("larp",)
    with pytest.raises(ConfigError, match="preset=larp and clips=styleganv contradict"):
        config("rfvd.preset=larp", "rfvd.clips=styleganv")
    with pytest.raises(ConfigError, match="preset"):
        config("rfvd.preset=lrp")


@pytest.mark.filterwarnings("ignore:Fréchet")
def test_two_presets_never_share_a_column(clips, config, monkeypatch):
    monkeypatch.setitem(PRESETS, "larp", PRESETS["larp"].__class__("larp", "n", "svd", (3,), 8))
    monkeypatch.setitem(PRESETS, "magvit", PRESETS["magvit"].__class__("larp", "n-1", "svd", (4,)))
    found, rows = clips(ClipTokenizer(3, 8, keep=4)), []
    for job in PROTOCOLS["rfvd"].jobs(None, config("rfvd.preset=[own,larp,magvit]")):
        found.job = job
        with exact():
            rows += PROTOCOLS["rfvd"].run(found, job.config)
    assert [one["reason"][:27] for one in found.skipped] == ["preset magvit asks for 4 fr"]
    whole = [row for row in rows if row.length == rows[-1].length]
    own, larp = whole[0], whole[-1]
    assert own.display == "rFVD[vistok-cnn frames, photos]"
    assert larp.display == "rFVD[vistok-cnn frames, larp, photos]"
    assert larp.setting["convention"]["covariance"] == "n" and larp.count == 6
    # S_b = S_u (n - 1) / n, and both sides have one n: only the means keep their weight.
    assert 0 < larp.value < own.value and larp.value > own.value * 5 / 6 - 1e-6
    table = comparison(Results(rows=tuple(rows), runs=({"name": "tiny"},)))
    assert len(table.columns) == 2 and {c.inside for c in table.columns} == {"", "larp"}


def test_motion_sees_order_and_direction(features):
    clip = (torch.arange(5)[None, None, :, None, None] * 20).expand(1, 3, 5, 8, 8).clone()
    clip[:, :, :, :4] = 0
    clip = clip.to(torch.uint8)
    looked = MotionFeatures(features)
    with exact():
        plain, back, mixed, still = (
            looked(clip[:, :, order])
            for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [0, 3, 1, 4, 2], [2, 2, 2, 2, 2])
        )
        single = looked(clip[:, :, :1])
    for other in (back, mixed, still):
        assert (plain - other).abs().max() > 0.05 * plain.abs().max()
    assert torch.allclose(single, still, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Fréchet")
def test_shuffled_frames_are_further_away(features):
    data = Photos(PhotosConfig(size=16, frames=4, val_count=24)).open("val")
    real = torch.stack([data[i].pixels for i in range(24)])
    looked = MotionFeatures(features)
    with exact():
        sides = [FeatureStats.of(looked(x)) for x in (real, real[:, :, [2, 0, 3, 1]])]
    assert frechet_distance(sides[0], sides[0]) < 1e-4
    assert frechet_distance(*sides) > 0.01


def test_flicker_is_no_steady_error():
    real = torch.rand(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5
    steady, flickers = Flicker(), Flicker()
    steady.update(real + 0.1, real)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0])[None, None, :, None, None]
    flickers.update(real + 0.1 + 0.1 * signs, real)
    assert steady.compute().flicker < 1e-4 and steady.compute().clip_psnr == pytest.approx(20, 1e-4)
    found = flickers.compute()
    assert found.flicker == pytest.approx(0.2 * 255, rel=1e-4)
    assert found.change_psnr == pytest.approx(-20 * torch.tensor(0.2).log10().item(), rel=1e-4)
    one, two = Flicker(), Flicker()
    one.update(real[:1] * 0.9, real[:1])
    two.update(real[1:] * 0.9, real[1:])
    both = Flicker()
    both.update(real * 0.9, real)
    assert one.merge(two).compute() == pytest.approx(both.compute())


def test_curves_over_the_frames(clips, measure):
    rows = measure(clips(ClipTokenizer(3, 16, keep=4)), "over_time")
    curve = [row for row in rows if row.metric == "PSNR-cell"]
    assert [row.point for row in curve] == [{"frame": 0}, {"frame": 1}, {"frame": 2}]
    assert {"SSIM-cell", "perceptual-cell", "flicker", "PSNR-change", "PSNR-clip"} <= {
        row.metric for row in rows
    }
    assert all(row.count == 6 for row in rows)


@pytest.mark.filterwarnings("ignore:Fréchet")
def test_generated_clips_against_training_and_validation_clips(clips, config, monkeypatch):
    found, seen = clips(ClipTokenizer(3, 8)), []
    sampling = Config()
    model = SimpleNamespace(
        reads_text=False, num_classes=0, classes=(), sampling=sampling,
        config=SimpleNamespace(condition=SimpleNamespace(null_class=False)),
        settings=lambda changes: sampling, unguided={},
    )  # fmt: skip
    model.to = lambda device: model
    model.eval = lambda: model
    model.untrained = lambda seed: model
    generator = SimpleNamespace(name="gen", generator=model, sha256="1" * 64, fit="")
    data = Picked(Photos(PhotosConfig(size=8, frames=3, count=20)).open("train"), 12)

    def made(context, model, index, one):
        seen.extend(index.tolist())
        return torch.stack([data[int(i)].pixels for i in index]).float() / 255

    monkeypatch.setattr("vistok.eval.protocols.gfid.pixels_of", made)
    found.run.config = {"data": {"kind": "photos", "size": 8, "frames": 3, "count": 20}}
    found.run.spec, found.run.folder = found.tokenizer.spec(), "tiny"
    system = SimpleNamespace(tokenizer=found.run, generators=[generator])
    asked = config("gfvd.samples=12", "gfid.samples=12", "gfid.train_images=12")
    rows = {}
    for protocol in ("gfvd", "gfid"):
        for job in PROTOCOLS[protocol].jobs(system, asked):
            if isinstance(job, Skip):  # guidance that this generator cannot follow
                continue
            found.job = job
            with exact():
                rows |= {row.metric: row for row in PROTOCOLS[protocol].run(found, job.config)}
    assert isinstance(found.job, Job) and set(seen) == set(range(12))
    assert rows["gFVD"].value < 1e-3 < rows["gFVD-val"].value  # samples are the training clips
    assert rows["gFVD"].count == 12 and rows["gFVD"].reference.split == "train"
    assert rows["gFVD"].size == rows["gFID-frame"].size == (3, 8, 8)
    assert rows["gFVD"].display == "gFVD[vistok-cnn frames, photos]"
    assert rows["gFID-frame"].value < 1e-3 < rows["gFID-val-frame"].value
    assert rows["gFID-frame"].count == 36 and "gFID" not in rows
    assert "gFVD-untrained" in rows and "12 samples" in rows["gFVD"].note


@pytest.fixture(scope="module")
def any_rate():
    """tiny/vfrtok: 8 frames at 24 fps, or as many at another rate, patches of two frames."""
    torch.manual_seed(0)
    return Tokenizer(read_config(TINY["vfrtok"]).task.tokenizer).eval()


@pytest.mark.filterwarnings("ignore:Fréchet")
def test_clips_read_at_one_rate_and_shown_at_another(clips, config, any_rate):
    found, rows = clips(any_rate, 2), {}
    own = found.views.record["fps"]
    for words in ((), (f"read_fps={own / 2}",), (f"read_fps={own / 2}", f"target_fps={own / 4}")):
        for name in ("over_time", "rfvd"):
            keys = [f"{name}.{word}" for word in words]
            job = PROTOCOLS[name].jobs(None, config(*keys))[0]
            found.job = job
            with exact():
                made = PROTOCOLS[name].run(found, job.config)
            rows[name, len(words)] = [row for row in made if row.length == 16]
    count = {key: sum(row.metric == "PSNR-cell" for row in some) for key, some in rows.items()}
    assert [count["over_time", n] for n in range(3)] == [8, 8, 2]
    names = [rows["rfvd", n][0].display.split("photos")[0] for n in range(3)]
    assert names[0] == "rFVD[vistok-cnn frames, "
    assert names[1] == f"rFVD[vistok-cnn frames, read at {own / 2:g} fps, "
    assert names[2].endswith(f"read at {own / 2:g} fps, shown at {own / 4:g} fps, ")
    assert len({rows["rfvd", n][0].value for n in range(3)}) == 3


def test_a_rate_that_cannot_be_measured_is_skipped(clips, config, any_rate):
    for tokenizer, word, reason in (
        (ClipTokenizer(3, 16), "read_fps=4", "read_fps=4: this tokenizer has one frame rate"),
        (any_rate, "read_fps=600", "read_fps=600: the data have"),
        (any_rate, "target_fps=0.5", "target_fps=0.5: 8 frames at"),
    ):
        found = clips(tokenizer, 2)
        found.job = PROTOCOLS["over_time"].jobs(None, config(f"over_time.{word}"))[0]
        with exact():
            assert PROTOCOLS["over_time"].run(found, found.job.config) == []
        assert found.skipped[0]["reason"].startswith(reason)
