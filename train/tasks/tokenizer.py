"""Train a tokenizer: reconstruction, perceptual, adversarial and quantizer losses.

Stages are configs: `init` starts parts from a saved tokenizer, `freeze` keeps parts as they are,
`lr` slows parts down. Decoder fine-tuning and post-training are this task with these three.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torchvision.utils import make_grid

import vistok.losses  # noqa: F401  (registers the losses)
from vistok.conditioning import NO_TEXTS
from vistok.config import Config, ConfigError, PartOf
from vistok.config.registry import build, register
from vistok.core.draws import Draws
from vistok.core.records import Batch, Reconstruction
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.losses.adversarial import AdversarialLoss
from vistok.losses.reconstruction import ReconstructionConfig
from vistok.metrics.codebook import CodebookStats
from vistok.metrics.quality import PSNR
from vistok.runtime import distributed
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.train.collapse import CollapseConfig, UsageWindow
from vistok.train.tasks.base import Phase, Task, check_pictures
from vistok.train.tasks.stages import InitConfig, start_from
from vistok.train.tasks.teachers import load_teacher


class TokenizerTaskConfig(Config):
    kind: Literal["tokenizer"] = "tokenizer"
    tokenizer: TokenizerConfig
    losses: tuple[Annotated[Any, PartOf("loss")], ...] = (ReconstructionConfig(),)
    init: tuple[InitConfig, ...] = ()
    """Start parts from saved tokenizers: one, or a list, in order."""
    freeze: tuple[str, ...] = ()
    """Names of parts (or of anything inside: `encoder.patch_embed`) that do not train."""
    lr: dict[str, float] = Field(default_factory=dict)
    """Learning-rate factor of named parts."""
    collapse: CollapseConfig | None = CollapseConfig()
    """When to raise the alarm that the codebook is collapsing; null = never."""
    term_gradients_every: int = Field(default=500, ge=0)
    """Steps between looks at each loss term's gradient at the decoder's last layer; 0 = never."""

    @field_validator("init", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if value is None:
            return ()
        return (value,) if isinstance(value, dict | InitConfig) else value


@register("task", TokenizerTaskConfig)
class TokenizerTask(Task):
    averaged = ("tokenizer",)
    judged_by = ("psnr", 1)

    def __init__(self, config: TokenizerTaskConfig, data) -> None:
        check_pictures(data, "tokenizer")
        if data is not None and config.tokenizer.text is not None and not data.texts:
            raise ConfigError(NO_TEXTS)
        self.config = config
        self.tokenizer = Tokenizer(config.tokenizer)
        for init in config.init:
            start_from(self.tokenizer, init)
        _check_names(self.tokenizer, "freeze", config.freeze)
        _check_names(self.tokenizer, "lr", config.lr)
        for name, parameter in self.tokenizer.named_parameters():
            if any(_inside(name, part) for part in config.freeze):
                parameter.requires_grad_(False)
        self.losses = nn.ModuleList(build(loss) for loss in config.losses)
        self.helpers = (self.losses,)
        self._check_terms()
        self.teachers: dict[str, str] = {}  # name -> sha256
        for loss in self.losses:
            if loss.wants_teacher is not None:
                teacher, sha256 = load_teacher(loss.wants_teacher)
                self.teachers[loss.wants_teacher] = sha256
                loss.teach(teacher, sha256)
            loss.bind(self.tokenizer)
        discriminators = [loss for loss in self.losses if isinstance(loss, AdversarialLoss)]
        self.adversarial = discriminators[0] if discriminators else None
        last = self.tokenizer.decoder.last_layer
        if (
            self.adversarial is not None
            and self.adversarial.config.adaptive
            and not last.requires_grad
        ):
            raise ConfigError(
                "task.losses: adaptive=true balances at the decoder's last layer, which "
                "task.freeze keeps from training; set adaptive=false or freeze less"
            )
        # Losses on codes alone (proxy codes) leave the way back to pixels out.
        self.needs_pixels = any(loss.needs_pixels for loss in self.losses)
        self.modules = {"tokenizer": self.tokenizer}
        self.phases = (Phase("tokenizer", lr_factors=config.lr),)
        if self.adversarial is not None:
            self.modules["discriminator"] = self.adversarial.discriminator
            lr = self.adversarial.config.lr
            self.phases += (
                Phase("discriminator", start=self.adversarial.discriminator_start, lr=lr),
            )
        self._decoded: list[tuple[Tensor, Tensor]] = []  # (real, fake) of a step's micro-batches
        self.window: UsageWindow | None = None
        self._usage: float | None = None  # of a window that this step ended
        if config.collapse is not None and self.tokenizer.spec().vocab:
            self.window = UsageWindow(self.tokenizer.spec())
            self.kept = {"window": self.window}

    def _check_terms(self) -> None:
        """ConfigError if two losses give a term of one name: the first would be lost."""
        seen = set(self.tokenizer.quantizer.loss_weights)
        for loss, part in zip(self.losses, self.config.losses, strict=True):
            for name in loss.weights(Progress(0, 1)):
                if name in seen:
                    raise ConfigError(
                        f"task.losses: '{part.kind}' gives the term '{name}', which another loss "
                        "gives already; keep one of them"
                    )
                seen.add(name)

    @property
    def wants_data(self) -> bool:
        return self.tokenizer.quantizer.wants_data

    def whole(self, name: str) -> set[nn.Parameter]:
        if name != "tokenizer":
            return set()
        return {*self.tokenizer.quantizer.parameters(), self.tokenizer.decoder.last_layer}

    def draw(self, index: Tensor, seed: int, progress: Progress) -> Draws:
        return self.tokenizer.draw(index, seed, progress)

    @torch.no_grad()
    def prepare(self, batch: Batch, rng: Rng) -> None:
        latents = self.tokenizer.latents(batch.pixels, self.tokenizer.condition_of(batch))
        everyone = replace(latents, values=distributed.gather(latents.values))
        self.tokenizer.quantizer.initialize(everyone, rng.child("codebook"))

    def step(self, phase: Phase, batch: Batch, draws: Draws, progress: Progress) -> dict:
        if phase.module == "discriminator":
            loss, logged = self.adversarial.discriminate(
                self.modules["discriminator"], *self._decoded.pop(0)
            )
            return {"loss": loss, **logged}
        for part in self.config.freeze:
            # Its dropout and its statistics (usage, EMA codebook) rest too.
            self.tokenizer.get_submodule(part).eval()
        condition = self.tokenizer.condition_of(batch, draws)
        reconstruction = self.modules["tokenizer"](batch, draws, condition, self.needs_pixels)
        if self.adversarial is not None and progress.step >= self.adversarial.discriminator_start:
            self._decoded.append((reconstruction.target, reconstruction.pixels.detach()))
        self.tokenizer.quantizer.remember(reconstruction.quantized)
        if self.window is not None:
            self.window.add(reconstruction.quantized.indices)
        return self._weigh(reconstruction, batch, progress)

    def _weigh(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        """All terms, and "loss", their weighted sum."""
        terms = dict(reconstruction.quantized.losses)
        weights = dict(self.tokenizer.quantizer.loss_weights)
        for loss in self.losses:
            terms.update(loss(reconstruction, batch, progress))
            weights.update(loss.weights(progress))
        zero = reconstruction.target.new_zeros(())
        every = self.config.term_gradients_every
        gradients = {}
        if every and progress.step % every == 0:
            weighed = {n: w * terms[n] for n, w in weights.items() if n in terms}
            gradients = self._term_gradients(weighed)
        total = sum(
            (w * terms[n] for n, w in weights.items() if n in terms and n != "adversarial"), zero
        )
        if "adversarial" in terms:
            factor = self.adversarial.balance(
                total, terms["adversarial"], self.tokenizer.decoder.last_layer
            )
            terms["adaptive_weight"] = factor
            total = total + weights["adversarial"] * factor * terms["adversarial"]
        return {"loss": total, **terms, **gradients}

    def _term_gradients(self, weighed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Norm of each weighed term's gradient at the decoder's last layer: who pulls how hard.

        The GAN's is taken before the adaptive weight.
        """
        last = self.tokenizer.decoder.last_layer
        if not last.requires_grad:
            return {}
        norms = {}
        for name, term in weighed.items():
            if not term.requires_grad:
                continue
            grad = torch.autograd.grad(term, last, retain_graph=True, allow_unused=True)[0]
            if grad is not None:  # a quantizer's losses do not reach the decoder
                norms[f"last_layer_grad/{name}"] = distributed.mean(grad).norm()
        return norms

    @torch.no_grad()
    def after_step(self, rng: Rng, progress: Progress) -> dict[str, float | Tensor]:
        self._decoded.clear()
        if self.adversarial is not None:
            self.adversarial.after_step()
        events = self.tokenizer.quantizer.after_step(rng.child("codebook"))
        if self.window is not None and (progress.step + 1) % self.config.collapse.steps == 0:
            self.window.share()
            events["window_usage"] = self._usage = self.window.usage()
            self.window.begin()
        return events

    @torch.no_grad()
    def forget(self) -> None:
        self._decoded.clear()
        if self.adversarial is not None:
            self.adversarial.forget()
        self.tokenizer.quantizer.forget()

    def alarms(self, progress: Progress) -> list[dict]:
        """The codebook's usage over a window that has just ended, if it is too low."""
        usage, self._usage = self._usage, None
        collapse = self.config.collapse
        if usage is None or usage >= collapse.below:
            return []
        text = (
            f"codebook usage {usage:.1%} over the last {collapse.steps} steps, below "
            f"{collapse.below:.0%}: the codebook is collapsing; {self.tokenizer.quantizer.remedy}"
        )
        return [{"alarm": "collapse", "usage": usage, "text": text}]

    def share(self) -> None:
        if self.window is not None:
            self.window.share()

    @torch.no_grad()
    def validate(
        self, batches: Iterable[Batch], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """PSNR (pooled squared error) at each evaluated length, codebook usage and entropy."""
        tokenizer = modules["tokenizer"].eval()
        spec = tokenizer.spec()
        device = next(tokenizer.parameters()).device  # where processes can add them up
        psnr = {length: PSNR().to(device) for length in spec.eval_lengths}
        codes = CodebookStats(spec).to(device) if spec.vocab else None
        for batch in batches:
            condition = self.tokenizer.condition_of(batch)
            tokens = tokenizer.encode(batch.pixels, condition=condition)
            if codes is not None:
                codes.update(tokens.indices)
            for length, metric in psnr.items():
                cut = tokens if length == spec.max_prefix else tokens.prefix(length)
                metric.update(tokenizer.decode(cut, condition), batch.pixels)
        results = {
            "psnr" if length == spec.max_prefix else f"psnr@{length}": metric.compute().pooled
            for length, metric in psnr.items()
        }
        if codes is not None:
            use = codes.compute()
            shares, bits = use.factor_usage, use.factor_entropy
            results["codebook_usage"] = (
                sum(shares) / len(shares) if use.usage is None else use.usage
            )
            results["codebook_entropy"] = sum(bits) if use.entropy is None else use.entropy
            results["slot_redundancy"] = use.redundancy
        return results

    @torch.no_grad()
    def pictures(self, batch: Batch, modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Rows: originals, then reconstructions from the longest prefix to the shortest."""
        tokenizer = modules["tokenizer"].eval()
        pixels, condition = batch.pixels[:8], self.tokenizer.condition_of(batch)
        if condition is not None:
            condition = condition.select(slice(len(pixels)))
        tokens = tokenizer.encode(pixels, condition=condition)
        spec = tokenizer.spec()
        rows = [pixels]
        for length in reversed(spec.eval_lengths):
            cut = tokens if length == spec.max_prefix else tokens.prefix(length)
            rows.append(tokenizer.decode(cut, condition))
        return {"reconstructions": make_grid(torch.cat(rows).float().cpu(), nrow=len(pixels))}

    def export(self, folder: Path, modules: Mapping[str, nn.Module]) -> None:
        modules["tokenizer"].save_pretrained(folder)

    def record(self) -> dict[str, str]:
        facts = {f"teacher {name} (sha256)": sha256 for name, sha256 in self.teachers.items()}
        if self.config.tokenizer.text is not None:
            encoder = self.tokenizer.text_encoder
            facts[f"text encoder {encoder.name} (sha256)"] = encoder.sha256
        return facts

    def summary(self) -> dict[str, object]:
        spec = self.tokenizer.spec()
        height, width = self.tokenizer.shape.image_size
        parts = self.tokenizer.part_parameters()
        facts = {f"{name} parameters": f"{count:,}" for name, count in parts.items()}
        if self.adversarial is not None:
            count = sum(p.numel() for p in self.adversarial.discriminator.parameters())
            facts["discriminator parameters"] = f"{count:,}"
        for name, sha256 in self.teachers.items():
            facts[f"teacher {name}"] = f"sha256 {sha256}"
        return facts | {
            "tokens/image": spec.length,
            "bits/image": spec.bits,
            "bpp": f"{spec.bits / (height * width):.4f}",
        }


def _inside(name: str, part: str) -> bool:
    return f"{name}.".startswith(f"{part}.")


def _check_names(tokenizer: Tokenizer, key: str, parts: Iterable[str]) -> None:
    """Every name must be that of a part, or of a module inside one."""
    modules = dict(tokenizer.named_modules())
    for part in parts:
        if not part or part not in modules:
            raise ConfigError(
                f"task.{key}: '{part}' names no part; expected encoder, quantizer, decoder or a "
                "module inside one, such as encoder.patch_embed"
            )
