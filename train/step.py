"""The training step: the gradients of all phases, then all updates.

In between, the loop asks whether all gradients are finite; `eval` times the step without that.
Every phase looks at the weights from before the step; what a phase hands on to later ones lives
until the step is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vistok.core.draws import Draws
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.core.schedules import Progress, dropped, warmup_cosine
from vistok.layers.dropout import keyed, layers_of
from vistok.train.config import TrainConfig
from vistok.train.optim.gradients import norms_and_clip
from vistok.train.optim.optimizers import optimizers_of
from vistok.train.parallel.alone import Alone
from vistok.train.parallel.wrap import Parallel
from vistok.train.tasks.base import Phase, Task


@dataclass(frozen=True)
class PhaseGradients:
    """The gradients of one phase in a step, before its modules move."""

    phase: Phase
    micro_batches: Sequence[tuple[Mapping[str, Tensor], Tensor]]
    """(scalars by name, without graphs; the indices of their samples) each."""
    norms: Mapping[str, Tensor]
    """Gradient norms by part, as `gradients.norms_and_clip` gives them."""

    @property
    def module(self) -> str:
        """Name of the module that the phase is named by."""
        return self.phase.module

    def is_finite(self) -> Tensor:
        """Scalar bool on the device, of this process."""
        seen = [scalars["loss"].float() for scalars, _ in self.micro_batches]
        return torch.isfinite(torch.stack([*seen, self.norms[""]])).all()


class TrainingStep:
    """
    Args:
        modules: the task's bare modules. parallel: how they are wrapped.

    `.optimizers`: by name of module, once `prepare` was called.
    """

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        modules: Mapping[str, nn.Module],
        parallel: Parallel | Alone,
    ) -> None:
        self.config, self.task, self.modules, self.parallel = config, task, modules, parallel
        self.optimizers: dict[str, list[torch.optim.Optimizer]] = {}
        self._dropout = layers_of(modules)

    def prepare(self) -> None:
        """Wrap the modules in `task.modules` and make their optimizers; they hold their state."""
        task, first = self.task, self.task.phases[0]
        for phase in task.phases:
            task.modules[phase.module] = self.parallel.wrap(
                self.modules[phase.module], shard=phase is first, whole=task.whole(phase.module)
            )
            for name in phase.beside:
                self.parallel.join(task.modules[phase.module], self.modules[name])
            self.optimizers |= optimizers_of(self.config.optimizer, phase, self.modules)

    def gradients(self, batch: Batch, draws: Draws, progress: Progress) -> list[PhaseGradients]:
        """The gradients of every phase that is due, clipped; nothing moves."""
        for module in self.modules.values():
            module.train()
        size = len(batch.index) // self.config.accumulate
        cuts = [slice(i * size, (i + 1) * size) for i in range(self.config.accumulate)]
        # Handed from phase to phase, micro-batch by micro-batch.
        earlier: list[dict[str, Any]] = [{} for _ in cuts]
        due = [phase for phase in self.task.phases if phase.due(progress.step)]
        return [self._phase(phase, batch, draws, progress, cuts, earlier) for phase in due]

    def _phase(
        self,
        phase: Phase,
        batch: Batch,
        draws: Draws,
        progress: Progress,
        cuts: Sequence[slice],
        earlier: Sequence[dict[str, Any]],
    ) -> PhaseGradients:
        """Micro-batches of one phase, their gradients, and clipping."""
        wrapped, count = self.task.modules[phase.module], len(cuts)
        device = next(self.modules[phase.module].parameters()).device
        rng = Rng(self.config.seed, "dropout", progress.step)
        seen = []
        for i, cut in enumerate(cuts):
            part = batch if count == 1 else batch.select(cut)
            with self.parallel.micro_batch(wrapped, last=i == count - 1):
                dropout = keyed(self._dropout, rng, part.index, device)
                with dropout, self.parallel.autocast():
                    sampled = draws.select(cut)
                    outcome = self.task.step(phase, part, sampled, progress, earlier[i])
                self.parallel.backward(outcome.loss / count)
            earlier[i].update(outcome.handed)
            # Without their graphs, which would live on until everything has moved.
            scalars = {name: value.detach() for name, value in outcome.scalars.items()}
            seen.append((scalars, part.index))
        self.parallel.finish(wrapped)
        beside = {name: self.modules[name] for name in phase.beside}
        norms = norms_and_clip(self.modules[phase.module], self.config.clip, beside)
        return PhaseGradients(phase, seen, norms)

    def move(self, found: PhaseGradients, progress: Progress) -> float:
        """One step of the optimizers of a phase; the learning rate of its first group."""
        # Set, not scheduled: a rate is a function of the step alone, so it needs no state.
        config = self.config
        rate = warmup_cosine(
            progress.step, config.steps, config.warmup, config.final_lr, config.hold
        )
        rate *= dropped(progress.step, config.steps, config.lr_drops, config.lr_drop)
        for optimizer in self._moved(found):
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * rate
            optimizer.step()
        return self.optimizers[found.module][0].param_groups[0]["lr"]

    def clear(self, found: PhaseGradients) -> None:
        """Drop the gradients of a phase."""
        for optimizer in self._moved(found):
            optimizer.zero_grad(set_to_none=True)

    def _moved(self, found: PhaseGradients) -> list[torch.optim.Optimizer]:
        return [one for name in found.phase.modules for one in self.optimizers[name]]
