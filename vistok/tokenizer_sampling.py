"""Decoders that sample: settings, and pixels from noise keyed by sample. Part of `Tokenizer`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
        condition = self._with_frames(condition, len(values))
        noise = self.decoder.noise(index, Rng(seed, "decoder")).to(values.device)
        with of_weights(self.decoder):
            return self.decoder.sample(values, present, condition, noise, settings)

    def _with_frames(self, condition: Condition | None, batch: int) -> Condition | None:
        """The condition with its known first frames [B, 3, t, H, W] in the output space, for a
        decoder that takes some; InputError for frames that do not fit."""
        if condition is None or condition.frames is None or condition.given is not None:
            return condition
        frames, shape = condition.frames, self.shape
        weight = next(self.parameters())
        fits = frames.ndim == 5 and frames.shape[0] == batch
        fits = fits and shape.is_clip and tuple(frames.shape[3:]) == shape.image_size
        if not fits or not 1 <= frames.shape[2] < shape.frames:
            expected = "clips" if not shape.is_clip else f"[{batch}, 3, t, *{shape.image_size}]"
            raise InputError(
                f"condition.frames have shape {tuple(frames.shape)}; expected {expected}, fewer "
                f"frames than the {shape.frames or 1} that are decoded"
            )
        inside = self.output_space(frames.to(weight.device, torch.float32))
        given = torch.full((batch,), inside.shape[2], device=inside.device)
        return replace(condition, frames=inside, given=given)
