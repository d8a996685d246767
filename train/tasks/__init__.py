"""Tasks: what the loop trains. The loop never learns which one it runs."""

from vistok.train.tasks import classifier, generator, tokenizer

__all__ = ["classifier", "generator", "tokenizer"]
