"""The tokenizer: input space -> encoder -> quantizer -> decoder -> output space.

Regularizers only sample draws, which the parts obey; `draws=None` is evaluation.
Letters: B batch, H W pixels, N latents, M values, L positions, F factors, D width; *sides is H, W
of images and T, H, W of clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

# Importing the packages registers their parts, which configs are built from.
import vistok.decoders
import vistok.encoders
import vistok.heads
import vistok.quantizers
import vistok.regularizers
import vistok.spaces  # noqa: F401
from vistok import rates
from vistok.causal import Causal
from vistok.conditioning import ReadsText
from vistok.config import Config, ConfigError
from vistok.config.contract import lacks
from vistok.config.registry import build
from vistok.core.draws import Draws
from vistok.core.errors import InputError
from vistok.core.records import Batch, Condition, Decoded, Latents, Noisy, Quantized, Reconstruction
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import check_pixels
from vistok.frozen.network import share_frozen
from vistok.images import TakesImages
from vistok.presence import Presence
from vistok.recounting import Recounts
from vistok.regularizers.base import check_all
from vistok.runtime.modes import evaluating
from vistok.runtime.precision import of_weights
from vistok.storage.lineage import Lineage
from vistok.tokenizer_config import TokenizerConfig
from vistok.tokenizer_files import TokenizerFiles
from vistok.tokenizer_sampling import Sampling
from vistok.tokens import Tokens, TokenSpec


class Tokenizer(
    Causal,
    Sampling,
    Presence,
    Recounts,
    TakesImages,
    ReadsText,
    TokenizerFiles,
    library_name="vistok",
    tags=["image-tokenizer"],
):
    """Composition of the parts that a config names.

    Attributes:
        shape: of the pixels of one sample. layout: tokens and values that the quantizer makes.
        origin: of imported weights; None for those trained here.
        lineage: stages that led to the weights, if they came from others.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config, self.shape = config, config.shape
        self.input_space = build(config.input_space, self.shape)
        self.output_space = build(config.output_space, self.shape)
        if self.output_space.reads_only:
            raise ConfigError(
                f"output_space.kind={config.output_space.kind}: nothing leads back from it to "
                "pixels; expected pixels, vae, clip_vae, haar or codes"
            )
        share_frozen(self.input_space, self.output_space)
        self.output_space.share(self.input_space)
        self.quantizer = build(config.quantizer)
        self.encoder = build(config.encoder, self.input_space.shape, self.quantizer.latent_dim)
        layout = self.quantizer.layout(self.encoder.grids, self.encoder.stored)
        self.decoder = build(config.decoder, self.output_space.shape, layout.values, layout.dim)
        # Parts count frames of their space: where those stand for several of pixels, no others fit.
        if self.input_space.shape.frames != self.shape.frames:
            self.encoder.any_frames = self.encoder.anchor = None
        if self.output_space.shape.frames != self.shape.frames:
            self.decoder.any_frames = None
        self.regularizers = [build(part) for part in config.regularizers]
        self._masked = layout.spec.prefix == "none"  # else the quantizer leaves out what is missing
        if self._masked:
            spec = layout.spec.model_copy(update={"prefix": self.decoder.prefix})
            layout = replace(layout, spec=spec)
        self.layout = layout
        self.check_counted()
        self._stored = layout.count if self.encoder.stored is None else self.encoder.stored
        if self._stored < layout.count and layout.spec.prefix not in ("token", "per_block"):
            raise ConfigError(
                f"encoder: it stores {self._stored} of {layout.count} latents, and this decoder "
                "cannot leave the others out; expected a decoder that serves prefixes "
                "(missing: mask_token or drop)"
            )
        optional = self.decoder.reads_null or any(h.optional for h in config.reading.values())
        known = (layout.count - self._stored, not lacks(self.quantizer, "neighbours"))
        check_all(self.regularizers, config.regularizers, self.spec(), optional, *known)
        self.lineage: Lineage = ()
        self._text_encoder: list[Any] = []  # in a list, so that it is no submodule

    # -- one pass -------------------------------------------------------------------------------

    def forward(
        self,
        batch: Batch,
        draws: Draws | None = None,
        condition: Condition | None = None,
        pixels: bool = True,
        in_space: bool = False,
    ) -> Reconstruction:
        """One training or evaluation pass over `batch.pixels` [B, 3, *sides] in 0..1.

        A decoder that samples sees the target at a sampled time in training, and samples from noise
        (seed 0, keyed by `batch.index`) without draws of its own.

        Args:
            pixels: False leaves the way back from the output space out, where no loss looks at it
                (proxy codes: another tokenizer's decoder would run for nothing).
            in_space: True gives the target in the output space too.
        """
        own = (draws or Draws()).part("input_space")
        batch = replace(batch, pixels=self.as_clips(batch.pixels))
        seen = self.input_space(batch.pixels, own) if batch.space is None else batch.space
        with of_weights(self.encoder):
            latents = self.encoder(seen, condition)
        quantized = self.quantize(latents, draws)
        values = quantized.values
        present = self.present(draws, len(values), values.device, latents.counts)
        if present is not None:  # a clip that is shorter than the config's has fewer values
            present = present[:, : values.shape[1]]
        target = batch.pixels if batch.target is None else batch.target
        samples, noisy, clean = self.sampling is not None, None, None
        drawn = (draws or Draws()).part("decoder")
        if in_space or drawn.time is not None:
            one = self.config.input_space == self.config.output_space  # a VAE would run twice
            clean = seen if one and batch.target is None else self.output_space(target)
        if draws is not None and draws.null is not None and self.decoder.reads_null:
            condition = replace(condition or Condition(), null=draws.null)
        condition = rates.of_target(batch, condition, self.decoder)
        if samples and drawn.time is None:
            estimate = self._sample(values, present, condition, batch.index, 0, None)
            decoded = Decoded(estimate, estimate)
        else:
            noisy = self.decoder.corrupt(clean, drawn) if samples else None
            decoded = self.reconstruct(values, present, condition, noisy)
        image = self.output_space.inverse(decoded.estimate) if pixels else None
        return Reconstruction(image, target, decoded, quantized, latents, draws, clean, noisy)

    def latents(
        self,
        pixels: Tensor,
        condition: Condition | None = None,
        draws: Draws | None = None,
        count: int | None = None,
    ) -> Latents:
        """pixels [B, 3, *sides] in 0..1 -> latents [B, N, D], differentiable.

        With `quantize` and `reconstruct` the steps of a training loop of one's own; `encode` and
        `decode` are the same steps without gradients. For a decoder that does not sample:

            tokenizer.train()
            optimizer = torch.optim.AdamW(tokenizer.parameters(), 1e-4)
            for images in batches:  # lists of paths, or of images of PIL
                pixels = tokenizer.preprocess(images)
                quantized = tokenizer.quantize(tokenizer.latents(pixels))
                decoded = tokenizer.reconstruct(quantized.values)
                output = tokenizer.output_space.inverse(decoded.estimate)
                loss = (output - pixels).square().mean() + sum(quantized.losses.values())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        Args:
            count: latents of each sample in the place of N, of an encoder that makes any number.
        """
        own = None if draws is None else draws.part("input_space")
        more = {} if count is None else {"count": count}
        with of_weights(self.encoder):
            return self.encoder(self.input_space(self.as_clips(pixels), own), condition, **more)

    def quantize(self, latents: Latents, draws: Draws | None = None) -> Quantized:
        """latents [B, N, D] -> values [B, M, D'] and indices [B, L, F].

        Gradients pass from the values to the latents as if nothing had been rounded
        (straight-through); `losses` hold what trains the codebook, to be added to one's own.
        """
        return self.quantizer(latents, draws)

    def reconstruct(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        noisy: Noisy | None = None,
    ) -> Decoded:
        """values [B, M, D'] -> the output space, differentiable and unclamped.

        `output_space.inverse(decoded.estimate)` are the pixels.

        Args:
            present: [B, M] bool, values that the decoder sees; None = all. noisy: what a decoder
                that samples is shown of the target (`decoder.corrupt`).
        """
        if condition is not None:
            self.decoder.check_sides(condition.sides, self.shape, self.output_space.shape)
        with of_weights(self.decoder):
            return self.decoder(values, present, condition, noisy)

    # -- what users call ------------------------------------------------------------------------

    def spec(self) -> TokenSpec:
        """The shape of this tokenizer's token sequences."""
        return self.layout.spec

    @torch.no_grad()
    def encode(
        self,
        pixels: Tensor,
        length: int | Sequence[int] | Tensor | None = None,
        condition: Condition | None = None,
        **goal: Any,
    ) -> Tokens:
        """pixels [B, 3, *sides] in 0..1 -> Tokens; `length` keeps a prefix of each sequence.

        Args:
            length: of all, or [B] of each ([B, S] of each block of each, where the spec's prefix
                is per_block). Where tokens are a set (`any_count`), the number of them.
            goal: instead of a length, what it must reach: target_psnr, max_perceptual, max_bytes
                and the other fields of `vistok.adaptive.Goal`. An image that misses it is named
                in a warning.
        Raises ValueError for another shape, type or range, and for a length the spec forbids.
        """
        if goal:
            from vistok.adaptive import Goal, encode

            if length is not None:
                raise InputError(f"length={length} and {', '.join(goal)}; give one of both")
            return encode(self, pixels, Goal(**goal), condition)
        pixels = self.as_clips(pixels)
        self.check_pixels(pixels)
        spec = self.spec() if self.frame_stride is None else self.spec_of(pixels.shape[2])
        count = self.count_of(length)
        length = None if count is not None else length
        for one in set(torch.as_tensor([] if length is None else length).flatten().tolist()):
            spec.check_length(one)
        weight = next(self.parameters())
        pixels = pixels.to(weight.device, torch.promote_types(weight.dtype, torch.float32))
        with evaluating(self):
            latents = self.latents(pixels, condition, count=count)
            tokens = self.tokens(self.quantizer.coded(latents))
        if latents.counts is not None:
            tokens = tokens.prefix(latents.counts)
        tokens = rates.sized(tokens, pixels, self.encoder.any_frames)
        return tokens if length is None else tokens.prefix(length)

    def tokens(self, quantized: Quantized) -> Tokens:
        """The tokens that are stored of a quantizer's output (an encoder may emit more)."""
        found = quantized.values if quantized.indices is None else quantized.indices
        spec, size = self.spec_with(found.shape[1])
        found = found[:, : spec.length]
        if quantized.indices is None:
            return Tokens(spec, values=found, size=size)
        return Tokens(spec, indices=found.to(Tokens.dtype(spec)), size=size)

    @torch.no_grad()
    def decode(
        self,
        tokens: Tokens | Tensor,
        condition: Condition | None = None,
        *,
        seed: int = 0,
        index: Tensor | None = None,
        sampling: Config | Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Tokens (whole or any prefix that the spec allows) -> pixels [B, 3, *sides] in 0..1.

        Args:
            tokens: Tokens, or a plain tensor of any integer type: ids [B, n] or [n] as
                `Tokens.ids` gives them, 0 .. spec().codebook_size - 1, of n positions, all of them
                or those of a prefix; or indices [B, L, F], one for each factor.
            condition: its `sides` ask for images of other sides, of a decoder that makes any.
            seed, index: key the noise of a decoder that samples; sample numbers [B], 0..B-1 if
                None. Deterministic decoders ignore them.
            sampling: settings of a decoder that samples, whole or as changes to its own.
        Raises ValueError for tokens of another spec, and for settings that the decoder lacks.
        """
        if not isinstance(tokens, Tokens):
            tokens = torch.as_tensor(tokens)
            made = Tokens.of if tokens.ndim == 3 else Tokens.from_ids
            tokens = made(self.spec(), tokens)
        tokens = self.own_tokens(tokens)
        condition = rates.of_tokens(tokens, condition, self.decoder)
        if condition is not None:
            self.decoder.check_sides(condition.sides, self.shape, self.output_space.shape)
        settings = self.settings(sampling)
        with evaluating(self):
            return self.pixels_of(tokens, condition, index, seed, settings)

    def pixels_of(
        self,
        tokens: Tokens,
        condition: Condition | None = None,
        index: Tensor | None = None,
        seed: int = 0,
        settings: Config | None = None,
    ) -> Tensor:
        """`decode` of tokens of this tokenizer's spec, without its checks and with gradients."""
        values = self.values(tokens)
        present = self._present_of(tokens, values)
        if self.frame_stride is None and not self.any_count:  # else there is any number of values
            values = self.pad(values)
        if settings is None:
            estimate = self.reconstruct(values, present, condition).estimate
        else:
            estimate = self._sample(values, present, condition, index, seed, settings)
        return self.output_space.inverse(estimate).clamp(0, 1)

    def values(self, tokens: Tokens) -> Tensor:
        """Inputs of the decoder, [B, M, D'] (fewer than M where an encoder stores fewer)."""
        device = next(self.parameters()).device
        if tokens.indices is None:
            return tokens.values.to(device)
        keep = None if tokens.keep is None else tokens.keep.to(device)
        return self.quantizer.lookup(tokens.indices.to(device).long(), keep)

    def pad(self, values: Tensor) -> Tensor:
        """values [B, m, D'] -> [B, M, D'] with zeros for those that no token stores."""
        return nn.functional.pad(values, (0, 0, 0, self.layout.count - values.shape[1]))

    def draw(self, index: Tensor, seed: int, progress: Progress) -> Draws:
        """Draws of a training step for samples `index` [B], from every regularizer and part."""
        draws, spec = Draws(), self.spec()
        for config, regularizer in zip(self.config.regularizers, self.regularizers, strict=True):
            rng = Rng(seed, config.kind, progress.step)
            draws = draws.join(regularizer.draw(spec, index, rng, progress), config.kind)
        rng = lambda name: Rng(seed, name, progress.step)
        sampled = {
            "input_space": self.input_space.draw(index, rng("input_space"), progress),
            "quantizer": self.quantizer.draw(self.layout, index, rng("quantizer"), progress),
            "decoder": self.decoder.draw(index, rng("decoder"), progress),
        }
        parts = {name: part for name, part in sampled.items() if part is not None}
        return draws.join(Draws(parts=parts))

    def part_parameters(self) -> dict[str, int]:
        """Parameters of each part; of a space only if it has some."""
        spaces = ("input_space", "output_space")
        names = ("encoder", "quantizer", "decoder", *spaces)
        counts = {name: sum(p.numel() for p in getattr(self, name).parameters()) for name in names}
        return {name: count for name, count in counts.items() if count or name not in spaces}

    def check_pixels(self, pixels: Tensor) -> None:
        """ValueError unless pixels are floats [B, 3, *sides] in 0..1; of a causal tokenizer T is
        any 1 + k x frame_stride."""
        check_pixels(pixels, self.shape_of(pixels))
