import pickle

import pytest

from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.data import BadSample, DataError, FolderConfig


def open_folder(split="train", **values):
    return build(FolderConfig(size=16, **values)).open(split)


def test_sorted_bytewise_class_is_the_first_folder(tree):
    data = open_folder(path=str(tree))
    names = ["a/10.png", "a/9.JPEG", "a/Z.webp", "a/y.png", "b/2.png", "b/deep/er/1.jpg", "b/x.bmp"]
    assert [sample.name for sample in data] == names
    assert [sample.label for sample in data] == [0, 0, 0, 0, 1, 1, 1]
    assert data.classes == ("a", "b") and data.size == (16, 16) and data.flip
    assert data.record()["ignored"] == 2  # notes.txt and the hidden file
    with pytest.raises(IndexError):
        data[7]
    again = pickle.loads(pickle.dumps(data))
    assert (again[5].pixels == data[5].pixels).all()


def test_manifest_sees_names_and_sizes(tree, make_image):
    before = open_folder(path=str(tree)).record()["manifest"]
    assert before == open_folder(path=str(tree)).record()["manifest"]
    make_image(50, 50).save(tree / "b" / "2.png")
    changed = open_folder(path=str(tree)).record()["manifest"]
    (tree / "b" / "2.png").rename(tree / "b" / "3.png")
    renamed = open_folder(path=str(tree)).record()["manifest"]
    assert len({before, changed, renamed}) == 3


def test_flat_folder_is_unlabeled(tmp_path, make_image):
    make_image().save(tmp_path / "x.png")
    data = open_folder(path=str(tmp_path))
    assert data.classes == () and data[0].label == -1


def test_held_out_share_is_stable_and_disjoint(tmp_path, make_image):
    for number in range(200):
        (tmp_path / f"{number:03}.png").write_bytes(b"unread")
    names = lambda split: set(open_folder(split, path=str(tmp_path), val_share=0.25).names)
    train, val = names("train"), names("val")
    assert not train & val and len(train | val) == 200 and 30 < len(val) < 70
    (tmp_path / "new.png").write_bytes(b"unread")  # a new file moves no old one
    assert names("val") - {"new.png"} == val


def test_validation_folder_uses_the_training_classes(tree, tmp_path, make_image):
    val = tmp_path / "val" / "b"
    val.mkdir(parents=True)
    make_image().save(val / "1.png")
    data = open_folder("val", path=str(tree), val_path=str(tmp_path / "val"))
    assert data[0].label == 1 and not data.flip
    (tmp_path / "val" / "c").mkdir()
    make_image().save(tmp_path / "val" / "c" / "1.png")
    with pytest.raises(DataError, match="class 'c' is not one of the 2 classes"):
        open_folder("val", path=str(tree), val_path=str(tmp_path / "val"))


def test_broken_images_are_named(tree):
    (tree / "a" / "0.jpg").write_bytes(b"<html>404</html>")
    with pytest.raises(BadSample, match=r"a/0\.jpg: not an image"):
        open_folder(path=str(tree))[0]


def test_links_in_a_circle_end(tree):
    (tree / "a" / "up").symlink_to(tree)
    assert len(open_folder(path=str(tree))) == 7


def test_errors_are_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    cases = [
        ({"path": str(tmp_path / "gone")}, "train", "no such folder"),
        ({"path": str(tmp_path / "empty")}, "train", "no image in it"),
        ({"path": str(tmp_path / "empty")}, "val", "give val_path or val_share"),
        ({"val_path": str(tmp_path / "empty")}, "train", "no training split"),
    ]
    for values, split, words in cases:
        with pytest.raises(DataError, match=words) as caught:
            open_folder(split, **values)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="neither path nor val_path"):
        validate(FolderConfig, {})
    with pytest.raises(ConfigError, match="one of val_share, val_path"):
        validate(FolderConfig, {"path": "a", "val_path": "b", "val_share": 0.1})
