"""Tasks: what the loop trains. The loop never learns which one it runs."""

from vistok.train.tasks import cache, classifier, generator, tokenizer

__all__ = ["cache", "classifier", "generator", "tokenizer"]
