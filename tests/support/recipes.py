"""The files of configs/ by what they are, and what the tiny recipes start from."""

from __future__ import annotations

import functools
import string
from pathlib import Path

import torch
import yaml

from vistok.config import read_yaml, validate
from vistok.storage.weights import write_safetensors
from vistok.train.config import TrainConfig

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = {str(path.relative_to(CONFIGS)): path for path in sorted(CONFIGS.rglob("*.yaml"))}


@functools.cache
def what_it_is(path: Path) -> str:
    """launch (of accelerate), study (of eval) or train, by the file's own keys."""
    keys = set(yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    if "compute_environment" in keys or "distributed_type" in keys:
        return "launch"
    if "runs" in keys:
        return "study"
    if keys & {"task", "base"}:
        return "train"
    raise AssertionError(f"{path}: nobody reads a file with the keys {sorted(keys)}")


TRAINING = {name: path for name, path in FILES.items() if what_it_is(path) == "train"}


@functools.cache  # configs are frozen
def read_config(path: Path, *overrides: str) -> TrainConfig:
    return validate(TrainConfig, read_yaml(path, overrides), str(path))


def _tiny(kind: str) -> dict[str, Path]:
    """The tiny recipes that train models of a kind, by the names of their files."""
    tiny = {Path(name).stem: path for name, path in TRAINING.items() if name.startswith("tiny/")}
    return {name: path for name, path in tiny.items() if read_config(path).task.kind == kind}


TINY, TINY_GENERATORS = _tiny("tokenizer"), _tiny("generator")


def write_clip(folder: Path, width: int = 16, length: int = 12) -> Path:
    """A random CLIP text model of `width` channels that spells, in transformers' format."""
    import transformers

    letters = string.ascii_lowercase + string.digits + "._"
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    numbers = {word: number for number, word in enumerate(words)}
    transformers.CLIPTokenizer(vocab=numbers, merges=[]).save_pretrained(folder)
    config = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=length,
        bos_token_id=numbers["<|startoftext|>"],
        eos_token_id=numbers["<|endoftext|>"],
        pad_token_id=numbers["<|endoftext|>"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.CLIPTextModel(config).save_pretrained(folder)
    return folder


def write_stand_ins(runs: Path) -> None:
    """Untrained tokenizers and a text encoder where the tiny recipes look for theirs."""
    from vistok.tokenizer import Tokenizer

    write_clip(runs / "tiny_clip")
    relations = runs / "tiny_glotok_relations"
    relations.mkdir(parents=True)
    write_safetensors({"relations": torch.eye(64)}, relations / "relations.safetensors")
    before = ("maskgit_vqgan", "titok_stage1", "one_d_piece_stage1", "titok_vq", "retok")
    for name in (*before, "seed_stage1", "seed_stage2", "tokenflow"):
        torch.manual_seed(0)
        config = read_config(TINY[name])
        Tokenizer(config.task.tokenizer).save_pretrained(runs / config.name / "model")
