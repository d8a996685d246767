"""Folders as people keep them: linked classes, images of other kinds, loose images, odd names."""

import logging
import shutil

import pytest

from vistok.config.registry import build
from vistok.data import DataError, EvalLoader, FolderConfig
from vistok.data.check.run import run_check
from vistok.data.kinds.walk import ending_of, endings_text, walk


def opened(path, split="train", **values):
    return build(FolderConfig(path=str(path), size=8, **values)).open(split)


@pytest.fixture
def folders(shared):
    place = shared / "reported" / "folders"
    if not place.is_dir():
        pytest.skip(f"no {place}")
    return place


def test_classes_that_link_to_one_folder(folders, tmp_path):
    """A copy of the shared folder, whose links may have become plain files on the way."""
    for number in range(3):
        source = folders / "linked_classes" / "dog" / f"{number}.png"
        for place in ("dog", "elsewhere"):
            (tmp_path / "set" / place).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, tmp_path / "set" / place / source.name)
    (tmp_path / "set" / "elsewhere").rename(tmp_path / "elsewhere")
    for name in ("cat", "tabby"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "elsewhere")
    data = opened(tmp_path / "set")
    assert data.classes == ("cat", "dog", "tabby")
    assert [sample.label for sample in data] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    report = run_check([str(tmp_path / "set")])
    assert report["classes"]["samples"] == {"cat": 3, "dog": 3, "tabby": 3}
    assert all(group["labels_differ"] for group in report["findings"]["same_bytes"])


def test_links_are_followed_but_not_in_circles(tmp_path, fails):
    for name in ("a/x", "b/y"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "1.png").touch()
    (tmp_path / "set" / "a" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "a" / "other").symlink_to(tmp_path / "set" / "b")
    (tmp_path / "set" / "b" / "other").symlink_to(tmp_path / "set" / "a")
    (tmp_path / "set" / "b" / ".hidden").symlink_to(tmp_path / "set" / "a")
    assert sorted(walk(str(tmp_path / "set"))) == [
        "a/other/y/1.png", "a/x/1.png", "b/other/x/1.png", "b/y/1.png"
    ]  # fmt: skip
    for level in range(12):  # each folder holds the next one twice: 4096 ways to the last
        (tmp_path / f"d{level}").mkdir()
        for name in ("one", "two"):
            (tmp_path / f"d{level}" / name).symlink_to(tmp_path / f"d{level + 1}")
    (tmp_path / "d12").mkdir()
    with fails(DataError, "d0: links lead to '.*' in more than 100 ways; remove links"):
        list(walk(str(tmp_path / "d0")))


def test_images_of_other_kinds_are_said(folders, caplog):
    data = opened(folders / "mostly_tiff")
    assert len(data) == 6 and data.record()["ignored"] == 30
    (line,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "mostly_tiff: 30 .tif left out: not among the kinds that are read" in line.getMessage()
    caplog.clear()
    for split in ("train", "val"):  # a share of one folder: said once
        opened(folders / "mostly_tiff", split, val_share=0.5)
    assert len(caplog.records) == 1
    report = run_check([str(folders / "mostly_tiff")])
    assert report["findings"]["unread"] == [{"name": ".tif", "reason": "30 files"}]
    assert (report["usable"], report["left_out"], report["exit_code"]) == (6, 30, 1)


def test_a_folder_of_nothing_else_names_the_endings(tmp_path, fails):
    for name in ("a.tif", "b.TIF", "c", ".d.png"):
        (tmp_path / name).touch()
    with fails(DataError, r"no image in it \(4 other files: 2 .tif, 1 hidden, 1 without ending\)"):
        opened(tmp_path)
    assert endings_text({}) == "" and ending_of("x.tar/y.JPG") == ".jpg"


def test_notes_beside_images_are_not_worth_a_word(folders, caplog):
    data = opened(folders / "names")
    assert len(data) == 41 and len(data.classes) == 2 and data.record()["ignored"] == 4
    assert not caplog.records
    assert all(sample.pixels.shape == (3, 8, 8) for sample in data)
    assert run_check([str(folders / "names")])["exit_code"] == 0


def test_loose_images_are_unlabeled_among_labeled_ones(folders):
    data = opened(folders / "mixed")
    labels = [label for batch in EvalLoader(data, 16) for label in batch.label.tolist()]
    assert [labels.count(label) for label in (0, 1, -1)] == [30, 30, 10]
    report = run_check([str(folders / "mixed")])
    assert report["unlabeled"] == 10 and len(report["findings"]["labels"]) == 10


def test_validation_that_lacks_a_class_keeps_the_numbers(folders):
    place = folders / "lacks"
    for name in ("val", "val_empty_class"):
        data = opened(place / "train", "val", val_path=str(place / name))
        assert data.classes == ("a", "b", "c")
        labels = {name.partition("/")[0]: data[i].label for i, name in enumerate(data.names)}
        assert labels == {k: "abc".index(k) for k in labels} and "b" in labels
