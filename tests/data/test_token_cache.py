"""The seal of a token cache, and arrays whose headers are damaged."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from tests.data.kinds.test_tokens import FACTS, SPEC, some, write
from tests.support.caches import change_meta
from vistok.data import DataError, TokenCache, TokenCacheWriter
from vistok.storage.sealed import read_sealed


@pytest.fixture
def cache(tmp_path):
    write(tmp_path / "c")
    return tmp_path / "c"


@pytest.mark.parametrize("name", ["tokens", "labels"])
def test_one_changed_code_or_label_is_damage(cache, fails, name):
    TokenCache(cache)
    array = np.load(cache / f"{name}.npy", mmap_mode="r+")
    array[3] ^= 1
    array.flush()
    words = f"c/{name}.npy: its sha256 is not that of .*write the cache anew"
    with fails(DataError, words):
        TokenCache(cache)
    before = (cache / "meta.json").read_bytes()
    with fails(DataError, words):  # nor does the writer seal what it did not write
        TokenCacheWriter(cache, SPEC, 20, **FACTS)
    assert (cache / "meta.json").read_bytes() == before


def test_an_edited_record_is_damage(cache, fails):
    path = cache / "meta.json"
    good = path.read_text()
    for old, new in (('"a"', '"z"'), ('"photos"', '"folder"'), ('"123"', '"124"'), ("\n", "\n ")):
        path.write_text(good.replace(old, new, 1))
        with fails(DataError, "meta.json: its seal does not fit its text.*write the cache anew"):
            TokenCache(cache)
    path.write_text("[" * 10**5)
    with fails(DataError, "meta.json: cannot be read as JSON"):
        TokenCache(cache)
    path.write_text(good)
    change_meta(cache, files={})
    with fails(DataError, "meta.json: no digest of each of labels.npy, tokens.npy"):
        TokenCache(cache)
    assert read_sealed(path)["files"] == {}


def test_a_finished_cache_is_left_as_it_is(cache):
    before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    with TokenCacheWriter(cache, SPEC, 20, **FACTS) as writer:
        assert writer.finished
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == before


HEADERS = {
    "shape beyond memory": ("(20, 4, 2)", f"({2**60}, 4, 2)"),
    "negative shape": ("(20, 4, 2)", "(-20, 4, 2)"),
    "no tuple": ("(20, 4, 2)", "[20, 4, 2]"),
    "another type": ("'<i2'", "'<i4'"),
    "objects": ("'<i2'", "'|O'"),
    "no type": ("'<i2'", "'<q9'"),
    "Fortran order": ("False", "True"),
    "no key": ("'shape'", "'shade'"),
    "deep": ("(20, 4, 2)", "(" * 60 + "1" + ")" * 60),
    "an expression": ("(20, 4, 2)", "(2**99999, 4)"),
}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("damage", HEADERS)
def test_damaged_headers_are_one_line(tmp_path, fails, damage, finished):
    old, new = HEADERS[damage]
    path = tmp_path / "c"
    with TokenCacheWriter(path, SPEC, 20, **FACTS) as writer:
        writer.write(some(20 if finished else 10))
    data = (path / "tokens.npy").read_bytes()
    start = 10 + int.from_bytes(data[8:10], "little")
    header = data[10:start].decode("latin1").replace(old, new).rstrip()
    header = header.ljust(start - 11) + "\n"
    assert new in header
    fresh = data[:8] + len(header).to_bytes(2, "little") + header.encode("latin1")
    (path / "tokens.npy").write_bytes(fresh + data[start:])
    with fails(DataError, "token cache .*c.*write the cache anew" if finished else "write the"):
        TokenCache(path) if finished else TokenCacheWriter(path, SPEC, 20, **FACTS)
    assert (path / "tokens.npy").stat().st_size == len(fresh + data[start:])


@pytest.mark.parametrize("keep", [0, 5, 9, 60, -1])
def test_cut_arrays_are_one_line_and_stay_short(tmp_path, fails, keep):
    path = tmp_path / "c"
    with TokenCacheWriter(path, SPEC, 20, **FACTS) as writer:
        writer.write(some(10))
    data = (path / "labels.npy").read_bytes()
    (path / "labels.npy").write_bytes(data[:keep])
    with fails(DataError, "labels.npy .*(cannot be read|bytes; expected).*write the cache anew"):
        TokenCacheWriter(path, SPEC, 20, **FACTS)
    assert (path / "labels.npy").read_bytes() == data[:keep]


def test_names_of_files_are_kept_and_old_caches_have_none(tmp_path, cache, fails):
    names = [f"käfer/{n}.png" for n in range(18)] + ["a\nb.png", "x\udcff.png"]
    path = tmp_path / "named"
    with TokenCacheWriter(path, SPEC, 20, **FACTS, names=names) as writer:
        writer.write(some(10))
    with TokenCacheWriter(path, SPEC, 20, **FACTS, names=names) as writer:
        writer.write(some(10))
    found = pickle.loads(pickle.dumps(TokenCache(path))).names
    assert found == (*names[:18], r"a\nb.png", r"x\udcff.png")
    assert (path / "names.txt").read_text("utf-8").splitlines() == list(found)
    with fails(DataError, "begun with names="):
        TokenCacheWriter(path, SPEC, 20, **FACTS, names=names[::-1])
    with fails(DataError, "19 names for 20 samples"):
        TokenCacheWriter(tmp_path / "new", SPEC, 20, **FACTS, names=names[1:])
    (path / "names.txt").write_text("mine", "utf-8")
    with fails(DataError, "names.txt: 4 bytes; expected .*write the cache anew"):
        _ = TokenCache(path).names
    change_meta(path, names=None)
    with fails(DataError, "damaged meta.json .names."):
        _ = TokenCache(path).names
    assert TokenCache(cache).names is None  # as it was written before there were names
    assert TokenCacheWriter(cache, SPEC, 20, **FACTS, names=names).finished
