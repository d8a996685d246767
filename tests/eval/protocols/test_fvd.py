"""FVD of reconstructed and generated clips: presets, networks of time, real sides, measures over
time."""

from types import SimpleNamespace
from typing import get_args

import pytest
import torch

from tests.support.eval_tokenizers import ClipTokenizer
from tests.support.recipes import TINY, read_config
from vistok.config import Config, ConfigError
from vistok.data import Photos, PhotosConfig
from vistok.eval.context import Context
from vistok.eval.images import Views, exact
from vistok.eval.protocols.base import PROTOCOLS, Job, Skip
from vistok.eval.protocols.fvd_presets import PRESETS, PresetName, misfit
from vistok.eval.protocols.rfvd import Looking
from vistok.eval.protocols.sample_texts import conditioned
from vistok.eval.reference.training_set import Picked
from vistok.eval.report.comparison import comparison
from vistok.eval.results.compare import differences
from vistok.eval.results.rows import Results
from vistok.frozen import VideoNetwork
from vistok.frozen.clips import preset as preset_of_clips
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
    assert "16 or 128 frames" in misfit("styleganv_original", PRESETS["styleganv_original"],
                                        (32, 64, 64), video)  # fmt: skip
    continued = PRESETS["larp_prediction"]
    assert misfit("larp_prediction", continued, (16, 128, 128), video, known=5) == ""
    said = misfit("larp_prediction", continued, (16, 128, 128), video)
    assert "asks for 5 known frames (condition.first_frames" in said
    said = misfit("larp", PRESETS["larp"], (16, 128, 128), video, known=5)
    assert "asks for no known frames" in said and "16x128x128 with 5 known frames" in said
    assert misfit("own", PRESETS["own"], (16, 128, 128), video, known=5) == ""


def test_the_table_of_presets_is_the_programs():
    """Of video_evaluation's protocols: preprocessing, divisor, frames, pixels, known frames."""
    table = {
        "larp": ("larp", "n", (16,), 128, None, None),
        "larp_prediction": ("larp", "n", (16,), 128, 64, 5),
        "magvit": ("larp", "n-1", (16, 17), 128, None, None),
        "magvit_prediction": ("larp", "n-1", (16, 17), 64, None, 5),
        "omnitokenizer": ("omnitokenizer", "n-1", (17,), 256, None, None),
        "omnitokenizer_prediction": ("omnitokenizer", "n-1", (17,), 256, None, 5),
        "open_magvit2": ("omnitokenizer", "n-1", (17,), 128, None, None),
        "own": ("larp", "n-1", None, None, None, None),
        "styleganv": ("styleganv", "n-1", (16,), None, None, None),
        "styleganv_original": ("larp", "n-1", (16, 128), None, None, None),
        "tats": ("omnitokenizer", "n-1", (16,), 128, None, None),
        "videogpt": ("videogpt", "n-1", (16,), None, None, None),
    }
    found = {
        name: (one.clips, one.covariance, one.frames, one.side, one.resized, one.known)
        for name, one in PRESETS.items()
    }
    assert found == table and set(table) == set(get_args(PresetName))
    assert [name for name, one in PRESETS.items() if one.rounded] == ["own", "styleganv_original"]


class Brightness(VideoNetwork):
    """The mean of a clip, as one feature."""

    dim, side = 1, 4

    def __init__(self, clips: str) -> None:
        super().__init__("brightness", "0" * 64)
        self.prepare, self.preprocess = preset_of_clips(clips), clips

    def look(self, clips):
        return clips.flatten(1).mean(1, keepdim=True)


@pytest.mark.parametrize("name", PRESETS)
def test_numbers_by_hand(name):
    """Two gray clips each: the distance is that of two normals, (m - m')^2 + (s - s')^2."""
    preset, gray = PRESETS[name], torch.ones(1, 3, 2, 8, 8)
    look = Looking(Brightness(preset.clips), preset, eight_bits=False)
    stats = [FeatureStats.of(look(torch.cat([a * gray, b * gray])))
             for a, b in ((0.2, 0.4), (0.4, 0.8))]  # fmt: skip
    spread = 0.02 if preset.covariance == "n-1" else 0.01
    found = frechet_distance(*stats, preset.ddof)
    assert found == pytest.approx(0.3**2 + spread, abs=1e-6)  # all of them are whole gray levels
    level = float(look(0.3 * gray))
    cut = preset.clips in ("omnitokenizer", "videogpt")
    exact = 76 / 255 if cut else (77 / 255 if preset.rounded else 0.3)  # 255 * 0.3 = 76.5
    assert level == pytest.approx(exact, abs=1e-6)
    wide = torch.zeros(1, 3, 2, 8, 16)
    wide[..., 4:12] = 1  # the center alone is white
    centered = preset.clips in ("styleganv", "videogpt")
    assert float(look(wide)) == pytest.approx(1.0 if centered else 0.5, abs=1e-6)


def test_clips_are_resized_with_antialias_first():
    fine = (torch.arange(128) % 2).float().expand(1, 3, 2, 128, 128)  # stripes of one pixel
    made = PRESETS["larp_prediction"]
    look = Looking(Brightness("larp"), made, eight_bits=False)
    seen = []
    look.network.look = lambda clips: seen.append(clips) or clips.flatten(1)[:, :1]
    look.network.side = 64
    look(fine)
    assert seen[0].shape[-2:] == (64, 64) and (seen[0][..., 4:-4] - 0.5).abs().max() < 0.13
    assert look.preprocess == "to 64, antialiased; larp"
    assert (
        Looking(Brightness("larp"), PRESETS["own"], False).preprocess == "rounded to 8 bits; larp"
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


@pytest.mark.filterwarnings("ignore:Fréchet")
def test_reports_of_two_runs_keep_their_clips_and_presets_apart(clips, config):
    """Runs of other presets, preprocessing, frames or pixels share no column and no chart."""
    asked = {
        "a": (ClipTokenizer(3, 8, keep=4), []),
        "b": (ClipTokenizer(3, 8, keep=4), ["rfvd.clips=videogpt"]),
        "c": (ClipTokenizer(4, 8, keep=4), []),
        "d": (ClipTokenizer(3, 16, keep=4), []),
    }
    rows = []
    for run, (tokenizer, words) in asked.items():
        found = clips(tokenizer)
        (found.job,) = PROTOCOLS["rfvd"].jobs(None, config(*words))
        with exact():
            row = PROTOCOLS["rfvd"].run(found, found.job.config)[0]
            (frame, *_) = PROTOCOLS["over_time"].run(found, PROTOCOLS["over_time"].Config())
        rows += [one.model_copy(update={"run": run}) for one in (row, frame)]
    results = Results(rows=tuple(rows), runs=tuple({"name": run} for run in asked))
    for metric, count in (("rFVD", 4), (rows[1].metric, 3)):
        columns = [c for c in comparison(results).columns if c.metric == metric]
        assert len(columns) == count, [c.inside for c in columns]
    inside = {c.inside for c in comparison(results).columns if c.metric == "rFVD"}
    assert inside == {"3x8x8", "own, clips=videogpt, 3x8x8", "4x8x8", "3x16x16"}
    assert "setting.preset" in differences(rows[0], rows[2])
    assert {"size", "reference.manifest"} & set(differences(rows[0], rows[4]))


def test_known_frames_are_those_of_the_clips_in_turn(clips):
    context = clips(ClipTokenizer(4, 8), count=3)
    model = SimpleNamespace(reads_text=False, config=SimpleNamespace(
        condition=SimpleNamespace(first_frames=2)))  # fmt: skip
    found = conditioned(context, model, torch.tensor([1, 3]), None)
    real = torch.stack([context.views.dataset[i].pixels for i in (1, 0)]).float() / 255
    real[:, :, 2:] = real[:, :, 1:2]
    assert torch.equal(found.prefix.indices, context.tokenizer.encode(real).indices)
    model.config.condition.first_frames = None
    assert conditioned(context, model, torch.tensor([1, 3]), None).prefix is None


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
    changes = [row for row in rows if row.metric == "flicker-cell"]
    assert [row.point for row in changes] == [{"frame": 1}, {"frame": 2}]
    (whole,) = (row.value for row in rows if row.metric == "flicker")
    assert sum(row.value for row in changes) / 2 == pytest.approx(whole)
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
        config=SimpleNamespace(condition=SimpleNamespace(null_class=False, first_frames=None)),
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

    monkeypatch.setattr("vistok.eval.protocols.generated.pixels_of", made)
    found.run.config = {"data": {"kind": "photos", "size": 8, "frames": 3, "count": 20}}
    found.run.spec, found.run.folder = found.tokenizer.spec(), "tiny"
    system = SimpleNamespace(tokenizer=found.run, generators=[generator])
    asked = config("gfvd.samples=12", "gfid.samples=12", "gfid.train_images=12", "gfid.seeds=1")
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
    sizes = {key: {row.size for row in some} for key, some in rows.items()}
    assert sizes["rfvd", 1] == {(8, 32, 32)}
    assert sizes["rfvd", 2] == sizes["over_time", 2] == {(2, 32, 32)}
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
