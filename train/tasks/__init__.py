"""Tasks, which the loop trains without knowing which one it runs."""

from vistok.train.tasks import classifier, generator, tokenizer

__all__ = ["classifier", "generator", "tokenizer"]
