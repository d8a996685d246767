"""Images from a generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.demo.models import Sampler

MOST = 16  # images of one request
_AT_ONCE = 4  # images that are sampled between two reports of progress


def class_names(sampler: Sampler) -> list[str]:
    """Names of a generator's classes, or their numbers; [] without classes."""
    generator = sampler.generator
    return list(generator.classes) or [str(number) for number in range(generator.num_classes)]


def guidance_of(sampler: Sampler) -> float | None:
    """The default scale of guidance; None for a generator that samples without."""
    value = getattr(sampler.generator.sampling, "guidance", None)
    return float(value) if isinstance(value, int | float) else None


@torch.no_grad()
def sample(
    sampler: Sampler,
    label: int | None,
    count: int,
    seed: int,
    guidance: float | None = None,
    temperature: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """[count, 3, H, W] in 0..1: samples of a class, keyed by seed and number.

    Args:
        label: number of the class; None without classes.
        guidance, temperature: changes of the generator's settings, where it has them.
        progress: is told how many images of all are done.
    Raises InputError for a class or a count that is not there.
    """
    generator = sampler.generator
    if not 1 <= count <= MOST:
        raise InputError(f"{count} images; expected 1..{MOST}")
    if generator.num_classes and (label is None or not 0 <= label < generator.num_classes):
        raise InputError(f"class {label}; expected 0..{generator.num_classes - 1}")
    known = type(generator.sampling).model_fields
    given = {"guidance": guidance, "temperature": temperature}
    changes: dict[str, Any] = {k: v for k, v in given.items() if v is not None and k in known}
    settings = generator.settings(changes or None)
    images = []
    with sampler.lock:
        for start in range(0, count, _AT_ONCE):
            index = torch.arange(start, min(start + _AT_ONCE, count))
            labels = torch.full((len(index),), label) if generator.num_classes else None
            tokens = generator.sample(
                Condition(label=labels), index=index, seed=seed, sampling=settings
            )
            images.append(sampler.owner.decode(tokens, seed=seed, index=index).float().cpu())
            progress(int(index[-1]) + 1, count)
    return torch.cat(images)
