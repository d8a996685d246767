"""Sampling settings that may differ between the factors of a position.

Temperature, top-k, top-p, min-p and the guidance scale are each a number, of all factors, or a list
of one number per factor (Open-MAGVIT2, arXiv 2409.04410, samples its two sub-tokens so).
"""

from __future__ import annotations

from typing import Self

from vistok.config.one_or_list import one_or_list
from vistok.core.errors import InputError
from vistok.generators.guidance import GuidanceConfig, Scale
from vistok.generators.sampling import ChoiceConfig, MinP, Temperature, TopK, TopP


class FactorSampling(ChoiceConfig, GuidanceConfig):
    """Settings of a choice from guided logits, of one factor or of several."""

    temperature: one_or_list(Temperature) = 1.0
    """Divisor of the logits; 0 = greedy, the most likely code. A list: of each factor."""
    top_k: one_or_list(TopK) = 0
    """Number of most likely codes that are sampled from; 0 = all. A list: of each factor."""
    top_p: one_or_list(TopP) = 1.0
    """Probability that the most likely codes which are sampled from reach together; 1 = all. A
    list: of each factor."""
    min_p: one_or_list(MinP) = 0.0
    """Least probability of codes that are sampled from, as a share of that of the most likely one;
    0 = all (arXiv 2407.01082). A list: of each factor."""
    guidance: one_or_list(Scale) = 1.0
    """Scale of classifier-free guidance; 1 = none, 0 = the model without its condition. A list: of
    each factor."""

    def of_factors(self, count: int) -> list[Self]:
        """Settings of each factor, in numbers; InputError for a list of another length."""
        given = {name: value for name in _EACH if isinstance(value := getattr(self, name), tuple)}
        for name, values in given.items():
            if len(values) != count:
                raise InputError(
                    f"{name}={list(values)}: {len(values)} numbers for {count} factors of a token; "
                    f"expected one number, or {count}"
                )
        own = ({name: values[f] for name, values in given.items()} for f in range(count))
        return [self.model_copy(update=changes) for changes in own] if given else [self] * count

    @property
    def guided(self) -> bool:
        scales = self.guidance if isinstance(self.guidance, tuple) else (self.guidance,)
        return any(scale != 1.0 for scale in scales) or self.starts_guided


_EACH = ("temperature", "top_k", "top_p", "min_p", "guidance")
