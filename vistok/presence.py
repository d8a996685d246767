"""Values that a decoder is shown: prefixes, draws, samples with fewer latents. For `Tokenizer`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vistok.config import ConfigError
from vistok.core.draws import Draws
from vistok.tokens import Tokens, keep_mask


class Presence:
    """Masks of the values that the decoder of a `Tokenizer` is shown."""

    def check_counted(self) -> None:
        """ConfigError if samples have fewer latents than the decoder can do without."""
        if self.encoder.counted and self.layout.spec.prefix != "token":
            raise ConfigError(
                f"encoder.kind={self.config.encoder.kind}: samples have different numbers of "
                "tokens, and this decoder takes whole sequences; expected one of prefixes "
                "(missing: mask_token or drop)"
            )

    def present(
        self,
        draws: Draws | None,
        batch: int,
        device: torch.device,
        counts: Tensor | None = None,
    ) -> Tensor | None:
        """[B, M] bool: values that one pass shows the decoder; None = all.

        Args:
            counts: [B] latents that each sample has, of an encoder that says so.

        Without draws these are the values that tokens store, so that evaluation sees what `decode`
        will.
        """
        count, present = self.layout.count, None
        if counts is not None:
            there = torch.arange(count, device=device) < counts.to(device)[:, None]
            shown = self.present(draws, batch, device)
            return there if shown is None else there & shown
        if draws is None:
            if self._stored == count:
                return None
            return (torch.arange(count, device=device) < self._stored).expand(batch, -1)
        if draws.keep is not None and not self._masked:
            pass  # the quantizer has obeyed
        elif draws.keep is not None and self.spec().prefix == "token":
            # Not by the spec: more values may be trained with than are stored.
            place = torch.arange(count, device=device)
            present = place[None] < draws.keep.to(device)[:, None]
        elif draws.keep is not None and self.spec().prefix in ("block", "per_block"):
            present = keep_mask(self.spec(), draws.keep, batch, device)
        if draws.present is None:
            return present
        shown = draws.present.to(device)
        shown = nn.functional.pad(shown, (0, count - shown.shape[1]))  # of tokens: no redundant one
        return shown if present is None else present & shown

    def _present_of(self, tokens: Tokens, values: Tensor) -> Tensor | None:
        """[B, M] bool: values that the decoder is shown of these tokens; None = all."""
        prefix = self.spec().prefix
        missing = 0 if self.frame_stride is not None else self.layout.count - values.shape[1]
        if not self._masked or (tokens.keep is None and not missing):
            return None
        kept = tokens.kept().to(values.device)
        if prefix == "none" and bool(kept.all()):
            return None  # such decoders take no mask, not even one that hides nothing
        return nn.functional.pad(kept, (0, missing))
