"""Passes that survive a kill: what was summed so far, and how far a pass is.

A pass takes numbered batches in a fixed order and adds each to accumulators. From time to time
they are written together with the number of batches done, each rank its own file; the next
evaluation of the same job resumes with the next batch. On one process the result is the same to
the bit. A file of another job, batch size or number of processes is never used.

Inside a pass ranks do not talk: they may resume from different places.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vistok.config.bounded import parse_json
from vistok.core.errors import InputError
from vistok.runtime import distributed
from vistok.storage.files import replacing
from vistok.storage.sealed import SEAL
from vistok.storage.weights import content_sha256

EVERY = 30.0  # seconds between two saves of a pass
_COST = 20  # a save that took a second is followed by 20 seconds of work at least
_MORE = "[]"  # ends the name of a state that grows, whose shape is therefore not compared

log = logging.getLogger(__name__)


def digest(facts: Any) -> str:
    """sha256 of canonical JSON: sorted keys, no spaces."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Cache:
    """The folder where an evaluation keeps what it has measured; None: nothing is kept."""

    folder: Path | None = None
    fresh: bool = False  # what lies there is not read, and replaced
    every: float = EVERY

    def passes(self, key: str) -> Passes:
        return Passes(self, key)

    def path(self, name: str) -> Path | None:
        if self.folder is None:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / name


@dataclass
class Passes:
    """The passes of one piece of work (`key`), told apart by their order in it."""

    cache: Cache = field(default_factory=Cache)
    key: str = ""
    begun: int = field(default=0, init=False)

    def begin(self, states: Any, batch: int) -> Pass:
        """The next pass. `states`: accumulators, see `leaves`; `batch`: images at a time."""
        number, self.begun = self.begun, self.begun + 1
        rank, world = distributed.rank(), distributed.world_size()
        path = self.cache.path(f"part-{self.key[:32]}.{number}.{rank}of{world}.safetensors")
        about = {"key": self.key, "pass": number, "batch": batch, "world": world}
        return Pass(path, states, about, self.cache.every, read=not self.cache.fresh)

    def clear(self) -> None:
        """Forget them: the work is done, and its outcome lies elsewhere."""
        if self.cache.folder is None:
            return
        whose = "*" if distributed.rank() == 0 else f"*.{distributed.rank()}of*"
        for path in self.cache.folder.glob(f"part-{self.key[:32]}.{whose}.safetensors"):
            path.unlink(missing_ok=True)


class Pass:
    """`done` batches of this rank are in the states; `step` after each further one."""

    def __init__(
        self, path: Path | None, states: Any, about: dict[str, Any], every: float, read: bool = True
    ) -> None:
        self.path, self.about, self.every = path, about, every
        self.seen = torch.zeros(2, dtype=torch.int64)  # samples, and the sum of their places
        self.done = 0
        self._states = {"states": states, "seen": self.seen}
        for _, leaf in leaves(self._states):  # an unknown kind is an error before any work
            _get(leaf)
        self._saved, self._wait = time.monotonic(), every
        if path is not None and read and path.is_file():
            self.done = self._load()

    def step(self, index: Tensor) -> None:
        """One more batch, of the samples `index` [B], is in the states."""
        self.done += 1
        self.seen += torch.tensor([len(index), int(index.sum())])
        if time.monotonic() - self._saved >= self._wait:
            self.save()

    def finish(self, samples: int | Sequence[int]) -> None:
        """The pass is over; ValueError unless each of `samples`, or of 0..samples-1, was seen once,
        by one rank."""
        if self.every == 0 or time.monotonic() - self._saved > self._wait / 6:
            self.save()
        seen = distributed.sum_(self.seen.clone()).tolist()
        each = range(samples) if isinstance(samples, int) else samples
        if seen != [len(each), sum(each)]:
            raise InputError(
                f"a pass saw {seen[0]} samples; expected each of {len(each)} exactly once"
            )

    def save(self) -> None:
        if self.path is None:
            return
        started = time.monotonic()
        about = {**self.about, "done": self.done}
        write_tensors(self.path, dict(_all(self._states)), "pass", about)
        self._saved = time.monotonic()
        self._wait = max(self.every, _COST * (self._saved - started) if self.every else 0)

    def _load(self) -> int:
        """Batches done, with the states put back; 0 if the file is not of this pass."""
        try:
            tensors, about = read_tensors(self.path, "pass")
            done = about.pop("done", None)
            if about != self.about or not isinstance(done, int) or done < 1:
                raise InputError("it is of another pass")
            _restore(self._states, tensors)
        except ValueError as error:
            log.warning("%s: cannot be resumed (%s); the pass begins again", self.path, error)
            return 0
        return done


def leaves(states: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(name, accumulator) of everything in `states`.

    An accumulator is a tensor that is changed in place, a torchmetrics Metric, or an object with
    `state_dict() -> {name: tensor}` and `load_state_dict`; containers are mappings, sequences,
    dataclasses, and objects with a property `states`. Anything else is a TypeError: what is not
    kept would be lost in silence.
    """
    below = lambda key: f"{name}/{key}" if name else str(key)
    if states is None:
        return
    if isinstance(states, Tensor) or hasattr(states, "metric_state"):
        yield name, states
    elif hasattr(states, "state_dict") and not isinstance(states, nn.Module):
        yield name, states
    elif isinstance(states, Mapping):
        for key, one in states.items():
            yield from leaves(one, below(key))
    elif isinstance(states, list | tuple):
        for key, one in enumerate(states):
            yield from leaves(one, below(key))
    elif hasattr(states, "states"):
        yield from leaves(states.states, name)
    elif dataclasses.is_dataclass(states):
        for one in dataclasses.fields(states):
            yield from leaves(getattr(states, one.name), below(one.name))
    else:
        raise TypeError(
            f"{name or 'states'}: a {type(states).__name__} cannot be kept; expected tensors, "
            "metrics, objects with state_dict, or containers of them"
        )


def _get(leaf: Any) -> dict[str, Tensor]:
    if isinstance(leaf, Tensor):
        return {"": leaf}
    if not hasattr(leaf, "metric_state"):
        return leaf.state_dict()
    found = {"updates": torch.tensor(leaf._update_count)}
    for name, value in leaf.metric_state.items():
        if isinstance(value, Tensor):
            found[name] = value
        elif value:  # a list that grows with every update
            found[name + _MORE] = torch.cat([torch.atleast_1d(one) for one in value])
    return found


def _set(leaf: Any, found: dict[str, Tensor]) -> None:
    if isinstance(leaf, Tensor):
        leaf.copy_(found[""])
    elif not hasattr(leaf, "metric_state"):
        leaf.load_state_dict(found)
    else:
        for name, value in leaf.metric_state.items():
            if isinstance(value, Tensor):
                setattr(leaf, name, found[name].to(value.device))
            else:
                more = found.get(name + _MORE)
                setattr(leaf, name, [] if more is None else [more.to(leaf.device)])
        leaf._update_count, leaf._computed = int(found["updates"]), None


def _all(states: Any) -> Iterator[tuple[str, Tensor]]:
    for name, leaf in leaves(states):
        for key, tensor in _get(leaf).items():
            yield f"{name}:{key}", tensor


def _restore(states: Any, tensors: dict[str, Tensor]) -> None:
    """Put the tensors back; ValueError, and nothing changed, if they are of other states."""
    fixed = lambda found: {
        name: (tuple(t.shape), t.dtype) for name, t in found.items() if not name.endswith(_MORE)
    }
    if fixed(dict(_all(states))) != fixed(tensors):
        raise InputError("it holds other accumulators")
    for name, leaf in list(leaves(states)):
        mark = f"{name}:"
        own = {k.removeprefix(mark): t for k, t in tensors.items() if k.startswith(mark)}
        _set(leaf, own)


def read_tensors(path: Path, record: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, JSON record in the header) of a file that `write_tensors` wrote; InputError for
    anything else, and where the seal shows that it was edited since."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            about = parse_json((file.metadata() or {}).get(record, "null"), "its header")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"not a readable safetensors file: {reason}") from None
    if not isinstance(about, dict):
        raise InputError(f"its header has no record '{record}'")
    if about.pop(SEAL, None) != _seal(tensors, about):
        raise InputError("its seal does not fit its content; it was damaged or edited")
    return tensors, about


def write_tensors(
    path: Path, tensors: dict[str, Tensor], record: str, about: dict[str, Any]
) -> None:
    """Write tensors and a JSON record under one seal; `read_tensors` reads them."""
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = json.loads(json.dumps(about))
    text = json.dumps({**about, SEAL: _seal(plain, about)}, ensure_ascii=False)
    with replacing(path) as draft:
        save_file(plain, str(draft), {record: text})


def _seal(tensors: dict[str, Tensor], about: dict[str, Any]) -> str:
    return digest([content_sha256(tensors), about])
