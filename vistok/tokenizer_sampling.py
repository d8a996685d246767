"""Decoders that sample: settings, and pixels from noise keyed by sample. Part of `Tokenizer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import Config, validate
from vistok.config.overrides import merge
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.runtime.precision import of_weights


class Sampling:
    """Settings and draws of a decoder that samples."""

    @property
    def sampling(self) -> Config | None:
        """Default settings of a decoder that samples; None for a deterministic one."""
        return self.decoder.sampling

    def settings(self, sampling: Config | Mapping[str, Any] | None = None) -> Config | None:
        """The decoder's settings of sampling with the changes that are asked for; None if it has
        none.

        Raises ValueError for changes to a decoder that does not sample, and for wrong ones.
        """
        own = self.decoder.sampling
        if sampling is None or own is None:
            if sampling is not None:
                raise InputError(f"sampling={sampling}: this decoder does not sample; leave it out")
            return own
        if isinstance(sampling, Config):
            return sampling
        return validate(type(own), merge(own.model_dump(), sampling), "sampling")

    def _sample(
        self,
        values: Tensor,
        present: Tensor | None,
        condition: Condition | None,
        index: Tensor | None,
        seed: int,
        settings: Config | None,
    ) -> Tensor:
        """The output space [B, C, *sides] that a decoder samples from noise keyed by sample."""
        index = torch.arange(len(values)) if index is None else index.cpu()
        noise = self.decoder.noise(index, Rng(seed, "decoder")).to(values.device)
        with of_weights(self.decoder):
            return self.decoder.sample(values, present, condition, noise, settings)
