"""Text encoders of transformers' own classes, tiny and random, saved with their tokenizers."""

from pathlib import Path

import pytest
import torch

WIDTH, LENGTH = 8, 6


def clip(
    folder: Path, width: int = WIDTH, layers: int = 3, seed: int = 0, projection: int | None = None
) -> str:
    """A CLIP text tower whose words are letters; padding is the end token, as CLIP has it.

    Args:
        projection: width of the text projection; None = without one.
    """
    transformers = pytest.importorskip("transformers")
    letters = "abcdefghijklmnopqrstuvwxyz."
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {name: number for number, name in enumerate(names)}
    words = transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)
    words.save_pretrained(folder)
    config = transformers.CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=vocab["<|startoftext|>"],
        eos_token_id=vocab["<|endoftext|>"],
        pad_token_id=vocab["<|endoftext|>"],
        projection_dim=projection or 512,
    )
    plain, projected = transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection
    return _save(plain if projection is None else projected, config, folder, seed)


def causal(folder: Path, width: int = WIDTH, layers: int = 3) -> str:
    """A causal language model, with its head, that reads the letters of `clip`."""
    transformers = pytest.importorskip("transformers")
    clip(folder, width)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
    )
    return _save(transformers.LlamaForCausalLM, config, folder, 0)


def t5(folder: Path, width: int = WIDTH, layers: int = 3) -> str:
    """A T5 encoder whose words are letters."""
    transformers = pytest.importorskip("transformers")
    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz."]
    vocab = [(piece, 0.0 if piece.startswith("<") else -2.0) for piece in pieces]
    words = transformers.T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=77)
    words.save_pretrained(folder)
    config = transformers.T5Config(
        vocab_size=len(words),
        d_model=width,
        d_kv=4,
        d_ff=2 * width,
        num_layers=layers,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
    )
    return _save(transformers.T5EncoderModel, config, folder, 0)


def _save(kind: type, config: object, folder: Path, seed: int) -> str:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
        for parameter in model.parameters():  # the library's own start is nearly zero
            torch.nn.init.normal_(parameter, std=0.5)
        model.save_pretrained(folder)
    return str(folder)
