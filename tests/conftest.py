"""What all tests share: one thread, no network, a tiny tokenizer, one-line errors."""

import os
import re
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is first imported

import pytest
import torch

# The processes that tests start would each compile all of vistok where this is set.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_collection_modifyitems(items: list) -> None:
    """Files with many slow tests, then those with many tests, come first, so that no worker ends
    long after the other."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    count = Counter(item.path for item in items)
    items.sort(key=lambda item: (-slow[item.path], -count[item.path]))


@pytest.fixture(autouse=True)
def _same_for_every_test():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _forgets_the_parts_of_a_test(monkeypatch):
    """Plugins and parts that a test loads are gone after it, so that no order of tests matters."""
    from vistok.config import own_code, plugins, registry

    monkeypatch.setattr(plugins, "_taken", [])
    monkeypatch.setattr(own_code, "_modules", {})
    imported = set(sys.modules)
    known = {(family, kind) for family, kinds in registry._ENTRIES.items() for kind in kinds}
    yield
    for family, kinds in registry._ENTRIES.items():
        for kind, entry in list(kinds.items()):
            module = entry.part.__module__
            if (family, kind) not in known and not module.startswith("vistok."):
                del kinds[kind]
                if module not in imported:  # so that the next test registers it again
                    sys.modules.pop(module, None)


@pytest.fixture
def fails():
    """fails(type, *words): the block raises `type`; its message is one line and has the words."""

    @contextmanager
    def check(kind: type[Exception], *words: str):
        with pytest.raises(kind) as caught:
            yield caught
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert re.search(word, message), f"{word!r} is not in: {message}"

    return check


TRANSFORMER = {"width": 16, "depth": 1, "heads": 2}
QUANTIZERS = {
    "fsq": {"kind": "fsq", "levels": [4, 3]},
    "vq": {"kind": "vq", "codebook_size": 12, "dim": 4},
    "vq_ema": {"kind": "vq", "codebook_size": 12, "dim": 4, "update": "ema", "l2_norm": False},
    "lfq": {"kind": "lfq", "bits": 5},
    "bsq": {"kind": "lfq", "bits": 5, "sphere": True},
    "binary": {"kind": "binary", "bits": 6, "dim": 4},
    "binary_sign": {"kind": "binary", "bits": 6, "dim": 4, "estimator": "sign"},
}
SCALES = {"kind": "multi_scale", "scales": [1, 2], "phi": {"count": 2}}
CODES = {"kind": "vq", "codebook_size": 12, "dim": 4, "l2_norm": False, "search": "cosine"}
QUANTIZERS["scales"] = SCALES | {"quantizer": CODES}
QUANTIZERS["product_scales"] = {"kind": "product", "quantizer": QUANTIZERS["scales"]}


def tokenizer_tree(
    quantizer: str = "fsq", missing: str = "mask_token", regularizers=(), **encoder
) -> dict:
    """The config of an 8x8 tokenizer with four latents, as YAML would give it."""
    return {
        "image_size": 8,
        "encoder": {
            "kind": "vit",
            "patches": {"size": 4},
            "latents": {"count": 4},
            "transformer": dict(TRANSFORMER),
            **encoder,
        },
        "quantizer": dict(QUANTIZERS[quantizer]),
        "regularizers": list(regularizers),
        "decoder": {
            "kind": "vit",
            "patches": {"size": 4},
            "missing": missing,
            "transformer": dict(TRANSFORMER),
        },
    }


@pytest.fixture
def tree():
    """tree(quantizer, missing, regularizers, ...) -> a tokenizer's config as plain data."""
    return tokenizer_tree


@pytest.fixture
def make_tokenizer():
    """make_tokenizer(quantizer, missing, regularizers, ...) -> a tiny tokenizer in evaluation."""
    from vistok.config import validate
    from vistok.tokenizer import Tokenizer, TokenizerConfig

    def make(*args, **options):
        torch.manual_seed(1)
        config = validate(TokenizerConfig, tokenizer_tree(*args, **options))
        return Tokenizer(config).eval()

    return make


@pytest.fixture(scope="session")
def broken() -> Path:
    """Folder of broken files: $VISTOK_DATA_DIR/broken, else ../shared/data/broken."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("VISTOK_DATA_DIR", default)) / "broken"
    if not folder.is_dir():
        pytest.skip(f"no broken files in {folder}; set VISTOK_DATA_DIR")
    return folder
