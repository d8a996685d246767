"""A small autoregressive generator, tokens of its spec, and its samples in one call."""

import torch

from vistok.config import validate
from vistok.core.records import Condition
from vistok.generators.autoregressive import Autoregressive, AutoregressiveConfig
from vistok.tokens import Tokens, TokenSpec

SMALL = {"width": 16, "depth": 1, "heads": 2, "norm": "rmsnorm", "mlp": "swiglu", "bias": False}
LABELS = torch.tensor([0, 1, 1, 0, 0, 1])
HEADS = {
    "joint": (6,),
    "independent": (3, 2),
    "causal": (3, 2),
    "bernoulli": (2, 2, 2),
    "intra": (3, 2),
}


def make(
    vocab=(6,), length: int = 4, classes: int = 2, prefix="none", blocks=None, **options
) -> Autoregressive:
    """An untrained generator; `options` are keys of its config."""
    torch.manual_seed(2)
    spec = TokenSpec(blocks=blocks or ((length,),), vocab=vocab, prefix=prefix)
    condition = {"classes": classes, **options.pop("condition", {})}
    data = {"transformer": SMALL, "condition": condition, **options}
    return Autoregressive(validate(AutoregressiveConfig, data), spec)


def lively(model: Autoregressive) -> Autoregressive:
    """Heads away from zero, so that everything has an influence."""
    torch.manual_seed(3)
    for parameter in model.head.out.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    torch.nn.init.normal_(model.condition.label.weight)
    return model.eval()


def tokens_of(model: Autoregressive, batch: int = 5, seed: int = 0) -> Tokens:
    """Random tokens, the same in every call."""
    generator = torch.Generator().manual_seed(seed)
    spec = model.spec
    columns = [torch.randint(v, (batch, spec.length), generator=generator) for v in spec.vocab]
    return Tokens.of(spec, torch.stack(columns, -1))


def sample(
    model: Autoregressive, given: torch.Tensor | int, *, seed=0, index=None, length=None, **changes
) -> Tokens:
    """Samples of classes, or of a number without a class, under changed settings."""
    label = given if isinstance(given, torch.Tensor) else None
    index = torch.arange(given if label is None else len(label)) if index is None else index
    condition = Condition(label=label)
    return model.sample(condition, index=index, seed=seed, length=length, sampling=changes)
