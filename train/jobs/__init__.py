"""Jobs: what writes files instead of training. They are configured as `task:` too."""

from vistok.train.jobs import cache, preserve, quantize, relations

__all__ = ["cache", "preserve", "quantize", "relations"]
