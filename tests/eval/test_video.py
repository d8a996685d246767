"""A tokenizer of clips through the same command: rFID per frame, rFVD, grids of frames; what takes
images only says so in one line."""

from types import SimpleNamespace

import pytest
import torch
import yaml
from click.testing import CliRunner

from tests.support.eval_tokenizers import ClipTokenizer
from vistok.config import read_yaml, validate
from vistok.data import Photos, PhotosConfig
from vistok.eval.__main__ import evaluate
from vistok.eval.config import EvalConfig
from vistok.eval.context import Context
from vistok.eval.images import Views, exact, frame_numbers
from vistok.eval.measure import evaluate as evaluate_runs
from vistok.eval.protocols import image_grids
from vistok.eval.protocols.base import PROTOCOLS, setting_of
from vistok.eval.result_cache import facts_of
from vistok.eval.results.rows import Results
from vistok.eval.resumable import digest
from vistok.eval.systems.runs import RunError, open_data, resolve
from vistok.layers.frames import frames
from vistok.metrics.video import FrameFeatures
from vistok.tokenizer import Tokenizer
from vistok.train.config import TrainConfig


@pytest.fixture
def clips(features, perceptual, context):
    """clips(tokenizer, count, batch) -> a context of clips of photos."""

    def make(tokenizer, count=6, batch=4):
        found = context(tokenizer)
        frames, size = tokenizer.shape.sides[:2]
        data = Photos(PhotosConfig(size=size, frames=frames, val_count=count)).open("val")
        return Context(found.run, Views(data, batch), features, perceptual)

    return make


@pytest.fixture
def video_run(tmp_path, tree):
    """The folder of a run of the tiny tokenizer of clips, untrained."""
    config = validate(TrainConfig, read_yaml("configs/tiny/video_vit.yaml"))
    torch.manual_seed(0)
    Tokenizer(config.task.tokenizer).save_pretrained(tmp_path / "clip" / "model")
    data = {"kind": "photos", "size": 32, "frames": 4, "val_count": 8}
    (tmp_path / "clip" / "config.yaml").write_text(yaml.safe_dump({"name": "clip", "data": data}))
    return tmp_path / "clip"


def test_frames_are_numbered_within_their_clips():
    pixels = torch.arange(2 * 3).view(2, 1, 3, 1, 1).expand(2, 3, 3, 2, 2)
    assert frames(pixels)[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert frame_numbers(torch.tensor([4, 7]), pixels).tolist() == [12, 13, 14, 21, 22, 23]
    images = torch.zeros(2, 3, 4, 4)
    assert frames(images) is images and frame_numbers(torch.tensor([4, 7]), images).tolist() == [
        4,
        7,
    ]


@pytest.mark.filterwarnings("ignore:Fréchet")
def test_identity_has_no_distance(clips, measure):
    found = clips(ClipTokenizer(3, 8))
    assert found.views.chosen([2, 0]).fps.tolist() == [8, 8]
    rows = {row.metric: row for row in measure(found, "rfid", metrics=("fid", "kid"))}
    assert "rFID" not in rows and rows["rFID-frame"].value < 1e-3
    assert rows["rFID-frame"].count == 18 and rows["rFID-frame"].size == (3, 8, 8)
    assert rows["SSIM"].value == pytest.approx(1) and rows["KID"].count == 18
    assert rows["bits/pixel"].value == 24 and rows["bits/clip"].value == 3 * 64 * 24
    (row,) = measure(found, "rfvd")
    assert row.value < 1e-3 and row.count == 6 and row.display == "rFVD[vistok-cnn frames, photos]"
    assert "neighboring frames" in row.features.preprocess


@pytest.mark.filterwarnings("ignore:Fréchet")
def test_batches_change_nothing(clips, measure):
    tokenizer = ClipTokenizer(3, 8, keep=4)
    for name in ("rfid", "rfvd", "robust"):
        one, two = (measure(clips(tokenizer, batch=size), name) for size in (6, 1))
        for a, b in zip(one, two, strict=True):
            assert a.metric == b.metric and a.point == b.point
            assert a.value == pytest.approx(b.value, rel=1e-5), (name, a.metric)


def test_frames_in_another_order_are_another_clip(features):
    clip = torch.zeros(1, 3, 4, 8, 8, dtype=torch.uint8)
    clip[:, :, 2:] = 200  # dark, dark, bright, bright
    looked = FrameFeatures(features)
    with exact():
        plain, shuffled = looked(clip), looked(clip[:, :, [0, 2, 1, 3]])
        still = looked(clip[:, :, :1].expand(-1, -1, 4, -1, -1))
    half = looked.dim // 2
    assert torch.allclose(plain[:, :half], shuffled[:, :half], atol=1e-6)
    assert (shuffled[:, half:] >= plain[:, half:] - 1e-6).all()
    assert shuffled[:, half:].sum() > 2 * plain[:, half:].sum()
    assert still[:, half:].abs().max() < 1e-6 and looked(clip[:, :, :1])[:, half:].eq(0).all()


def test_the_command_measures_clips(video_run, tmp_path):
    arguments = [str(video_run), f"report={tmp_path / 'out' / 'report.html'}", "batch=4"]
    arguments += ["protocols=[rfid,rfvd,over_time,pfid,image_grids,order]", "pfid.mode=quick"]
    done = CliRunner().invoke(evaluate, arguments)
    assert done.exit_code == 0, done.output
    results = Results.load(tmp_path / "out" / "results.json")
    for metric in ("rFID-frame", "rFVD", "PSNR", "SSIM", "perceptual", "pFID-v1-quick-frame"):
        assert [row.length for row in results.find(metric)] == [1, 2, 4, 8, 16, 32], metric
    assert not results.find("rFID") and results.rows[0].size == (4, 32, 32)
    grid = results.facts["image_grids"][0]  # another one shows training images
    assert grid["kind"] == "reconstructions" and grid["cells"] == 4  # clips, which play
    assert (grid["frames"], grid["fps"]) == (4, 8.0)
    said = [one["reason"] for one in results.facts["skipped"] if one["protocol"] == "order"]
    assert said == ["it takes images only; the samples of this tokenizer are 4x32x32"]
    assert "rFVD[vistok-cnn frames, photos]" in done.output
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data-moving>") == 14 and page.count("data:image/webp") == 14
    assert "at each frame" in page and "stop the clips" in page
    assert "8 clips of 4 frames of 32x32 pixels (photos, val split)" in page
    assert "8 clips, fewer than 50" in page and "32 frames, fewer than 50" in page
    assert "32 frames for 320 features" in page and "bytes/clip" in page
    assert "images, fewer" not in page and "bytes/image" not in page and "images for" not in page


def test_images_say_nothing_of_clips_unless_asked(runs):
    plain = CliRunner().invoke(evaluate, [str(runs[0]), "limit=4", "pfid.mode=none"])
    assert plain.exit_code == 0 and "rfvd" not in plain.output
    asked = CliRunner().invoke(evaluate, [str(runs[0]), "limit=4", "protocols=[rfvd]"])
    assert "not measured: rfvd of tok: it takes clips only" in asked.output


def test_data_that_do_not_fit(video_run, fails):
    run = resolve([video_run])[0].tokenizer
    assert len(open_data(run)) == 8
    with fails(RunError, "clips of 3 frames", "4 frames: use data.frames=4"):
        open_data(run, {"frames": 3})
    with fails(RunError, "16x16 pixels", "32x32: use data.size=32"):
        open_data(run, {"size": 16})


def test_samples_of_clips_play(clips, monkeypatch):
    found = clips(ClipTokenizer(6, 8))
    generator = SimpleNamespace(
        name="gen", generator=SimpleNamespace(classes=("a", "b"), num_classes=2)
    )
    made = lambda context, model, shown, each, guidance: torch.zeros(
        len(shown), each, 3, 6, 8, 8, dtype=torch.uint8
    )
    monkeypatch.setattr("vistok.eval.protocols.generated.samples_of", made)
    grid = image_grids.generated_grid(found, generator, 1.0)
    assert (grid["size"], grid["cells"], grid["frames"]) == ([8, 8], 4, 6)
    assert [row["label"] for row in grid["rows"]] == ["a", "b"]


def test_a_video_network_is_known_by_its_weights_not_by_their_place(clips, monkeypatch):
    found, made = clips(ClipTokenizer(3, 8)), []

    def network(name, weights, preset):
        made.append((name, weights, preset))
        return SimpleNamespace(name="i3d", sha256=weights[-1] * 64, preprocess=preset)

    monkeypatch.setattr("vistok.eval.protocols.rfvd.video_network", network)
    found.run.described = {}

    def facts(weights):
        asked = EvalConfig(rfvd={"features": "i3d", "weights": weights})
        (job,) = PROTOCOLS["rfvd"].jobs(None, asked)
        assert "weights" not in setting_of(job.config)
        return digest(facts_of(job, found))

    assert facts("here/a") == facts("there/a") != facts("here/b")
    assert made[0] == ("i3d", "here/a", "larp")
    plain = digest(facts_of(PROTOCOLS["rfvd"].jobs(None, EvalConfig())[0], found))
    assert plain not in (facts("here/a"), facts("here/b"))


def test_a_probe_is_trained_only_where_gfid_is_measured(video_run, runs, config, monkeypatch):
    asked = []
    probed = lambda system, config: (asked.append(system.tokenizer.name), system)[1]
    monkeypatch.setattr("vistok.eval.measure.with_probe", probed)
    common = ("gfid.probe=tiny", "gfid.seeds=1", "limit=2", "perceptual=none")
    results = evaluate_runs([video_run], config(*common, "protocols=[gfid]"))
    assert asked == ["clip"] and results.facts["skipped"][0]["protocol"] == "gFID"
    asked.clear()
    evaluate_runs(runs[:1], config(*common, "protocols=[image_grids]"))
    assert asked == []
    evaluate_runs(runs[:1], config(*common, "protocols=[gfid]"))
    assert asked == ["tok"]
