import pickle

import numpy as np
import pytest
import torch

from tests.support.caches import change_meta
from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.core.records import Condition
from vistok.data import (
    CachedTokensConfig,
    DataError,
    EvalLoader,
    Order,
    TokenCache,
    TokenCacheWriter,
    TrainLoader,
    to_device,
)
from vistok.data.token_cache import ArraySpec
from vistok.storage.sealed import read_sealed
from vistok.tokens import Tokens, TokenSpec

SPEC = TokenSpec(blocks=((2, 2),), vocab=(4096, 3))
FACTS = {
    "source": {"kind": "photos", "manifest": "abc"},
    "tokenizer": "tiny",
    "sha256": "123",
    "classes": ("a", "b"),
}


def some(count: int, seed: int = 0, spec: TokenSpec = SPEC) -> Tokens:
    rng = np.random.default_rng(seed)
    digits = [rng.integers(0, v, (count, spec.length)) for v in spec.vocab]
    return Tokens.of(spec, torch.from_numpy(np.stack(digits, -1)))


def write(path, count=20, spec=SPEC, **facts):
    tokens, labels = some(count, spec=spec), torch.arange(count) % 2
    with TokenCacheWriter(path, spec, count, **{**FACTS, **facts}) as writer:
        writer.write(tokens, labels)
    return tokens, labels


def open_tokens(split="train", **values):
    return build(CachedTokensConfig(**values)).open(split)


def test_what_was_written_is_read(tmp_path):
    tokens, labels = write(tmp_path / "c")
    assert np.load(tmp_path / "c" / "tokens.npy", allow_pickle=False).dtype == np.int16
    data = pickle.loads(pickle.dumps(open_tokens(path=str(tmp_path / "c"))))
    assert data.spec == SPEC and data.classes == ("a", "b") and len(data) == 20
    batches = list(EvalLoader(data, 8))
    assert torch.equal(torch.cat([b.tokens.indices for b in batches]), tokens.indices)
    assert torch.equal(torch.cat([b.label for b in batches]), labels)
    assert batches[0].pixels is None and batches[0].tokens.spec == SPEC
    assert to_device(batches[0], "cpu").tokens.indices.dtype == torch.int16
    runs = [list(TrainLoader(data, Order(20, 6, 1), steps=4, workers=w)) for w in (0, 2)]
    for one, two in zip(*runs, strict=True):
        assert torch.equal(one.tokens.indices, two.tokens.indices)
        assert torch.equal(one.tokens.indices, tokens.indices[one.index])


@pytest.mark.parametrize(
    ("vocab", "kind"), [((256,), "uint8"), ((2,) * 5, "uint8"), ((64000,), "int32")]
)
def test_smallest_type(tmp_path, vocab, kind):
    write(tmp_path / "c", spec=TokenSpec(blocks=((3,),), vocab=vocab))
    array = np.load(tmp_path / "c" / "tokens.npy", allow_pickle=False)
    assert array.dtype == kind and array.shape == (20, 3, len(vocab))


def test_continuous_tokens(tmp_path):
    spec = TokenSpec(blocks=((3,),), vocab=(), dim=5)
    values = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    with TokenCacheWriter(tmp_path / "c", spec, 4, **FACTS) as writer:
        writer.write(Tokens(spec, values=values))
    batch = next(iter(EvalLoader(open_tokens(path=str(tmp_path / "c")), 4)))
    assert torch.equal(batch.tokens.values, values) and batch.label.tolist() == [-1] * 4


def test_interrupted_cache_goes_on(tmp_path):
    tokens, labels = some(20), torch.arange(20) % 2
    path = tmp_path / "c"
    writer = TokenCacheWriter(path, SPEC, 20, flush_rows=8, **FACTS)
    writer.write(tokens.select(slice(0, 10)), labels[:10])  # flushed
    writer.write(tokens.select(slice(10, 13)), labels[10:13])  # lost: the process dies here
    del writer
    with pytest.raises(DataError, match="unfinished, 10 of 20 rows") as caught:
        TokenCache(path)
    assert "again" in str(caught.value) and "\n" not in str(caught.value)
    with TokenCacheWriter(path, SPEC, 20, **FACTS) as writer:
        assert writer.written == 10 and not writer.finished
        writer.write(tokens.select(slice(10, 20)), labels[10:])
        assert writer.finished
    cache = TokenCache(path)
    rows = [cache.row(i) for i in range(20)]
    assert torch.equal(torch.stack([row for row, _ in rows]), tokens.indices)
    assert [label for _, label in rows] == labels.tolist()
    again = TokenCacheWriter(path, SPEC, 20, **FACTS)
    assert again.finished
    with pytest.raises(DataError, match="is finished"):
        again.write(tokens.select(slice(0, 1)))


@pytest.mark.parametrize(
    "change",
    [{"sha256": "other"}, {"source": {"kind": "folder"}}, {"classes": ("a",)}, {"crops": 2}],
)
def test_another_cache_is_refused(tmp_path, change):
    write(tmp_path / "c")
    with pytest.raises(DataError, match="it was begun with") as caught:
        TokenCacheWriter(tmp_path / "c", SPEC, 20, **{**FACTS, **change})
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="begun with spec"):
        TokenCacheWriter(tmp_path / "c", TokenSpec(blocks=((4,),), vocab=(8,)), 20, **FACTS)
    with pytest.raises(DataError, match="begun with count=20, now count=21"):
        TokenCacheWriter(tmp_path / "c", SPEC, 21, **FACTS)


def test_strange_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(DataError, match=r"holds 'thesis\.tex'"):
        TokenCacheWriter(tmp_path, SPEC, 4, **FACTS)
    with pytest.raises(DataError, match=r"no meta\.json"):
        TokenCache(tmp_path)


def test_wrong_rows_are_refused(tmp_path):
    writer = TokenCacheWriter(tmp_path / "c", SPEC, 4, **FACTS)
    with pytest.raises(DataError, match="has room for 4"):
        writer.write(some(5))
    with pytest.raises(DataError, match="another spec"):
        other = TokenSpec(blocks=((2, 2),), vocab=(4096, 2))
        writer.write(some(2, spec=other))
    with pytest.raises(DataError, match="3 labels for 2 rows"):
        writer.write(some(2), torch.zeros(3))
    assert writer.written == 0


def test_damaged_caches_are_refused(tmp_path):
    path = tmp_path / "c"
    write(path)
    meta = read_sealed(path / "meta.json")
    np.save(path / "labels.npy", np.zeros(3, np.int64))
    with pytest.raises(DataError, match=r"labels\.npy is int64 \(3,\)"):
        TokenCache(path)
    np.save(path / "labels.npy", np.array([{"a": 1}] * 20, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"labels\.npy cannot be read"):
        TokenCache(path)
    for key, value, words in (
        ("version", 9, "format version 9"),
        ("written", 50, "damaged"),
        ("crops", 3, "no multiple"),
        ("spec", {"blocks": [[2]]}, "vocab: missing"),
    ):
        change_meta(path, **{key: value})
        with pytest.raises(DataError, match=words):
            TokenCache(path)
        change_meta(path, **{key: meta[key]})
    (path / "meta.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        TokenCache(path)


def test_held_out_samples_and_second_cache(tmp_path):
    write(tmp_path / "c", count=100)
    path = str(tmp_path / "c")
    splits = [open_tokens(s, path=path, val_share=0.2) for s in ("train", "val")]
    rows = [set(data._rows.tolist()) for data in splits]
    assert splits[0].record()["manifest"] != splits[1].record()["manifest"]
    assert not rows[0] & rows[1] and len(rows[0] | rows[1]) == 100 and 8 < len(rows[1]) < 35
    write(tmp_path / "v")
    assert len(open_tokens("val", path=path, val_path=str(tmp_path / "v"))) == 20
    write(tmp_path / "w", sha256="other")
    with pytest.raises(DataError, match="another tokenizer"):
        open_tokens("val", path=path, val_path=str(tmp_path / "w"))
    with pytest.raises(DataError, match="give val_path or val_share"):
        open_tokens("val", path=path)
    with pytest.raises(ConfigError, match="give one of them"):
        validate(CachedTokensConfig, {"path": "a", "val_path": "b", "val_share": 0.1})


def test_crops_are_drawn_by_epoch(tmp_path):
    tokens, _ = write(tmp_path / "c", count=60, crops=3)
    train = open_tokens(path=str(tmp_path / "c"))
    assert len(train) == 20

    def drawn(epoch, index):
        row = train.sample(index, epoch, seed=1).tokens
        return [torch.equal(row, tokens.indices[3 * index + c]) for c in range(3)].index(True)

    table = [[drawn(epoch, index) for index in range(20)] for epoch in range(3)]
    assert table == [[drawn(epoch, index) for index in range(20)] for epoch in range(3)]
    assert len({tuple(row) for row in table}) == 3
    assert {crop for row in table for crop in row} == {0, 1, 2}


# -- text features and latents ---------------------------------------------------------------------

ARRAYS = {
    "text": ArraySpec((5, 4)),
    "text_mask": ArraySpec((5,), "bool"),
    "pooled": ArraySpec((6,), "float16"),
    "latents": ArraySpec((4, 3)),
}


def optional(count: int, seed: int = 0) -> tuple[Condition, torch.Tensor]:
    """(condition, latents) of `count` rows, as ARRAYS has them."""
    rng = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(count, *shape, generator=rng)
    text, mask, pooled = normal(5, 4), normal(5) > 0, normal(6).half().float()
    return Condition(text=text, text_mask=mask, pooled=pooled), normal(4, 3)


def begin(path, count=20, crops=1, **values):
    return TokenCacheWriter(path, SPEC, count, crops=crops, **{**FACTS, "arrays": ARRAYS, **values})


@pytest.mark.parametrize("workers", [0, 2])
def test_text_features_and_latents_come_back_with_the_tokens(tmp_path, workers):
    (condition, latents), tokens = optional(20), some(20)
    with begin(tmp_path / "c") as writer:
        for start in range(0, 20, 7):
            rows = slice(start, start + 7)
            writer.write(tokens.select(rows), None, condition.select(rows), latents[rows])
    data = pickle.loads(pickle.dumps(open_tokens(path=str(tmp_path / "c"))))
    assert data.features == {name: one.shape for name, one in ARRAYS.items()}
    assert data.record()["arrays"]["text"] == {"shape": [5, 4], "dtype": "float32"}
    batches = list(EvalLoader(data, 8, workers=workers))
    moved = [to_device(batch, "cpu") for batch in batches]
    for name in ("text", "text_mask", "pooled"):
        found = torch.cat([getattr(batch.condition, name) for batch in moved])
        assert torch.equal(found, getattr(condition, name)), name
    assert torch.equal(torch.cat([batch.latents for batch in moved]), latents)
    assert batches[0].condition.pooled.dtype == torch.float16
    assert moved[0].condition.pooled.dtype == torch.float32
    assert moved[0].condition.label is None and moved[0].pixels is None


def test_one_text_for_all_crops_of_a_sample_and_latents_of_each(tmp_path):
    """Batches cut samples in two; the first crop's text counts."""
    (condition, latents), tokens = optional(12), some(12)
    with begin(tmp_path / "c", 12, crops=3) as writer:
        for start in range(0, 12, 4):
            rows = slice(start, start + 4)
            writer.write(tokens.select(rows), None, condition.select(rows), latents[rows])
    assert np.load(tmp_path / "c" / "text.npy").shape == (4, 5, 4)
    cache = TokenCache(tmp_path / "c")
    for sample in range(4):
        assert torch.equal(cache.condition(sample).text, condition.text[3 * sample])
        for crop in range(3):
            assert torch.equal(cache.latents(sample, crop), latents[3 * sample + crop])


@pytest.mark.parametrize("stop", [4, 7, 11])
def test_an_interrupted_cache_with_features_is_resumed_exactly(tmp_path, stop):
    (condition, latents), tokens = optional(12), some(12)

    def go(writer, start, end):
        rows = slice(start, end)
        writer.write(tokens.select(rows), None, condition.select(rows), latents[rows])

    with begin(tmp_path / "whole", 12, crops=3) as writer:
        go(writer, 0, 12)
    with begin(tmp_path / "cut", 12, crops=3) as writer:
        go(writer, 0, stop)
    with begin(tmp_path / "cut", 12, crops=3) as writer:
        assert writer.written == stop
        go(writer, stop, 12)
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "cut" / file.name).read_bytes(), file.name


def test_several_processes_write_features_too(tmp_path):
    (condition, latents), tokens = optional(12), some(12)
    leader = begin(tmp_path / "c", 12, crops=3)
    other = begin(tmp_path / "c", 12, crops=3, leader=False)
    for number, start in enumerate(range(0, 12, 4)):
        rows = slice(start, start + 4)
        writer = (leader, other)[number % 2]
        writer.put(start, tokens.select(rows), None, condition.select(rows), latents[rows])
        writer.force()
    for writer in (leader, other):
        writer.count_up(12)
    cache = TokenCache(tmp_path / "c")
    assert all(
        torch.equal(cache.condition(sample).text, condition.text[3 * sample]) for sample in range(4)
    )


def test_wrong_features_are_one_line(tmp_path, fails):
    (condition, latents), tokens = optional(20), some(20)
    writer = begin(tmp_path / "c")
    with fails(DataError, "latents of shape None; .* begun with .20, 4, 3."):
        writer.write(tokens, None, condition)
    with fails(DataError, "pooled of shape None"):
        writer.write(tokens, None, Condition(text=condition.text), latents)
    with fails(DataError, "text_mask of type torch.float32; expected torch.bool"):
        mask = condition.text_mask.float()
        given = Condition(text=condition.text, text_mask=mask, pooled=condition.pooled)
        writer.write(tokens, None, given, latents)
    with fails(DataError, "pooled does not fit float16 .largest value 1e.06.; cache it as float32"):
        pooled = torch.full((20, 6), 1e6)
        given = Condition(text=condition.text, text_mask=condition.text_mask, pooled=pooled)
        writer.write(tokens, None, given, latents)
    assert writer.written == 0
    writer.write(tokens, None, condition, latents)  # without a row it would be made anew
    with fails(DataError, "begun with arrays=.*, now arrays="):
        begin(tmp_path / "c", arrays={})
    with fails(DataError, "'depth'; expected one of latents, text, text_mask, pooled"):
        begin(tmp_path / "d", arrays={"depth": ArraySpec((2,))})
    with fails(DataError, "text_mask of type 'float32'; expected bool"):
        begin(tmp_path / "d", arrays={"text_mask": ArraySpec((2,))})
    plain = TokenCacheWriter(tmp_path / "e", SPEC, 20, **FACTS)
    with fails(DataError, "latents of shape .20, 4, 3.; .* begun with None"):
        plain.write(tokens, None, None, latents)


def test_a_validation_cache_holds_the_same_arrays(tmp_path, fails):
    write(tmp_path / "train")
    (condition, latents), tokens = optional(20), some(20)
    with begin(tmp_path / "val") as writer:
        writer.write(tokens, None, condition, latents)
    with fails(DataError, "holds text .*, but .*train tokens alone; cache both"):
        open_tokens("val", path=str(tmp_path / "train"), val_path=str(tmp_path / "val"))


@pytest.mark.parametrize(
    "arrays",
    [
        None,
        [],
        {"text": None},
        {"text": {"shape": [5, 4]}},
        {"text": {"shape": [5, -4], "dtype": "float32"}},
        {"text": {"shape": [], "dtype": "float32"}},
        {"text": {"shape": [5, 4], "dtype": "object"}},
        {"../text": {"shape": [5, 4], "dtype": "float32"}},
        {"text": {"shape": [True, 4], "dtype": "float32"}},
        {"text": {"shape": [5, 3], "dtype": "float32"}},
    ],
)
def test_damaged_arrays_are_one_line(tmp_path, fails, arrays):
    (condition, latents), tokens = optional(20), some(20)
    with begin(tmp_path / "c") as writer:
        writer.write(tokens, None, condition, latents)
    change_meta(tmp_path / "c", arrays=arrays)
    with fails(DataError, "damaged meta.json|text.npy is float32 .20, 5, 4."):
        TokenCache(tmp_path / "c")
