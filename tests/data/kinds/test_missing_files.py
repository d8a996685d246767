"""Files that are missing, cannot be listed, or are no files: named, and nobody waits for them."""

import os
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

from tests.support.films import film
from vistok.cli import main
from vistok.config import validate
from vistok.config.registry import build
from vistok.data import (
    BadSample,
    CachedTokensConfig,
    DataError,
    FolderConfig,
    Order,
    ParquetConfig,
    StreamLoader,
    TokenCacheWriter,
    TrainLoader,
    VideoConfig,
    WebDatasetConfig,
)
from vistok.tokens import Tokens, TokenSpec


@pytest.fixture(autouse=True)
def _in_time():
    """A test that waits for a pipe fails, instead of lasting forever."""

    def late(*_):
        raise AssertionError("waited for a pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def opened(config, **options):
    if config is not CachedTokensConfig:
        options = {"size": 8, **options}
    return build(validate(config, options)).open("train")


@pytest.fixture
def folder(tmp_path, make_image):
    """Twelve images of two classes."""
    for number in range(12):
        path = tmp_path / "set" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_image(12, 10, number).save(path)
    return tmp_path / "set"


def test_a_dead_link_that_may_have_been_a_class_is_said(folder, caplog):
    (folder / "c").symlink_to("../unmounted", target_is_directory=True)
    assert len(opened(FolderConfig, path=str(folder))) == 12
    assert "1 links to nothing are left out, the first is c" in caplog.text


@pytest.mark.parametrize("workers", [0, 1])
def test_odd_files_of_a_folder_are_bad_samples(folder, workers):
    (folder / "a" / "dead.png").symlink_to("../nowhere.png")
    (folder / "a" / "endless.png").symlink_to("/dev/zero")
    pipe(folder / "b" / "pipe.jpg")
    data = opened(FolderConfig, path=str(folder))
    assert len(data) == 15  # none is dropped in silence
    before = data.record()
    loader = TrainLoader(data, Order(15, 5, 0), steps=3, workers=workers, max_bad_share=1.0)
    assert [len(batch.index) for batch in loader] == [5, 5, 5]
    reasons = {}
    for index in range(15):
        try:
            data[index]
        except BadSample as bad:
            reasons[bad.name] = bad.reason
    assert (
        set(reasons) == {"a/dead.png", "a/endless.png", "b/pipe.jpg"} == loader._quarantine._names
    )
    assert "No such file" in reasons["a/dead.png"] and "a device" in reasons["a/endless.png"]
    assert "a named pipe" in reasons["b/pipe.jpg"]
    (folder / "a" / "0.png").unlink()
    after = data.record()  # of another run: the file is part of it, and missing
    assert after["manifest"] != before["manifest"] and after["count"] == before["count"] == 15


def test_the_reported_folder_with_a_dead_link(shared, tmp_path):
    source = shared / "reported" / "folders" / "dangling"
    if not source.is_dir():
        pytest.skip(f"no {source}")
    for path in source.rglob("*.png"):
        place = tmp_path / path.relative_to(source)
        place.parent.mkdir(exist_ok=True)
        if path.name != "annexed.png":
            place.write_bytes(path.read_bytes())
    (tmp_path / "a" / "annexed.png").symlink_to("../.git/annex/objects/nowhere.png")
    data = opened(FolderConfig, path=str(tmp_path))
    assert data.record()["count"] == len(data) == 41
    bad = []
    for index in range(41):
        try:
            data[index]
        except BadSample as error:
            bad.append(str(error))
    assert bad == ["a/annexed.png: cannot be read (No such file or directory)"]


def test_a_class_folder_that_cannot_be_listed_is_an_error(folder, monkeypatch, fails):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with fails(DataError, "set/b: cannot be listed .Permission denied.*check your rights"):
        opened(FolderConfig, path=str(folder))


def test_videos_and_their_csv(tmp_path, fails):
    film(tmp_path / "a.mp4", 6)
    pipe(tmp_path / "b.mp4")
    (tmp_path / "c.mp4").symlink_to("nowhere.mp4")
    data = opened(VideoConfig, path=str(tmp_path), frames=4)
    assert len(data) == 3 and data.record()["count"] == 3 and data[0].pixels.shape[1] == 4
    for index, words in ((1, "b.mp4: cannot be read .is a named pipe"), (2, "No such file")):
        with fails(BadSample, words):
            data[index]
    (tmp_path / "zero.csv").write_bytes(b"path\na\0.mp4\n/dev/zero\n.\n")
    data = opened(VideoConfig, path=str(tmp_path / "zero.csv"), frames=4)
    assert data.record()["count"] == len(data) == 3
    for index, words in enumerate(("null byte", "is a device", "Is a directory")):
        with fails(BadSample, f"cannot be read .*{words}"):
            data[index]
    pipe(tmp_path / "list.csv")
    with fails(DataError, "list.csv: cannot be read .is a named pipe"):
        opened(VideoConfig, path=str(tmp_path / "list.csv"), frames=4)


def test_parquet(tmp_path, folder, fails):
    for name in "xy":
        rows = [{"image": file.read_bytes()} for file in sorted((folder / "a").iterdir())]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    options = {"train": f"{tmp_path}/*.parquet", "label_column": None}
    data = opened(ParquetConfig, **options)
    assert len(data) == 12
    (tmp_path / "y.parquet").unlink()
    assert data[0].pixels.shape == (3, 8, 8) and data.record()["count"] == 12
    with fails(BadSample, r"y\.parquet\[0\]: .*No such file"):
        data[6]
    for spoil in (pipe, lambda path: (path.unlink(), path.symlink_to("nowhere"))):
        spoil(tmp_path / "y.parquet")
        for train in (f"{tmp_path}/*.parquet", f"{tmp_path}/y.parquet"):
            with fails(DataError, r"y\.parquet: ", "a named pipe|No such file"):
                opened(ParquetConfig, **{**options, "train": train})


def test_tar_shards(shards, fails):
    place = shards(5, 7)
    options = {"train": f"{place}/*.tar", "classes": 2}
    stream = opened(WebDatasetConfig, **options, lanes=1)
    data = opened(WebDatasetConfig, **options, streaming=False)
    (place / "part-01.tar").unlink()
    assert data[0].pixels.shape == (3, 8, 8)
    with fails(BadSample, r"part-01\.tar: .*No such file"):
        data[6]
    assert data.record()["count"] == stream.record()["count"] == 12
    with fails(DataError, r"part-01\.tar: cannot be read .*check the name"):  # not left out unsaid
        list(StreamLoader(stream, 6, 0, steps=4))
    pipe(place / "part-01.tar")
    for streaming in (True, False):
        for train in (f"{place}/*.tar", f"{place}/part-01.tar"):
            with fails(DataError, r"part-01\.tar.*a named pipe"):
                opened(WebDatasetConfig, classes=2, train=train, streaming=streaming)
    names = place / "names.txt"
    pipe(names)
    with fails(DataError, "names.txt: cannot be read.*a named pipe"):
        opened(WebDatasetConfig, train=f"{place}/part-00.tar", classes=str(names))


def test_token_caches(tmp_path, fails):
    spec = TokenSpec(blocks=((4,),), vocab=(16,))
    facts = {"source": {}, "tokenizer": "tiny", "sha256": "1", "classes": ()}
    with TokenCacheWriter(tmp_path / "c", spec, 6, **facts) as writer:
        writer.write(Tokens.of(spec, torch.zeros(6, 4, 1, dtype=torch.int64)), None)
    assert len(opened(CachedTokensConfig, path=str(tmp_path / "c"))) == 6
    pipe(tmp_path / "c" / "tokens.npy")
    with fails(DataError, "tokens.npy.*a named pipe"):
        opened(CachedTokensConfig, path=str(tmp_path / "c"))


def test_commands(folder, tmp_path, make_tokenizer):
    make_tokenizer().save_pretrained(tmp_path / "model")
    pipe(tmp_path / "x.png")
    pipe(tmp_path / "x.vtk")
    pipe(tmp_path / "x.pt")
    (folder / "a" / "dead.png").symlink_to("nowhere")
    pipe(folder / "b" / "pipe.png")

    def run(*args) -> tuple[int, str]:
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        return result.exit_code, result.output

    for args in (
        ("encode", tmp_path / "model", tmp_path / "x.png", "--out", tmp_path / "out"),
        ("decode", tmp_path / "model", tmp_path / "x.vtk", "--out", tmp_path / "out"),
        ("import", tmp_path / "x.pt", tmp_path / "imported"),
    ):
        code, text = run(*args)
        assert code == 1 and len(text.splitlines()) == 1, text
        assert "is a named pipe (FIFO); expected a regular file" in text
    code, text = run("check", folder)
    assert code == 1 and "14, 12 usable" in text
    assert "a/dead.png: cannot be read (No such file" in text and "b/pipe.png: cannot" in text
    code, text = run("check", tmp_path / "x.png")
    assert code == 2 and "x.png: cannot be read (is a named pipe" in text
    for name in ("x.tar", "x.parquet"):
        pipe(tmp_path / name)
        code, text = run("check", tmp_path / name)
        assert code == 2 and "a named pipe" in text and "Traceback" not in text
