"""`vistok check`: every broken file gets what its manifest says; the table, the JSON, the code."""

import json
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from vistok.cli import main
from vistok.data.check.findings import table
from vistok.data.check.run import run_check, scan_sample

UNREADABLE = {
    "truncated.jpg": "truncated",
    "zero_byte.jpg": "empty",
    "text_named.jpg": "not an image",
    "bomb_header.png": "60000x60000 pixels, over the limit of 100 Mpx",
    "bomb_real.png": "20000x20000 pixels, over the limit",
}
MODES = {"RGB": 5, "P": 2, "CMYK": 1, "L": 1, "I;16": 1, "LA": 1, "RGBA": 1, "1": 1}


def check(*args) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["check", *map(str, args)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def named(items) -> dict[str, str]:
    return {item["name"]: item["reason"] for item in items}


def test_every_broken_image_is_reported_as_its_manifest_asks(broken, tmp_path):
    code, text = check(broken, "--out", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    entries = json.loads((broken / "manifest.json").read_text())["files"]
    images = [e for e in entries if e["kind"] == "image"]
    errors = {e["file"] for e in images if e["expect"] == "error"}
    bad = named(report["findings"]["unreadable"])
    assert set(bad) == errors == set(UNREADABLE)
    assert all(words in bad[name] for name, words in UNREADABLE.items())
    assert (report["samples"], report["usable"]) == (len(images), len(images) - len(bad))
    assert report["modes"] == MODES and report["formats"] == {"PNG": 7, "JPEG": 5, "GIF": 1}
    assert report["orientations"] == {"6": 1}
    assert named(report["notes"]["extreme_shapes"]) == {"strip_10000x20.jpg": "10000x20"}
    assert named(report["notes"]["misnamed"]) == {"png_named.jpg": "holds PNG"}
    assert named(report["findings"]["constant"]) == {"one_by_one.png": "1x1"}
    assert report["left_out"] == len(list(broken.iterdir())) - len(images)
    assert code == report["exit_code"] == 1 and "unreadable: 5" in text
    assert "Traceback" not in text


def test_each_broken_image_alone(broken):
    entries = json.loads((broken / "manifest.json").read_text())["files"]
    for entry in entries:
        if entry["kind"] == "image":
            report = run_check([str(broken / entry["file"])])
            bad = entry["expect"] == "error"
            assert (report["samples"], report["usable"]) == (1, int(not bad)), entry["file"]
            constant = entry["file"] == "one_by_one.png"
            assert report["exit_code"] == (2 if bad else int(constant)), entry["file"]


def test_broken_parquet(broken):
    report = run_check([str(broken / "ok_24.parquet")])
    assert report["usable"] == 24 and report["exit_code"] == 0
    report = run_check([str(broken / "bad_rows.parquet")])
    bad = named(report["findings"]["unreadable"])
    assert set(bad) == {f"bad_rows.parquet[{row}]" for row in (3, 7, 11)}
    assert "null" in bad["bad_rows.parquet[7]"]
    labels = named(report["findings"]["labels"])
    assert set(labels) == {"bad_rows.parquet[15]"} and report["usable"] - len(labels) == 20
    shards = ("ok_24", "truncated", "bad_footer_length")
    report = run_check([str(broken / f"{name}.parquet") for name in shards])
    damaged = named(report["findings"]["shards"])
    assert set(damaged) == {str(broken / f"{name}.parquet") for name in shards[1:]}
    assert all("cut off or damaged" in reason for reason in damaged.values())
    assert report["usable"] == 24 and report["exit_code"] == 1
    assert run_check([str(broken / "truncated.parquet")])["exit_code"] == 2


def test_broken_tars(broken, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an extracted member would land here, or above
    before = sorted(p.name for p in tmp_path.parents[1].iterdir())
    report = run_check([str(broken / "ok_16.tar")])
    assert report["usable"] == 16 and report["exit_code"] == 0
    report = run_check([str(broken / "bad_members.tar")])
    labels, stray = named(report["findings"]["labels"]), named(report["findings"]["shards"])
    assert {key[-6:] for key in labels} == {"000002", "000005"}
    assert report["usable"] - len(labels) == 14
    place = "bad_members.tar/"
    assert set(stray) == {place + "../../escape.jpg", place + "README", place + "000000"}
    assert "twice" in stray[place + "000000"] and "leads out" in stray[place + "../../escape.jpg"]
    report = run_check([str(broken / "truncated.tar")])
    assert report["usable"] == 8 and report["exit_code"] == 1
    (cut,) = report["findings"]["shards"]
    assert cut["name"].endswith("000008.jpg") and "cut off" in cut["reason"]
    report = run_check([str(broken / "empty.tar")])
    assert report["exit_code"] == 2 and "no samples" in table(report)
    assert not list(tmp_path.iterdir())
    assert sorted(p.name for p in tmp_path.parents[1].iterdir()) == before
    assert check(broken / "ok.pt", "x=1")[0] == 2


@pytest.fixture
def images(tmp_path, make_image):
    """Two classes; a copy under another label, the same pixels in another file, a flat one."""
    folder = tmp_path / "images"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for i in range(3):
        make_image(40, 30, i).save(folder / "a" / f"{i}.png")
    shutil.copy(folder / "a" / "0.png", folder / "b" / "copy.png")
    make_image(40, 30, 1).save(folder / "b" / "same.bmp")
    Image.new("L", (20, 70), 9).save(folder / "b" / "flat\x1b[2J.png")
    return folder


def test_duplicates_and_constant_images(images, tmp_path):
    report = run_check([str(images)])
    assert report["findings"]["same_bytes"] == [
        {"names": ["a/0.png", "b/copy.png"], "labels_differ": True}
    ]
    assert report["findings"]["same_pixels"] == [
        {"names": ["a/1.png", "b/same.bmp"], "labels_differ": True}
    ]
    assert [item["reason"] for item in report["findings"]["constant"]] == ["20x70"]
    assert [item["reason"] for item in report["notes"]["extreme_shapes"]] == ["20x70"]
    assert report["classes"] == {"count": 2, "samples": {"a": 3, "b": 3}}
    assert report["width"] == {"min": 20.0, "median": 40.0, "max": 40.0}
    assert report["aspect"]["min"] == pytest.approx(20 / 70)
    text = table(report)
    assert "a/0.png, b/copy.png (labels differ)" in text and "\x1b" not in text
    shutil.rmtree(images / "b")
    assert check(images)[0] == 0 and "nothing found" in check(images)[1]
    (images / "top.png").write_bytes((images / "a" / "1.png").read_bytes())
    labels = named(run_check([str(images)])["findings"]["labels"])
    assert labels == {"top.png": "has no label, others have one"}


def test_workers_and_limit(images):
    whole = run_check([str(images)])
    assert run_check([str(images)], workers=2) == whole
    few = run_check([str(images)], limit=2)
    assert few["samples"] == 2 and few["exit_code"] == 0


def test_configs_overrides_and_both_splits(images, tmp_path):
    config = tmp_path / "config.yaml"
    data = f"{{kind: folder, path: {images}/a, val_path: {images}/b}}"
    config.write_text(f"data: {data}\nsteps: 3\n")
    report = run_check([str(config)])
    assert report["findings"]["same_bytes"][0]["names"] == ["0.png", "val: copy.png"]
    report = run_check([str(config)], ["val_path=null"])
    assert report["samples"] == 3 and report["exit_code"] == 0
    row = {"photo": (images / "a" / "0.png").read_bytes(), "number": 3}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    code, text = check(tmp_path / "x.parquet")
    assert code == 2 and "no column 'image'" in text
    code, text = check(tmp_path / "x.parquet", "image_column=photo", "label_column=null")
    assert code == 0 and "samples            1, 1 usable" in text


def test_sets_without_files_are_scanned_as_samples(numbers, tmp_path):
    seen = scan_sample(numbers(3), 2)
    assert seen.size == (2, 2) and seen.label == 0 and not seen.bytes and not seen.stored
    assert scan_sample(numbers(3, broken=(1,)), 1).problem == "made broken"
    config = tmp_path / "config.yaml"
    config.write_text("data: {kind: photos, size: 8, count: 12, val_count: 4}")
    report = run_check([str(config)])
    assert report["samples"] == 16 and report["exit_code"] == 0


def test_mistakes_are_one_line_and_code_2(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "c.yaml").write_text("steps: 3")
    for args, words in (
        ([tmp_path / "nowhere"], "no such file or folder"),
        ([tmp_path / "empty"], "no image in it"),
        ([tmp_path / "*.parquet"], "no such file"),
        ([tmp_path / "c.yaml"], "data: missing"),
        ([tmp_path / "empty", "labels=3"], "unknown key"),
    ):
        code, text = check(*args)
        assert code == 2 and words in text and "Traceback" not in text
        assert len([line for line in text.splitlines() if line.startswith("error: ")]) == 1


def test_streams_are_scanned_by_index(images, tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for path in sorted((images / "a").iterdir()):
            tar.add(path, path.name)
    config = tmp_path / "stream.yaml"
    config.write_text(f"data: {{kind: webdataset, streaming: true, train: {tmp_path}/x.tar}}\n")
    report = run_check([str(config)])
    assert report["samples"] == report["usable"] == len(list((images / "a").iterdir()))
