"""Tar shards: names, places, damage, and every broken tar of the shared data."""

import json
import tarfile
import time

import numpy as np
import pytest
import torch

from tests.support.tars import data, write_tar
from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.data import BadSample, DataError, EvalLoader, StreamLoader, WebDatasetConfig
from vistok.data.kinds import tar_shards as places
from vistok.data.kinds.tar_samples import groups
from vistok.data.kinds.tar_shards import TarShard, braces, find


def found(path, **options):
    with TarShard(str(path)) as file:
        return [(g.key, g.offset, g.after, g.problem) for g in groups(file, **options)]


# -- what a broken tar must do: shared/data/broken/manifest.json ----------------------------------

TARS = {
    # name: (good samples in an epoch, words of what is reported)
    "ok_16.tar": (16, []),
    "truncated.tar": (8, ["truncated.tar/000008: the shard is cut off: it ends inside"]),
    "bad_members.tar": (
        14,
        [
            "000002: has no label: no .cls member",
            "000005: label '{bad json'; expected 0..999",
            "escape: the name '../../escape.jpg' leads out of the archive",
            "README: no image among its members",
            "000000: repeats a key of the same shard",
        ],
    ),
    "empty.tar": (0, []),
}


def test_every_tar_of_the_manifest_is_tested(broken):
    files = json.loads((broken / "manifest.json").read_text())["files"]
    assert {f["file"] for f in files if f["kind"] == "tar"} == set(TARS)


@pytest.mark.parametrize("name", sorted(set(TARS) - {"empty.tar"}))
def test_broken_tars_in_training(broken, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    good, words = TARS[name]
    stream = data(train=str(broken / name), classes=1000, shuffle=3).open("train")
    loader = StreamLoader(stream, good, 0, steps=2, folder=tmp_path / "q", max_bad_share=1.0)
    first, second = [sorted(batch.index.tolist()) for batch in loader]
    assert first == second and len(set(first)) == good  # an epoch each
    noted = tmp_path / "q/quarantine.jsonl"
    lines = [json.loads(line) for line in noted.read_text().splitlines()] if words else []
    told = [f"{line['name']}: {line['reason']}" for line in lines]
    assert len(told) == len(words) and all(any(w in t for t in told) for w in words)
    assert not list(tmp_path.parent.rglob("escape.jpg")) and not (tmp_path / "README.txt").exists()


@pytest.mark.parametrize("name", sorted(set(TARS) - {"empty.tar"}))
def test_broken_tars_in_evaluation(broken, name):
    good, words = TARS[name]
    dataset = data(val=str(broken / name), classes=1000).open("val")
    assert len(dataset) == good + len(words)
    told = []
    for index in range(len(dataset)):
        try:
            assert dataset[index].index == index
        except BadSample as bad:
            told.append(str(bad))
    assert len(told) == len(words) and all(any(w in t for t in told) for w in words)
    if words:  # a number over fewer images than it claims would be worthless
        with pytest.raises(BadSample):
            list(EvalLoader(dataset, 4))


def test_an_empty_tar_warns_and_never_spins(broken, caplog, fails):
    empty, good = str(broken / "empty.tar"), str(broken / "ok_16.tar")
    with fails(DataError, "empty.tar: no sample in 1 shards"):
        data(train=empty).open("train")
    with fails(DataError, "empty.tar: no sample in 1 shards"):
        data(val=empty).open("val")
    stream = data(train=empty, count=16).open("train")
    with fails(DataError, "no sample in any of the 1 shards"):
        next(iter(StreamLoader(stream, 4, 0, steps=1)))
    caplog.clear()
    stream = data(train=(empty, good)).open("train")
    assert len(list(StreamLoader(stream, 8, 0, steps=6))) == 6
    assert caplog.messages == ["shard empty.tar has no samples"]
    caplog.clear()
    assert len(data(val=(good, empty)).open("val")) == 16
    assert caplog.messages == ["shard empty.tar has no samples"]


# -- shards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_shard_can_be_entered_at_every_sample(tmp_path, format):
    deep = "folder/" * 20 + "x" * 90 if format != tarfile.USTAR_FORMAT else "folder/sub"
    names = [f"{deep}/{n:03d}{ending}" for n in range(9) for ending in (".jpg", ".x.cls")]
    path = write_tar(tmp_path / "a.tar", [(n, n.encode() * 40) for n in names], format)
    whole = found(path)
    assert [key for key, *_ in whole] == [f"{deep}/{n:03d}" for n in range(9)]
    assert whole == found(path, contents=False) and all(p is None for *_, p in whole)
    for number, (_, offset, after, _) in enumerate(whole):
        assert found(path, offset=offset) == whole[number:]
        assert found(path, offset=after) == whole[number + 1 :]


def test_what_is_not_a_sample(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in [
            ("folder", tarfile.DIRTYPE),
            ("folder/._a.jpg", tarfile.REGTYPE),
            ("folder/a.jpg", tarfile.REGTYPE),
            ("b.jpg", tarfile.SYMTYPE),
            ("/etc/passwd.jpg", tarfile.REGTYPE),
            ("c.jpg", tarfile.CHRTYPE),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    problems = {key: problem for key, _, _, problem in found(tmp_path / "a.tar")}
    assert problems["folder/a"] is None and "is a link" in problems["b"]
    assert "leads out" in problems["/etc/passwd"] and "a device" in problems["c"]
    assert len(problems) == 4


def test_repeats_are_found_wherever_a_shard_is_entered(tmp_path):
    keys = ["a", "b", "a", "c", "b"]
    path = write_tar(tmp_path / "a.tar", [(f"{key}.jpg", b"x") for key in keys])
    whole = found(path)
    assert [bool(problem) for *_, problem in whole] == [False, False, True, False, True]
    for number, (_, offset, _, _) in enumerate(whole):
        assert found(path, offset=offset) == whole[number:]


@pytest.mark.parametrize("where", ["header", "data", "padding", "mark", "garbage"])
def test_every_cut_is_seen(tmp_path, where):
    members = [(f"{n}.{e}", bytes([n]) * 700) for n in range(4) for e in ("jpg", "cls")]
    path = write_tar(tmp_path / "a.tar", members)
    start = found(path)[3][1]  # 0..2 are whole; the last sample begins here
    raw = bytearray(path.read_bytes())
    cut = {"header": 100, "data": 900, "padding": 512 + 700, "mark": 2 * 1536}
    if where == "garbage":
        raw[start : start + 512] = bytes(range(256)) * 2
    else:
        raw = raw[: start + cut[where]]
    path.write_bytes(raw)
    for contents in (True, False):
        got = found(path, contents=contents)
        whole = [key for key, _, _, problem in got if problem is None]
        assert whole == ["0", "1", "2"] + (["3"] if where == "mark" else [])
        assert got[-1][2] is None and "the shard is cut off" in got[-1][3]
        assert len(got) == len(whole) + 1


def test_damaged_bytes_never_crash_or_spin(tmp_path):
    members = [(f"{n}.jpg", bytes([n]) * 600) for n in range(6)]
    whole = write_tar(tmp_path / "a.tar", members, tarfile.PAX_FORMAT).read_bytes()
    draws = np.random.default_rng(0)
    for _ in range(150):
        raw = np.frombuffer(whole[: 6 * 1536 + 1024], np.uint8).copy()
        spots = draws.integers(len(raw) // 512, size=2) * 512 + draws.integers(100, 160, 2)
        raw[spots] = draws.integers(0, 256, 2)  # sizes, checksums, types
        (tmp_path / "b.tar").write_bytes(raw.tobytes())
        assert len(found(tmp_path / "b.tar")) <= 7


def test_a_huge_member_is_never_read(tmp_path):
    info = tarfile.TarInfo("a.jpg")
    info.size = 2**40
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 2048)
    (only,) = found(tmp_path / "a.tar")
    assert "cut off" in only[3]


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pipe:cat /etc/passwd", "pipe: is refused, it runs a shell command"),
        ("PIPE:touch PWNED", "it runs a shell command"),
        ("pipe:curl http://x/a.tar", "it runs a shell command"),
        ("reference://a.tar", "it fills in templates"),
        ("simplecache::s3://bucket/a.tar", "chained URLs"),
        ("folder/a.tar.gz", "unpack it to .tar"),
        ("https://host/a.tgz?key=1", "unpack it to .tar"),
        ("exec:a.tar", "is no URL"),
        ("folder/a.zip", "ends in .tar"),
    ],
)
def test_refused_names_are_one_line(tmp_path, monkeypatch, fails, name, words):
    monkeypatch.chdir(tmp_path)
    with fails(ConfigError, r"train: |\(top level\): ", words):
        validate(WebDatasetConfig, {"train": [name]})
    assert not list(tmp_path.iterdir())


def test_braces_and_globs(tmp_path, fails):
    assert list(braces("a{08..11}.tar")) == ["a08.tar", "a09.tar", "a10.tar", "a11.tar"]
    assert list(braces("{0..1}{a}/{9..10}.tar")) == [
        f"{i}{{a}}/{j}.tar" for i in range(2) for j in (9, 10)
    ]
    with fails(DataError, "rising range"):
        list(braces("{0..99999999999}.tar"))
    for name in ("b.tar", "a.tar", "é.tar"):
        write_tar(tmp_path / name, [])
    assert [n.rsplit("/")[-1] for n in find(f"{tmp_path}/*.tar")] == ["a.tar", "b.tar", "é.tar"]
    assert find((f"{tmp_path}/b.tar", f"{tmp_path}/*.tar"))[0].endswith("b.tar")
    with fails(DataError, "c.tar: no such file"):
        find(f"{tmp_path}/c.tar")
    (tmp_path / "notes.txt").touch()
    with fails((DataError, ValueError), "notes.txt"):
        find(f"{tmp_path}/*")


def test_a_url_is_read_like_a_file(shards):
    import fsspec

    folder = shards(5, 4)
    memory = fsspec.filesystem("memory")
    for path in folder.glob("*.tar"):
        memory.pipe(f"/streams/{path.name}", path.read_bytes())
    try:
        options = {"classes": 2, "shuffle": 3}
        here = data(train=f"{folder}/part-{{00..01}}.tar", **options)
        there = data(train="memory://streams/*.tar", val="memory://streams/part-00.tar", **options)
        with pytest.raises(DataError, match="give count"):
            there.open("train")
        there = build(there.config.model_copy(update={"count": 9}))
        for workers in (0, 2):
            a, b = (
                list(StreamLoader(d.open("train"), 4, 0, steps=6, lanes=2, workers=workers))
                for d in (here, there)
            )
            assert all(torch.equal(x.pixels, y.pixels) for x, y in zip(a, b, strict=True))
        assert len(there.open("val")) == 5
    finally:
        memory.rm("/streams", recursive=True)


def test_a_read_that_fails_is_tried_again(shards, monkeypatch, fails):
    path = shards(6) / "part-00.tar"
    waits, broken = [], [True, True, False] * 1000
    monkeypatch.setattr(time, "sleep", waits.append)
    whole = TarShard._whole

    def flaky(self, count):
        if broken.pop(0):
            raise OSError("reset by peer")
        return whole(self, count)

    want = found(path)
    monkeypatch.setattr(TarShard, "_whole", flaky)
    assert found(path) == want and waits[:2] == list(places._WAITS[:2])
    monkeypatch.setattr(TarShard, "_whole", lambda *_: 1 / 0)
    with fails(DataError, "part-00.tar: cannot be read at byte 0", "tried several times"):
        found(path)
    with fails(DataError, "gone.tar: cannot be read", "check the name"):
        found(path.parent / "gone.tar")
