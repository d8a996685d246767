"""One training step without arithmetic: its FLOP, the activations it saves, its optimizer's state.

The task was built on the meta device. Here its weights become fake tensors, which have a shape, a
type and a device name (so that autocast and the parts take the ways they take in training), but no
storage: a step of any size costs a second and no memory, and needs no GPU, no weights and no data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from vistok.config import Config
from vistok.config.registry import build
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.frozen.text import BlankText
from vistok.layers import attention
from vistok.tokenizer import Tokenizer
from vistok.train.cost.planned import Work
from vistok.train.optim.optimizers import optimizers_of
from vistok.train.tasks.base import Phase, Task

_PAIR = 2  # samples of a counted step: FLOP are proportional to them


def build_hollow(config: Config, data: Any) -> Task:
    """The task on the meta device: shapes without storage; no weight file is looked for."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return build(config, data)


class CostTrace:
    """Steps of a task on fake tensors.

    Args:
        task: from `build_hollow`; it is of no other use afterwards.
    """

    def __init__(self, task: Task, seed: int) -> None:
        self.task, self.seed = task, seed
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        with self.mode:
            _pretend(self._modules())
        for module in self._modules():
            if isinstance(module, Tokenizer) and module.config.text is not None:
                dim = next(how.dim for how in module.config.reading.values())
                module.use_text_encoder(BlankText(module.config.text.length, dim))

    # -- what is asked --------------------------------------------------------------------------

    def flops(
        self, progress: Progress, watched: Mapping[str, nn.Module]
    ) -> tuple[dict[str, Work], dict[str, float]]:
        """({phase: Work}, {watched module: FLOP of its forward passes in a step}), for one sample.

        Attention is counted in its plain form: fused CPU kernels have no count.
        """
        work, parts = {}, dict.fromkeys(watched, 0.0)
        with self._stage(), sdpa_kernel(SDPBackend.MATH):
            for phase, step in self._phases(_PAIR, progress):
                with FlopCounterMode(display=False) as counter:
                    total = counter.get_total_flops
                    with _on_the_way(watched, total, parts):
                        loss = step()
                    forward = total()
                    loss.backward()
                work[phase.module] = Work(forward / _PAIR, (total() - forward) / _PAIR)
        return work, {name: value / _PAIR for name, value in parts.items()}

    def saved(self, count: int, progress: Progress, bf16: bool, fused: bool = True) -> int:
        """Bytes that the backward pass of a micro-batch of `count` waits for: the worst phase.

        Args:
            fused: attention by a fused kernel, as on GPUs; False = what this CPU does, where bf16
                attention keeps its scores.
        """
        worst = 0
        known = self._storages()
        with self._stage(), _fused_attention() if fused else nullcontext():
            for _, step in self._phases(count, progress):
                kept: dict[int, Any] = {}

                def pack(tensor: Tensor, kept: dict[int, Any] = kept) -> Tensor:
                    storage = tensor.untyped_storage()
                    if storage._cdata not in known:
                        kept[storage._cdata] = storage
                    return tensor

                with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                        loss = step()
                worst = max(worst, sum(storage.nbytes() for storage in kept.values()))
                del loss
        return worst

    def optimizer(self, config: Config) -> tuple[float, int]:
        """(FLOP of one step of all optimizers, bytes of their state); gradients come for it."""
        work, size = 0.0, 0
        with self._stage():
            for phase in self.task.phases:
                modules = {name: self.task.modules[name] for name in phase.modules}
                for parameter in (p for module in modules.values() for p in module.parameters()):
                    if parameter.requires_grad:
                        parameter.grad = torch.empty_like(parameter)
                made = [
                    one for found in optimizers_of(config, phase, modules).values() for one in found
                ]
                with FlopCounterMode(display=False) as counter:
                    for optimizer in made:
                        optimizer.step()
                        optimizer.zero_grad(set_to_none=True)
                work += counter.get_total_flops() / phase.every
                states = [state for one in made for state in one.state.values()]
                tensors = [t for s in states for t in s.values() if isinstance(t, Tensor)]
                size += sum(t.numel() * t.element_size() for t in tensors)
        return work, size

    # -- how ------------------------------------------------------------------------------------

    @contextmanager
    def _stage(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]), self.mode, _Answers():
            yield

    def _phases(
        self, count: int, progress: Progress
    ) -> Iterator[tuple[Phase, Callable[[], Tensor]]]:
        """(phase, its step -> loss) for each phase that has started by then."""
        index = torch.arange(count)
        with _no_noise():
            draws = self.task.draw(index, self.seed, progress)
        batch = self.task.example(count)
        for module in self._modules():
            module.train()
        earlier: dict[str, Any] = {}

        def step(phase: Phase) -> Tensor:
            outcome = self.task.step(phase, batch, draws, progress, earlier)
            earlier.update(outcome.handed)
            return outcome.loss

        for phase in self.task.phases:
            if progress.step >= phase.start:
                yield phase, partial(step, phase)

    def _modules(self) -> list[nn.Module]:
        task = self.task
        return [*task.modules.values(), *task.buffers.helpers, *task.buffers.saved.values()]

    def _storages(self) -> set[int]:
        """Storages of weights and statistics, which are there anyway."""
        tensors = [t for m in self._modules() for t in (*m.parameters(), *m.buffers())]
        return {tensor.untyped_storage()._cdata for tensor in tensors}


class _Answers(TorchDispatchMode):
    """Answers where a step asks for a value, which fake tensors do not have.

    No FLOP depends on the answers: they are keys of draws, and step counters of optimizers.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            kind = args[0].dtype
            return True if kind == torch.bool else 1.0 if kind.is_floating_point else 1
        return func(*args, **kwargs)


@contextmanager
def _no_noise() -> Iterator[None]:
    """Normal numbers are zeros, which take no time: no FLOP and no byte depends on them, and a
    large clip has a hundred million."""
    before = Rng.normal

    def zeros(rng: Rng, index: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        return torch.from_numpy(np.zeros((len(index), *shape), np.float32))

    Rng.normal = zeros  # type: ignore[method-assign]
    try:
        yield
    finally:
        Rng.normal = before  # type: ignore[method-assign]


def _pretend(modules: list[nn.Module]) -> None:
    """Replace what the modules hold by fake CPU tensors; what was shared stays shared."""
    made: dict[int, Any] = {}  # id -> (old, new): the old one is kept, so that ids stay taken
    done: set[int] = set()
    for module in (inner for outer in modules for inner in outer.modules()):
        if id(module) in done:
            continue
        done.add(id(module))
        for held in (module._parameters, module._buffers):
            for name, old in held.items():
                if old is None:
                    continue
                if id(old) not in made:
                    new = torch.empty_like(old, device="cpu")
                    if isinstance(old, nn.Parameter):
                        new = nn.Parameter(new, requires_grad=old.requires_grad)
                    made[id(old)] = (old, new)
                held[name] = made[id(old)][1]


@contextmanager
def _on_the_way(
    modules: Mapping[str, nn.Module], total: Callable[[], int], into: dict[str, float]
) -> Iterator[None]:
    """Add to `into` what `total()` grows by during each forward pass of each module."""
    handles = []
    for name, module in modules.items():
        before: list[int] = []
        enter = lambda *_, before=before: before.append(total())

        def leave(*_: Any, name: str = name, before: list[int] = before) -> None:
            into[name] += total() - before.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Attention as GPUs do it, whatever the CPU would rather do."""
    before = attention.attend

    def fused(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        causal: bool,
        dropout: nn.Module | None = None,
        scale: float | None = None,
    ) -> Tensor:
        if dropout is not None:  # plain there too
            return before(q, k, v, mask, causal, dropout, scale)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=scale
        )

    attention.attend = fused
    try:
        yield
    finally:
        attention.attend = before
