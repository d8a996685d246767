"""`vistok check` of videos: key=value, true sizes, rates, lengths and codecs, what is unusable."""

import csv
import json

import pytest
from click.testing import CliRunner

from tests.support.numbered import muxed, packets, plain, written
from vistok.cli import main
from vistok.data.check.run import run_check


def check(*args) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["check", *map(str, args)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture
def films(tmp_path):
    written(tmp_path / "films" / "a" / "one.mp4", range(20), size=(96, 128))
    written(tmp_path / "films" / "b" / "two.avi", range(30), "mpeg4")
    (tmp_path / "films" / "b" / "notes.txt").write_text("no video")
    return tmp_path / "films"


def test_each_file_is_described(films, tmp_path):
    code, text = check(films, "--out", tmp_path / "report.json")
    assert code == 0 and "nothing found" in text and "left out           1 .txt" in text
    assert "  a/one.mp4: 128x96, 25 fps, 20 frames, 0.8 s, h264 in mov/mp4" in text
    assert "  b/two.avi: 64x48, 25 fps, 30 frames, 1.2 s, mpeg4 in avi" in text
    assert "frames             min 20, median 25, max 30" in text
    assert "width              min 64, median 96, max 128" in text
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["clips"][0] == {
        **{"name": "a/one.mp4", "width": 128, "height": 96, "fps": 25.0, "frames": 20},
        **{"seconds": 0.8, "codec": "h264", "container": "mov/mp4"},
    }
    assert report["codecs"] == {"h264 in mov/mp4": 1, "mpeg4 in avi": 1}
    assert report["classes"]["samples"] == {"a": 1, "b": 1}


def test_the_size_of_a_config_is_not_reported_as_that_of_the_files(films, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(f"data: {{kind: video, path: {films}, size: 32, frames: 4}}\n")
    for report in (run_check([str(config)]), run_check([str(films)], ["size=8", "frames=4"])):
        assert report["width"] == {"min": 64.0, "median": 96.0, "max": 128.0}


def test_both_splits_and_each_alone(films, tmp_path):
    config = tmp_path / "c.yaml"
    names = lambda: [clip["name"] for clip in run_check([str(config)])["clips"]]
    config.write_text(f"data: {{kind: video, path: {films}/a, val_path: {films}/b/two.avi}}\n")
    assert names() == ["one.mp4", "val: two.avi"]
    config.write_text(f"data: {{kind: video, val_path: {films}/a}}\n")
    assert names() == ["val: one.mp4"]


def test_key_value_of_clip_folders(films):
    code, text = check(films, "frames=25")
    assert code == 1 and "a/one.mp4: 20 frames at 25 fps found, 25 at stride 1 wanted" in text
    assert check(films, "frames=25", "pad_frames=repeat")[0] == 0
    code, text = check(films, "frmes=25")
    assert code == 2 and "did you mean 'frames'" in text
    code, text = check(films, "kind=folder")
    assert code == 2 and "no image in it" in text


def test_single_videos_and_tables(films):
    code, text = check(films / "a" / "one.mp4", films / "b" / "two.avi", "stride=2", "frames=8")
    assert code == 0 and "samples            2, 2 usable" in text
    (films / "list.csv").write_text("path,label\na/one.mp4,x\nb/two.avi,y\n")
    code, text = check(films / "list.csv", "frames=20")
    assert code == 0 and "classes            2" in text


def test_a_folder_holds_what_most_of_its_files_are(films, make_image):
    make_image().save(films / "a" / "poster.png")
    make_image().save(films / "a" / "moving.gif")
    assert len(run_check([str(films)], ["frames=1"])["clips"]) == 3  # the GIF is a clip, too
    for n in range(3):
        make_image(seed=n).save(films / "a" / f"{n}.png")
    report = run_check([str(films)])
    assert (report["samples"], report["clips"], report["left_out"]) == (5, [], 3)


def test_what_cannot_be_used_is_a_finding(films):
    made, stream = packets(range(40))
    muxed(films / "b" / "late.ts", plain(made[5:]), stream)
    whole = written(films / "a" / "x.ts", range(20)).read_bytes()
    (films / "a" / "x.ts").write_bytes(whole + whole)
    report = run_check([str(films)])
    partial, odd = report["findings"]["partial"], report["notes"]["odd"]
    assert [item["name"] for item in partial] == ["b/late.ts"] and report["exit_code"] == 1
    assert "the first 6 of 35 frames cannot be decoded" in partial[0]["reason"]
    assert [item["name"] for item in odd] == ["a/x.ts"] and "clock restarts" in odd[0]["reason"]
    assert [clip["frames"] for clip in report["clips"]] == [20, 40, 29, 30]


def test_the_same_film_in_two_files(films):
    (films / "b" / "copy.avi").write_bytes((films / "b" / "two.avi").read_bytes())
    written(films / "b" / "other.mkv", range(30), "mpeg4")
    findings = run_check([str(films)])["findings"]
    assert findings["same_bytes"] == [
        {"names": ["b/copy.avi", "b/two.avi"], "labels_differ": False}
    ]
    assert findings["same_pixels"][0]["names"] == ["b/copy.avi", "b/other.mkv", "b/two.avi"]


def test_the_broken_videos(broken, tmp_path):
    entries = json.loads((broken / "manifest.json").read_text())["files"]
    files = {e["file"]: e["expect"] for e in entries if e["kind"] == "video"}
    for name in files:
        (tmp_path / name).symlink_to(broken / name)
    report = run_check([str(tmp_path)], ["frames=1"])
    unreadable = {item["name"]: item["reason"] for item in report["findings"]["unreadable"]}
    assert set(unreadable) == {name for name, expect in files.items() if expect == "error"}
    assert "only audio" in unreadable["no_video_stream.mp4"]
    (partial,) = report["findings"]["partial"]
    assert partial["name"] == "truncated_midstream.mp4" and "the 22 before" in partial["reason"]
    facts = {
        clip["name"]: (clip["width"], clip["height"], clip["frames"]) for clip in report["clips"]
    }
    assert facts["odd_size.mp4"] == (66, 50, 20) and facts["one_frame.mp4"][2] == 1
    report = run_check([str(tmp_path)], ["frames=24"])
    unreadable = {item["name"]: item["reason"] for item in report["findings"]["unreadable"]}
    assert "22 frames at 25 fps found, 24" in unreadable["truncated_midstream.mp4"]


def test_the_facts_of_real_clips_are_those_of_their_table(shared):
    with open(shared / "video_clips" / "metadata.csv", newline="", encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    report = run_check([str(shared / "video_clips" / "animation")])
    assert len(report["clips"]) == 5 and report["exit_code"] == 0
    for clip in report["clips"]:
        row = rows[f"animation/{clip['name']}"]
        for key in ("width", "height", "frames"):
            assert clip[key] == int(row[key])
        assert clip["fps"] == pytest.approx(float(row["fps"]), abs=0.01)
        assert clip["seconds"] == pytest.approx(int(row["frames"]) / float(row["fps"]), rel=1e-3)
        assert clip["codec"] == "h264"


def test_the_reported_videos(shared):
    report = run_check([str(shared / "reported" / "video_kinds")], ["frames=12"])
    assert report["usable"] == report["samples"] == 11
    assert [item["name"] for item in report["findings"]["partial"]] == ["begins_mid_gop.ts"]
    assert report["frames"] == {"min": 12.0, "median": 40.0, "max": 41.0}
