"""Labels of token caches: numbers of their classes or -1, when written and when read."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.caches import change_meta
from vistok.config.registry import build
from vistok.data import CachedTokensConfig, DataError, TokenCache, TokenCacheWriter
from vistok.data.token_cache import check_labels, read_meta
from vistok.tokens import Tokens, TokenSpec

SPEC = TokenSpec(blocks=((4,),), vocab=(8,))
FACTS = {"source": {}, "tokenizer": "tiny", "sha256": "1"}
TOKENS = Tokens.of(SPEC, torch.zeros(2, 4, 1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("labels", "classes", "words"),
    [
        ([0, 2], ("a", "b"), r"label 2, but only 2 classes; expected 0\.\.1"),  # the null class
        ([0, 3], ("a", "b"), r"label 3, but only 2 classes; expected 0\.\.1"),
        ([-2, 1], ("a", "b"), r"label -2, but only 2 classes; expected 0\.\.1, or -1 for none"),
        ([0, 0], (), "label 0, but no classes; give their names"),
        ([0.0, 1.0], ("a", "b"), r"labels of type torch\.float32; expected integers"),
    ],
)
def test_labels_outside_the_classes_are_never_written(tmp_path, fails, labels, classes, words):
    writer = TokenCacheWriter(tmp_path / "c", SPEC, 2, **FACTS, classes=classes)
    with fails(DataError, words):
        writer.write(TOKENS, torch.tensor(labels))
    assert writer.written == 0
    writer.write(TOKENS, torch.tensor([-1, len(classes) - 1]))
    assert TokenCache(tmp_path / "c").labels.tolist() == [-1, len(classes) - 1]


def test_labels_outside_the_classes_are_never_read(fails):
    for wrong in (2, -2):
        with fails(DataError, f"token cache c: label {wrong}, but only 2 classes"):
            check_labels(Path("c"), np.array([0, wrong]), ("a", "b"))
    check_labels(Path("c"), np.array([-1, 0, 1]), ("a", "b"))


def test_class_names_of_a_cache_are_a_list(tmp_path, fails):
    with TokenCacheWriter(tmp_path / "c", SPEC, 2, **FACTS, classes=("a", "b")) as writer:
        writer.write(TOKENS, torch.tensor([0, 1]))
    for names in ("ab", {"a": 0}, ["a", 3]):
        change_meta(tmp_path / "c", classes=names)
        with fails(DataError, "damaged meta.json .*classes are no list of names"):
            read_meta(tmp_path / "c")


def test_both_caches_have_the_same_classes(tmp_path, fails):
    for name, classes in (("one", ("a", "b")), ("two", ("b", "a")), ("none", ())):
        with TokenCacheWriter(tmp_path / name, SPEC, 2, **FACTS, classes=classes) as writer:
            writer.write(TOKENS, torch.tensor([-1, len(classes) - 1]))
    for other, words in (("two", "2: b, a"), ("none", "0: ")):
        config = CachedTokensConfig(path=str(tmp_path / "one"), val_path=str(tmp_path / other))
        with fails(DataError, rf"{other}: has other classes \({words}\) than .*one \(2: a, b\)"):
            build(config).open("val")
