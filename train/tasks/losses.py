"""The losses of a tokenizer together: terms, weights, networks and phases. Knows none by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vistok.config import Config, ConfigError
from vistok.config.registry import build
from vistok.core.draws import Draws, PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Batch, Reconstruction
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.frozen.network import Frozen
from vistok.losses.base import Loss
from vistok.runtime import distributed
from vistok.tokenizer import Tokenizer
from vistok.train.tasks.base import Outcome, Phase
from vistok.train.tasks.teachers import load_teacher


class Losses(nn.Module):
    """The list `task.losses`, bound to a tokenizer.

    Args:
        term_gradients_every: steps between two looks at each term's gradient; 0 = never.

    ConfigError for terms or networks of one name, and for an adaptive weight at a frozen layer.
    """

    def __init__(
        self, configs: Sequence[Config], tokenizer: Tokenizer, term_gradients_every: int
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(build(config) for config in configs)
        self.term_gradients_every = term_gradients_every
        self._tokenizer = [tokenizer]  # in a list: it is no part of this module
        self._check_terms(configs)
        self.teachers: dict[str, str] = {}
        """Names of the teachers and the sha256 of their tensors."""
        for loss in self.parts:
            if loss.wants_teacher is not None:
                teacher, sha256 = load_teacher(loss.wants_teacher)
                self.teachers[loss.wants_teacher] = sha256
                loss.teach(teacher, sha256)
            loss.bind(tokenizer)
        if any(loss.uses_last_layer for loss in self.parts) and not self._last.requires_grad:
            raise ConfigError(
                "task.losses: adaptive=true balances at the decoder's last layer, which "
                "task.freeze keeps from training; set adaptive=false or freeze less"
            )
        # Losses on codes alone (proxy codes) leave the way back to pixels out.
        self.needs_pixels = any(loss.needs_pixels for loss in self.parts)
        self.needs_target_in_space = any(loss.needs_target_in_space for loss in self.parts)
        self.networks: dict[str, nn.Module] = {}
        """Networks that losses train, by the names of their checkpoint files."""
        self.beside: tuple[str, ...] = ()
        """Names of those that train in the tokenizer's phase."""
        self.phases: tuple[Phase, ...] = ()
        """The phases of the others."""
        self._owners: dict[str, Loss] = {}  # by name of a phase's network
        for loss, config in zip(self.parts, configs, strict=True):
            self._collect(loss, config.kind)

    @property
    def borrowed(self) -> tuple[nn.Parameter, ...]:
        """Parameters of the tokenizer that losses use outside of its forward pass."""
        return tuple(p for loss in self.parts for p in loss.borrowed)

    @property
    def frozen(self) -> dict[str, str]:
        """The sha256 of frozen networks that a run's record names, by LOSS.NETWORK.

        Perceptual networks are not among them."""
        return {
            f"{loss.key}.{part.name}": part.sha256
            for loss in self.parts
            for part in loss.modules()
            if isinstance(part, Frozen) and part.recorded
        }

    @property
    def _last(self) -> nn.Parameter:
        return self._tokenizer[0].decoder.last_layer

    def _check_terms(self, configs: Sequence[Config]) -> None:
        """ConfigError if two losses give a term of one name: the first would be lost."""
        seen = set(self._tokenizer[0].quantizer.loss_weights)
        for loss, config in zip(self.parts, configs, strict=True):
            for name in self._weights_of(loss, Progress(0, 1)):
                if name in seen:
                    raise ConfigError(
                        f"task.losses: '{config.kind}' gives the term '{name}', which another "
                        "loss gives already; keep one of them, or give one a `name`"
                    )
                seen.add(name)

    def _collect(self, loss: Loss, kind: str) -> None:
        """File the networks that a loss trains."""
        for attribute in loss.trained:
            self.beside += (self._file(loss, attribute, kind),)
        known = {id(p) for name in loss.trained for p in getattr(loss, name).parameters()}
        if loss.phase is not None:
            own = loss.phase
            name = self._file(loss, own.network, kind)
            self.phases += (Phase(name, every=own.every, start=own.start, lr=own.lr),)
            self._owners[name] = loss
            known |= {id(p) for p in getattr(loss, own.network).parameters()}
        for name, parameter in loss.named_parameters():
            if parameter.requires_grad and id(parameter) not in known:
                raise InputError(
                    f"{type(loss).__name__}: parameter {name} asks for a gradient, but nothing "
                    "trains it; name its network in `trained` or `phase`, or freeze it"
                )

    def _file(self, loss: Loss, attribute: str, kind: str) -> str:
        name = f"{loss.prefix}{attribute}"
        if name in self.networks or name == "tokenizer":
            raise ConfigError(
                f"task.losses: '{kind}' trains a network '{name}', which is another's name "
                "already; give one of the losses a `name`"
            )
        self.networks[name] = getattr(loss, attribute)
        return name

    def draw(self, index: Tensor, seed: int, progress: Progress) -> Draws:
        """Random draws of the losses that sample, each keyed by its own name."""
        parts: dict[str, PartDraws] = {}
        for loss in self.parts:
            name = f"loss.{loss.key}"
            sampled = loss.draw(index, Rng(seed, name, progress.step), progress)
            if sampled is not None and name in parts:
                raise ConfigError(
                    f"task.losses: two losses sample as '{loss.key}'; give one of them a `name`"
                )
            if sampled is not None:
                parts[name] = sampled
        return Draws(parts=parts)

    # -- one step -------------------------------------------------------------------------------

    def terms(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        """All terms of the tokenizer's phase by name, and "loss", their weighted sum."""
        quantizer = self._tokenizer[0].quantizer
        terms = dict(reconstruction.quantized.losses)
        weights = dict(quantizer.weights_at(progress))
        for loss in self.parts:
            given = loss(reconstruction, batch, progress)
            terms.update({f"{loss.prefix}{name}": term for name, term in given.items()})
            weights.update(self._weights_of(loss, progress))
        zero = reconstruction.quantized.values.new_zeros(())
        every = self.term_gradients_every
        gradients = {}
        if every and progress.step % every == 0:
            weighed = {n: w * terms[n] for n, w in weights.items() if n in terms}
            gradients = self._term_gradients(weighed)
        balanced = {
            f"{loss.prefix}{loss.balanced}": loss
            for loss in self.parts
            if loss.balanced is not None and f"{loss.prefix}{loss.balanced}" in terms
        }
        others = sum(
            (w * terms[n] for n, w in weights.items() if n in terms and n not in balanced), zero
        )
        total = others
        for name, loss in balanced.items():
            factor = loss.balance(others, terms[name], self._last)
            terms[f"{loss.prefix}adaptive_weight"] = factor
            total = total + weights[name] * factor * terms[name]
        if torch.is_grad_enabled() and not total.requires_grad:
            raise ConfigError(
                f"task.losses: no term has a gradient at step {progress.step + 1}, so that nothing "
                "can learn; give a loss that counts from the first step, such as {kind: "
                "reconstruction}, or freeze less"
            )
        return {"loss": total, **terms, **gradients}

    def _weights_of(self, loss: Loss, progress: Progress) -> dict[str, float]:
        return {f"{loss.prefix}{name}": w for name, w in loss.weights(progress).items()}

    def _term_gradients(self, weighed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Norm of each weighted term's gradient at the decoder's last layer.

        Those of balanced terms are taken before the adaptive weight.
        """
        last = self._last
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

    def hand_on(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Any]:
        """Records of this micro-batch for the phases that have started, by their network's name.

        Also for those that rest in this step: a plan of costs asks for one step of each.
        """
        return {
            phase.module: self._owners[phase.module].hand_on(reconstruction, batch, progress)
            for phase in self.phases
            if progress.step >= phase.start
        }

    def own_step(
        self,
        phase: Phase,
        network: nn.Module,
        handed: Any,
        batch: Batch,
        draws: Draws,
        progress: Progress,
    ) -> Outcome:
        """The phase of a loss's own network; arguments as in `Loss.step`."""
        loss = self._owners[phase.module]
        own = draws.part(f"loss.{loss.key}")
        scalars = loss.step(network, handed, batch, own, progress)
        return Outcome({n if n == "loss" else f"{loss.prefix}{n}": v for n, v in scalars.items()})

    def after_step(self) -> None:
        """Move the losses' running statistics, after all parameters moved."""
        for loss in self.parts:
            loss.after_step()

    def forget(self) -> None:
        """The step was skipped."""
        for loss in self.parts:
            loss.forget()
