"""Several archives in one tar shard, names as programs write them, labels by name."""

import random

import pytest
import torch

from tests.support.tars import data, png, write_tar
from vistok.data import BadSample, DataError, StreamLoader
from vistok.data.check.run import run_check
from vistok.data.kinds.tar_samples import groups
from vistok.data.kinds.tar_shards import TarShard


def found(path, **options):
    with TarShard(str(path)) as file:
        return [(g.key, g.offset, g.after, g.problem) for g in groups(file, **options)]


@pytest.fixture
def reported(shared):
    place = shared / "reported"
    if not place.is_dir():
        pytest.skip(f"no {place}")
    return place


@pytest.fixture
def joined(tmp_path):
    """joined(*archives of keys, between=b"") -> a file of them, one behind another."""

    def make(*archives, between=b"", behind=b""):
        parts = []
        for keys in archives:
            members = [
                (f"{key}.{end}", end.encode() * 200) for key in keys for end in ("jpg", "cls")
            ]
            parts.append(write_tar(tmp_path / "part.tar", members).read_bytes())
        path = tmp_path / "joined.tar"
        path.write_bytes(between.join(parts) + behind)
        return path

    return make


def test_the_second_archive_is_read(reported):
    path = str(reported / "tar_concatenated" / "ab.tar")
    part = data(train=path, val=path, classes=4)
    dataset, stream = part.open("val"), part.open("train")
    assert len(dataset) == stream.count == 32
    names = [f"ab.tar/{number:06d}" for number in range(32)]
    assert [sample.name for sample in dataset] == names
    entries = list(stream.read(0))
    assert [entry.content[0] for entry in entries] == names
    report = run_check([path])
    assert (report["usable"], report["exit_code"]) == (32, 0)
    for entry in entries[15:18]:  # around the border
        assert [e.offset for e in stream.read(0, entry.offset)] == [
            e.offset for e in entries if e.offset >= entry.offset
        ]


def test_every_sample_of_every_archive_can_be_entered(joined):
    path = joined("abc", "d", "", "ef", between=bytes(512 * 3), behind=bytes(512 * 300))
    whole = found(path)
    assert [(key, problem) for key, _, _, problem in whole] == [(key, None) for key in "abcdef"]
    assert whole == found(path, contents=False) == found(path, repeats=False)
    for number, (_, offset, after, _) in enumerate(whole):
        assert found(path, offset=offset) == whole[number:]
        assert found(path, offset=after) == whole[number + 1 :]


def test_keys_may_be_there_again_in_another_archive_alone(joined):
    path = joined("ab", "ab", "aa")
    whole = found(path)
    assert [key for key, *_ in whole] == list("ababaa")
    assert [bool(problem) for *_, problem in whole] == [False] * 5 + [True]
    for number, (_, offset, _, _) in enumerate(whole):
        assert found(path, offset=offset) == whole[number:]
    path = joined("ab", "bc")  # no sample spans two archives
    assert [(key, problem) for key, _, _, problem in found(path)] == [(key, None) for key in "abbc"]


def test_what_follows_and_is_no_archive_is_named(joined):
    rubbish = random.Random(0).randbytes(2048)
    path = joined("ab", behind=rubbish)
    *good, (key, _, after, problem) = found(path)
    assert [key for key, *_ in good] == ["a", "b"] and (key, after) == ("(end)", None)
    assert "the shard is cut off: a damaged header at byte" in problem
    path = joined("ab", "cd")
    path.write_bytes(path.read_bytes()[:-7000])  # into the end of the second one
    *good, (_, _, _, problem) = found(path)
    assert [key for key, *_ in good][:3] == ["a", "b", "c"] and "the shard is cut off" in problem


def test_a_stream_of_joined_archives_resumes(tmp_path, make_image):
    parts = []
    for archive in range(3):
        members = [(f"{n}.png", png(make_image, 5 * archive + n)) for n in range(5)]
        parts.append(write_tar(tmp_path / "part.tar", members).read_bytes())
    (tmp_path / "abc.tar").write_bytes(b"".join(parts))
    stream = data(train=str(tmp_path / "abc.tar"), shuffle=2).open("train")
    assert stream.count == 15
    loader = StreamLoader(stream, 3, 0, steps=10)
    whole, places = [], []
    for batch in loader:
        whole.append(batch.index)
        places.append(dict(loader.positions))
    assert len(torch.cat(whole[:5]).unique()) == 15  # an epoch
    for start in (1, 2, 3, 4):
        going = {"start_step": start, "positions": places[start - 1]}
        rest = StreamLoader(stream, 3, 0, steps=10, **going)
        assert all(torch.equal(a.index, b) for a, b in zip(rest, whole[start:], strict=True))


@pytest.mark.parametrize("name", ["unicode", "dot_slash_upper", "long_gnu", "long_pax"])
def test_names_as_programs_write_them(reported, name):
    path = str(reported / "tar_names" / f"{name}.tar")
    dataset = data(val=path, classes=4).open("val")
    assert sorted(sample.label for sample in dataset) == sorted([0, 1, 2, 3] * 4)
    report = run_check([path])
    assert (report["usable"], report["exit_code"]) == (16, 0)


def test_dots_in_names_and_endings_of_several_parts(reported, fails):
    path = str(reported / "tar_names" / "dots.tar")  # `img.v1.0000.jpg`: one key for all
    with fails(BadSample, r"dots.tar/img: no image among its members \(v1.0000.jpg, .*, ...\)"):
        data(val=path).open("val")[0]
    path = str(reported / "tar_names" / "input_jpg.tar")
    assert len([sample for sample in data(val=path, image="input.jpg").open("val")]) == 16
    report = run_check([path], ["image=input.jpg"])
    assert (report["usable"], report["exit_code"]) == (16, 0)


def test_labels_that_do_not_lie_beside_their_images(reported, fails):
    path = str(reported / "tar_not_adjacent" / "sorted_by_ending.tar")
    dataset = data(val=path, classes=4).open("val")
    assert len(dataset) == 32
    with fails(BadSample, "sorted_by_ending.tar/000000: has no label: no .cls member"):
        dataset[0]
    report = run_check([path], ["classes=4"])
    assert len(report["findings"]["labels"]) == 16 and report["exit_code"] == 1
    assert "members must lie side by side" in report["findings"]["shards"][0]["reason"]


def test_labels_by_name(tmp_path, make_image, fails):
    image = png(make_image, 0)
    texts = (b"dog\n", b"cat", b"1", b"wolf")
    pairs = [((f"{n}.png", image), (f"{n}.cls", text)) for n, text in enumerate(texts)]
    members = [member for pair in pairs for member in pair]
    path = str(write_tar(tmp_path / "a.tar", members))
    dataset = data(val=path, classes=("cat", "dog")).open("val")
    assert [dataset[n].label for n in range(3)] == [1, 0, 1]
    with fails(BadSample, r"a.tar/3: label 'wolf'; expected 0..1 or a class name \(cat, dog\)"):
        dataset[3]
    with fails(BadSample, "label 'dog'; expected 0..1$"):
        data(val=path, classes=2).open("val")[0]
    assert data(val=path, classes=("1", "cat", "dog", "wolf")).open("val")[2].label == 0
    report = run_check([path], ["classes=[cat, dog]"])
    assert report["classes"]["samples"] == {"cat": 1, "dog": 2}
    assert [item["name"] for item in report["findings"]["labels"]] == ["a.tar/3"]
    write_tar(tmp_path / "b.tar", [m for m in members if m[1] != b"1"])
    assert run_check([str(tmp_path / "b.tar")])["classes"]["samples"] == {
        "cat": 1, "dog": 1, "wolf": 1
    }  # fmt: skip


def test_ids_are_no_class_numbers(tmp_path, make_image, fails):
    members = [("a.png", png(make_image, 0)), ("a.cls", b"9" * 30)]
    path = str(write_tar(tmp_path / "a.tar", members))
    report = run_check([path])
    assert report["usable"] == 1 and report["classes"]["count"] == 0
    assert "expected class numbers below" in report["findings"]["shards"][0]["reason"]
    with fails(DataError, "data.classes: label .*expected class numbers below"):
        data(val=path, classes=10**12).open("val")


def test_raw_gives_the_file_and_the_fault_of_its_label(tmp_path, make_image, fails):
    image = png(make_image, 3)
    members = [
        ("a.png", image),
        ("a.cls", b"1"),
        ("b.png", image),
        ("b.cls", b"7"),
        ("c.cls", b"0"),
    ]
    dataset = data(val=str(write_tar(tmp_path / "a.tar", members)), classes=2).open("val")
    assert (dataset.raw(0).data, dataset.raw(0).label, dataset.raw(0).trouble) == (image, 1, "")
    assert (dataset.raw(1).label, dataset.raw(1).trouble) == (-1, "label 7; expected 0..1")
    with fails(BadSample, "a.tar/c: no image among its members"):
        dataset.raw(2)
