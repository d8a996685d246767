"""The loader's rate and the cost of a start, measured; no figure is judged here."""

import pytest
from click.testing import CliRunner

from tests.support.films import film
from vistok.config.registry import build
from vistok.data import PhotosConfig
from vistok.eval.__main__ import speed
from vistok.eval.results.rows import Results
from vistok.eval.speed import clip_loading, loading
from vistok.eval.speed.loading import measure_loading, measure_start


@pytest.fixture
def images(tmp_path):
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(6):
        Image.new("RGB", (20 + i, 20), (i, 9, 9)).save(folder / f"{i}.jpg")
    return folder


def test_rates_of_both_and_their_ratio(images):
    facts = measure_loading(images, size=8, workers=1, batch=4, images=10, repeats=1)
    assert facts["images"] == 12 and facts["workers"] == 1
    assert facts["raw"] > 0 and facts["ratio"] == facts["loader"] / facts["raw"]


def test_a_start_far_in_is_timed():
    seconds = measure_start(build(PhotosConfig(size=8, count=50)).open("train"), batch=4)
    assert set(seconds) == {"start", "far", "first"} and min(seconds.values()) > 0


@pytest.mark.parametrize("parquet", [False, True])
def test_the_command_prints_and_saves_both_sizes_and_the_start(
    tmp_path, images, monkeypatch, parquet
):
    monkeypatch.setattr(loading, "SIZES", (8, 16))
    monkeypatch.setattr(loading, "IMAGES", 8)
    monkeypatch.setattr("vistok.train.memory.keep_freed_memory", lambda: True)
    if parquet:
        import pyarrow as pa
        import pyarrow.parquet as pq

        files = sorted(images.iterdir())
        rows = {"image": [{"bytes": f.read_bytes(), "path": f.name} for f in files]}
        pq.write_table(pa.table(rows | {"label": [0] * len(files)}), images / "a.parquet")
    target = tmp_path / "speed.json"
    arguments = [f"loading={images}", "repeats=1", f"report={target}"]
    result = CliRunner().invoke(speed, arguments)
    assert result.exit_code == 0, result.output
    rows = {(row.metric, row.run): row for row in Results.load(target).rows}
    for size in (8, 16):
        raw, ours, ratio = (
            rows[name, f"images {size}"].value
            for name in ("decode-images/s", "loader-images/s", "loader-ratio")
        )
        assert raw > 0 and ratio == pytest.approx(ours / raw)
        assert rows["loader-ratio", f"images {size}"].size == (size, size)
    start, far = (rows[f"{name}-seconds", "images 16"].value for name in ("start", "start-far"))
    assert rows["start-ratio", "images 16"].value == pytest.approx(far / start)
    assert "loader-ratio" in result.output and "start-far-seconds" in result.output


def test_the_command_measures_videos_too(tmp_path, monkeypatch):
    for number in range(4):
        film(tmp_path / f"films/{number}.mp4", 20)
    monkeypatch.setattr(loading, "SIZES", (16,))
    monkeypatch.setattr(clip_loading, "CLIPS", 8)
    monkeypatch.setattr("vistok.train.memory.keep_freed_memory", lambda: True)
    monkeypatch.setattr(clip_loading.os, "sched_getaffinity", lambda _: {0})
    target = tmp_path / "speed.json"
    arguments = [f"loading={tmp_path}/films", "repeats=1", f"report={target}"]
    result = CliRunner().invoke(speed, arguments)
    assert result.exit_code == 0, result.output
    rows = {row.metric: row for row in Results.load(target).rows}
    ratio = rows["loader-frames/s"].value / rows["decode-frames/s"].value
    assert rows["loader-ratio"].value == pytest.approx(ratio)
    assert rows["loader-ratio"].size == (16, 16, 16) and rows["loader-first-ratio"].value > 0


def test_a_folder_without_images_is_one_line(tmp_path):
    result = CliRunner().invoke(speed, [f"loading={tmp_path}"])
    assert result.exit_code == 1 and "no image in it" in result.output
    assert "Traceback" not in result.output
