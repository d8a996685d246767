"""Diffusion over bits (Instella-T2I, arXiv 2506.21022).

At time t in 0..1 a bit is itself with probability 1 - t and a fair coin else:
x_t ~ Bernoulli(x0 (1 - t) + t / 2). All positions are predicted at once from x_t, t and the
condition; target "epsilon" is the logit o of "this bit of x_t was flipped", so the logit of
x0 = 1 is -o where x_t = 1 and o where x_t = 0; target "x" is that logit itself. Loss: binary
cross-entropy against x0. Sampling starts from fair coins and goes through the times
(1 - i / S)**rho.
The vector of a time, plus that of a class or pooled features, modulates every block and the norm
before the head. Plain text stands in front of the positions; text of several layers is read inside
the blocks.
Letters: B samples, L positions, C bits of a position, W width, M text positions, S steps, R rows.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config.registry import register
from vistok.core.draws import Draws, PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.generators.base import Generator, GeneratorConfig
from vistok.generators.conditioning import ConditionTokens, LayerTexts
from vistok.generators.embedding import BitEmbedding
from vistok.generators.guidance import GuidanceConfig, guide
from vistok.generators.sampling import COLDEST
from vistok.layers.modulation import Modulation, modulate
from vistok.layers.norms import make_norm
from vistok.layers.text_transformer import TextTransformer
from vistok.layers.transformer import TransformerConfig, init_weights
from vistok.tokens import Tokens, TokenSpec

_EVALUATED = 8  # times of `evaluate`: the middles of equal parts of 0..1


class BitDiffusionSampling(GuidanceConfig):
    """Sampling settings of diffusion over bits."""

    steps: int = Field(default=20, ge=1, le=10_000)
    """S, evaluations of the network (two each with guidance)."""
    rho: float = Field(default=1.0, gt=0, le=100, allow_inf_nan=False)
    """Exponent of the times (1 - i / S)**rho: above 1, more steps at small times."""
    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Divisor of the logits; 0 = the most likely bits."""
    protocol: Literal["renoise", "posterior"] = "renoise"
    """Next bits: renoise, the estimate of x0 with the noise of the next time (the original's
    protocol 1); posterior, those probabilities times the likelihood of one step from the present
    bits (protocol 2)."""

    @model_validator(mode="after")
    def _divides(self) -> BitDiffusionSampling:
        if 0 < self.temperature < COLDEST:
            raise InputError(
                f"temperature={self.temperature}: expected 0 (most likely bits) or {COLDEST:g} "
                "or more"
            )
        return self


class BitDiffusionConfig(GeneratorConfig):
    kind: Literal["bit_diffusion"] = "bit_diffusion"
    transformer: TransformerConfig = TransformerConfig(
        mlp="gelu_tanh", norm_affine=False, qk_norm=True, qkv_bias=False, out_bias=False
    )
    target: Literal["epsilon", "x"] = "epsilon"
    """The network's output: logits of flips, or of the clean bits."""
    times: Literal["sigmoid_normal", "uniform"] = "sigmoid_normal"
    """Distribution of training times: sigmoid of a standard normal number, or uniform."""
    bit_values: Literal["signs", "bits"] = "bits"
    """Values of bits in the embedding: signs, -1 and 1; bits, 0 and 1 (Instella-T2I)."""
    sampling: BitDiffusionSampling = BitDiffusionSampling()
    """Default settings of sampling; they are saved with the model."""

    @classmethod
    def tiny(cls) -> BitDiffusionConfig:
        return cls(
            transformer=TransformerConfig.tiny(), sampling=BitDiffusionSampling(steps=4, rho=1.5)
        )

    @model_validator(mode="after")
    def _not_modulated(self) -> BitDiffusionConfig:
        if self.transformer.modulation is not None:
            raise InputError(
                f"transformer.modulation={self.transformer.modulation}: the time's vector "
                "modulates, whose width is that of the transformer; leave it out"
            )
        return self

    @property
    def trunk(self) -> TransformerConfig:
        """The transformer with its modulation."""
        return self.transformer.model_copy(update={"modulation": self.transformer.width})


@register("generator", BitDiffusionConfig)
class BitDiffusion(Generator):
    """Predicts clean bits of all positions from noisy ones.

    Tokens whose vocabularies are powers of two are taken as their bits, lowest first.
    """

    metrics = ("bit_nats", "bit_accuracy")
    judged_by = ("bit_nats", -1)

    def __init__(
        self, config: BitDiffusionConfig, spec: TokenSpec, codes: nn.Module | None = None
    ) -> None:
        super().__init__(config, spec)
        self.inner = _bits_of(spec)
        width, text = config.transformer.width, config.condition.text
        bits = len(self.inner.vocab)
        layered = text is not None and text.layers is not None
        self.texts = LayerTexts(text) if layered else None
        own = config.condition
        # Without anything to read there is no vector for "nothing" either.
        reads = own.classes or own.pooled or (text is not None and not layered)
        self.condition = ConditionTokens(own, width) if reads else None
        front = self.condition.count - 1 if reads else 0
        self.embed = BitEmbedding(bits, width, config.bit_values == "signs")
        self.time = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        given = {"text": text.dim, "layers": text.layers} if layered else {"text": None}
        self.transformer = TextTransformer(config.trunk, front + spec.length, **given)
        self.transformer.norm = nn.Identity()  # the modulated norm below stands in its place
        eps = config.transformer.norm_eps
        self.norm_head = make_norm(config.transformer.norm, width, eps, affine=False)
        self.modulation_head = Modulation(width, width, 2)
        init_weights(self, config.transformer)
        if reads:
            nn.init.normal_(self.condition.label.weight, std=0.02)
        self.head = nn.Linear(width, bits)
        nn.init.zeros_(self.head.weight)  # the first loss is log 2 exactly
        nn.init.zeros_(self.head.bias)

    @classmethod
    def unable(cls, config: BitDiffusionConfig, spec: TokenSpec) -> str | None:
        if not spec.vocab:
            return super().unable(config, spec)
        wrong = [size for size in spec.vocab if size < 2 or size & (size - 1)]
        if wrong:
            return f"models bits, and {wrong[0]} of vocab={_short(spec.vocab)} is no power of two"
        return None

    # -- the network ----------------------------------------------------------------------------

    def run(
        self,
        x: Tensor,
        time: Tensor,
        condition: Condition,
        null: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Output [B, L, C] fp32 for noisy bits x [B, L, C] at the times [B].

        Args:
            null: [B] bool, samples without their condition.
            kept: [B, L] bool, positions that are there; None = all.
        """
        batch = len(x)
        vector, x = self.time(time[:, None].to(self.embed.weight.dtype)), self.embed(x)
        if self.condition is not None:
            tokens = self.condition(condition, batch, null)
            vector = vector + tokens[:, -1]
            x = torch.cat([tokens[:, :-1].to(x.dtype), x], dim=1)
        if kept is not None:
            kept = F.pad(kept, (x.shape[1] - self.spec.length, 0), value=True)
        text = None if self.texts is None else self.texts(condition, batch, null)
        x = self.transformer(x, text=text, seen=kept, vector=vector)
        shift, scale = self.modulation_head(vector)
        hidden = modulate(self.norm_head(x), shift, scale)
        return self.head(hidden[:, -self.spec.length :]).float()

    def clean_logits(self, output: Tensor, x: Tensor) -> Tensor:
        """Logits of "the clean bit is 1" [B, L, C] of the network's output for noisy bits x."""
        return output if self.config.target == "x" else torch.where(x > 0.5, -output, output)

    # -- training -------------------------------------------------------------------------------

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        """Draws of a step: `null`, a time [B], and uniform numbers [B, L, C] for the noise."""
        if self.config.times == "uniform":
            time = rng.child("time").uniform(index)
        else:
            time = rng.child("time").normal(index).sigmoid()
        uniform = rng.child("noise").uniform(index, (self.spec.length, len(self.inner.vocab)))
        own = Draws(parts={"generator": PartDraws(time=time, uniform=uniform)})
        return super().draw(index, rng, progress).join(own)

    def forward(
        self, tokens: Tokens, condition: Condition, draws: Draws | None = None
    ) -> dict[str, Tensor]:
        """loss: nats per bit; bit_accuracy: share of right bits. Without draws, at the times of
        `evaluate`."""
        if draws is None:
            found = self.evaluate(tokens, condition)
            sums = {name: total / count for name, (total, count) in found.items()}
            return {"loss": sums["bit_nats"], "bit_accuracy": sums["bit_accuracy"]}
        own = draws.part("generator")
        nats, right, count = self._sums(
            tokens, condition, own.time, own.uniform, draws.null, tokens.keep is not None
        )
        # Over all bits, cut ones too: a mean over processes is then that of the whole batch.
        every = len(tokens) * self.spec.length * len(self.inner.vocab)
        return {"loss": nats / every, "bit_accuracy": right.detach() / count}

    @torch.no_grad()
    def evaluate(
        self, tokens: Tokens, condition: Condition
    ) -> dict[str, tuple[Tensor | float, int]]:
        """bit_nats, bit_accuracy: over noise at eight times, the same for every sample."""
        device, batch = self.head.weight.device, len(tokens)
        index, shape = torch.zeros(batch), (self.spec.length, len(self.inner.vocab))
        total, correct = 0.0, 0.0
        for i in range(_EVALUATED):
            time = torch.full((batch,), (i + 0.5) / _EVALUATED, device=device)
            noise = Rng(0, "bit_diffusion/evaluate", i).uniform(index, shape, per="batch")
            nats, right, _ = self._sums(
                tokens, condition, time, noise.to(device), None, tokens.keep is not None
            )
            total, correct = total + nats.double(), correct + right.double()
        count = int(tokens.kept().sum()) * shape[1] * _EVALUATED
        return {"bit_nats": (total, count), "bit_accuracy": (correct, count)}

    def _sums(
        self,
        tokens: Tokens,
        condition: Condition,
        time: Tensor,
        uniform: Tensor,
        null: Tensor | None,
        cut: bool,
    ) -> tuple[Tensor, Tensor, Tensor | int]:
        """(nats, right bits, bits), summed over what is kept."""
        bits = self.regrouped(tokens).indices.to(self.head.weight.device).float()
        kept = tokens.kept() if cut else None
        x = (uniform < noise_probability(bits, time)).float()
        logits = self.clean_logits(self.run(x, time, condition, null, kept), x)
        nats = F.binary_cross_entropy_with_logits(logits, bits, reduction="none")
        right = ((logits > 0) == (bits > 0.5)).float()
        if kept is None:
            return nats.sum(), right.sum(), nats.numel()
        weight = kept[..., None].to(nats)
        return (nats * weight).sum(), (right * weight).sum(), weight.sum() * bits.shape[-1]

    # -- sampling -------------------------------------------------------------------------------

    def generate(
        self, condition: Condition, index: Tensor, seed: int, positions: int, settings: Any
    ) -> Tokens:
        shape = (self.spec.length, len(self.inner.vocab))
        device = self.head.weight.device
        uniform = lambda step: Rng(seed, "sampling", step).uniform(index, shape).to(device)
        x = (uniform(0) < 0.5).float()
        for i in range(settings.steps):
            last = i == settings.steps - 1
            p = self.next_probability(x, i, condition, settings)
            x = (p > 0.5 if last else uniform(i + 1) < p).float()
        return self.tokens_of(x)

    def next_probability(
        self, x: Tensor, step: int, condition: Condition, settings: BitDiffusionSampling
    ) -> Tensor:
        """Probability [B, L, C] of each bit after step 0..S-1 that starts at the bits x; after the
        last, of the clean bits."""
        count, samples = settings.steps, len(x)
        now, then = ((1.0 - i / count) ** settings.rho for i in (step, step + 1))
        time = torch.full((samples,), now, device=x.device)
        output = self.run(x, time, condition)
        if settings.guided:
            free = self.run(x, time, Condition())
            scale = settings.scale_at(step / count)
            output = guide(torch.cat([output, free]), scale, samples)
        logits = self.clean_logits(output, x)
        if settings.temperature == 0:
            p = (logits > 0).float()
        else:
            p = torch.sigmoid(logits / settings.temperature)
        if step == count - 1:
            return p
        one = p * (1 - then) + 0.5 * then
        if settings.protocol == "renoise":
            return one
        # The original's likelihood of a step: (1 - step) x + step / 2, of bits 1 and 0.
        on, off = (bit - (now - then) * (bit - 0.5) for bit in (x, 1 - x))
        on, off = on * one, off * ((1 - p) * (1 - then) + 0.5 * then)
        return on / (on + off)

    # -- pieces ---------------------------------------------------------------------------------

    def summary(self) -> dict[str, object]:
        return {**super().summary(), "bits per token": len(self.inner.vocab)}


def noise_probability(bits: Tensor, time: Tensor) -> Tensor:
    """Probability of a 1 in x_t: bits [B, L, C] 0..1, times [B]."""
    time = time[:, None, None]
    return bits * (1 - time) + 0.5 * time


def _bits_of(spec: TokenSpec) -> TokenSpec:
    """The tokens as bits."""
    return spec if set(spec.vocab) == {2} else spec.regroup((2,) * sum(spec.factor_bits))


def _short(vocab: tuple[int, ...]) -> str:
    """A vocabulary in few words."""
    return str(vocab) if len(vocab) <= 8 else f"({', '.join(map(str, vocab[:4]))}, ...)"
