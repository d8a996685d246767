"""The log of a run: metrics.jsonl, trackers, the progress bar, images, throughput.

Scalars are summed on the device and read once every `log_every` steps, so that logging costs no
synchronization inside a step.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from vistok.config.bounded import parse_json
from vistok.core.verbosity import quiet
from vistok.data.base import text_of
from vistok.runtime import distributed
from vistok.storage.files import unwritten, write_text
from vistok.train.config import TrainConfig
from vistok.train.cost.throughput import Throughput, memory


class Logger:
    """
    Args:
        start: the step after which the log begins. unit: noun of a sample, for the progress bar.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        folder: Path,
        config: TrainConfig,
        start: int,
        throughput: Throughput,
        unit: str = "image",
    ) -> None:
        self.accelerator, self.folder, self.config = accelerator, folder, config
        self.throughput, self.unit = throughput, unit
        self.main = accelerator.is_main_process
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._clock, self._wait, self._step = time.perf_counter(), 0.0, start
        if not self.main:
            return
        self._forget(start)
        self._file = open(folder / "metrics.jsonl", "a", encoding="utf-8")
        if config.trackers:
            _quiet_wandb()
            accelerator.init_trackers(
                project_name="vistok",
                init_kwargs={"wandb": {"name": config.name, "dir": str(folder)}},
            )
        self._bar = tqdm(
            total=config.steps,
            initial=start,
            desc=config.name,
            unit="step",
            dynamic_ncols=True,
            # A log file gets a line now and then, a terminal a living bar.
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            smoothing=0.05,
            disable=quiet(),
        )

    def add(self, scalars: dict[str, Tensor | float]) -> None:
        """Collect one micro-batch's scalars; nothing is read from the device."""
        for name, value in scalars.items():
            value = value.detach().float() if isinstance(value, Tensor) else torch.tensor(value)
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def tick(self, step: int, epoch: float, wait: float, facts: dict[str, float]) -> None:
        """After step number `step` (from 1): advance the bar, and now and then write a line."""
        if self.main:
            self._bar.update(1)
        if step % self.config.log_every and step != self.config.steps:
            return
        means = self._reduce()
        now = time.perf_counter()
        elapsed, steps = now - self._clock, step - self._step
        rate = steps * self.config.batch_size / max(elapsed, 1e-9)
        row = {
            **means,
            **facts,
            "epoch": epoch,
            "samples": step * self.config.batch_size,
            "images_per_s": rate,
            "data_wait": (wait - self._wait) / max(elapsed, 1e-9),
            **self.throughput.facts(self._step, step, rate),
            **memory(self.accelerator.device),
        }
        self._clock, self._wait, self._step = now, wait, step
        self.write(step, row, "train")
        if self.main:
            shown = {n: f"{means[n]:.4g}" for n in _main_losses(means)}
            self._bar.set_postfix(shown | {f"{self.unit}s/s": f"{rate:.0f}"})

    def write(self, step: int, row: dict[str, float], split: str) -> None:
        """One line of metrics.jsonl, and the same to the trackers."""
        if not self.main:
            return
        # JSON has no NaN: such a number is null.
        plain = {k: v if math.isfinite(v) else None for k, v in row.items()}
        try:
            self._file.write(json.dumps({"step": step, "split": split, **plain}) + "\n")
            self._file.flush()
        except OSError as error:
            raise unwritten(self._file.name, error) from None
        if self.config.trackers:
            self.accelerator.log({f"{split}/{k}": v for k, v in row.items()}, step=step)

    def pause(self) -> None:
        """Leave what happens until `resume` out of the throughput."""
        self._paused = time.perf_counter()

    def resume(self) -> None:
        self._clock += time.perf_counter() - self._paused

    def image(self, step: int, name: str, image: Tensor) -> None:
        """image [3, H, W] in 0..1 -> a PNG in the run's folder, and the same in the trackers."""
        if not self.main:
            return
        from torchvision.utils import save_image  # slow to import

        folder = self.folder / "images"
        folder.mkdir(exist_ok=True)
        image = image.detach().float().cpu().clamp(0, 1)
        save_image(image, folder / f"{name}_{step:08d}.png")
        pixels = image.mul(255).round().byte()
        for tracker in self.accelerator.trackers:
            # tensorboard takes a batch [B, 3, H, W], wandb a list of [H, W, 3].
            wandb = tracker.name == "wandb"
            shown = [pixels.permute(1, 2, 0).numpy()] if wandb else pixels[None].numpy()
            tracker.log_images({name: shown}, step=step)

    def links(self) -> list[str]:
        """Lines that say where the trackers' pages are."""
        found = []
        for tracker in self.accelerator.trackers if self.main and self.config.trackers else ():
            if tracker.name == "tensorboard":
                found.append(f"tensorboard: tensorboard --logdir {shlex.quote(str(self.folder))}")
            elif url := tracker.run.url:
                found.append(f"wandb: {url}")
            else:
                place = shlex.quote(str(Path(tracker.run.dir).parent))
                found.append(f"wandb: kept offline; wandb sync {place} uploads it")
        return found

    def say(self, text: str) -> None:
        """Print a line on what is done, above the bar."""
        if not quiet():
            self.warn(text)

    def warn(self, text: str) -> None:
        """Print a line that is wanted at every verbosity."""
        if self.main:
            tqdm.write(text)

    def close(self) -> None:
        if self.main:
            self._bar.close()
            with suppress(OSError):  # a full disk, which `write` has told
                self._file.close()
            if self.config.trackers:
                self.accelerator.end_training()

    def _reduce(self) -> dict[str, float]:
        names = sorted(self._sums)
        if not names:
            return {}
        device = self.accelerator.device
        values = torch.stack([self._sums[n].to(device) / self._counts[n] for n in names])
        values = distributed.sum_(values) / distributed.world_size()
        self._sums.clear()
        self._counts.clear()
        return dict(zip(names, values.tolist(), strict=True))

    def _forget(self, start: int) -> None:
        """Drop lines of steps that a resumed run will write again."""
        for name in ("metrics.jsonl", "alarms.jsonl"):
            path = self.folder / name
            if path.is_file():
                lines = text_of(path).splitlines()
                kept = [line for line in lines if _step_of(line) <= start]
                write_text(path, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(parse_json(line, "a log")["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line cut off by a kill


def _main_losses(means: dict[str, float]) -> list[str]:
    order = ("loss", "l2", "l1", "perceptual", "adversarial", "commitment", "accuracy")
    return [name for name in order if name in means][:4]


def _quiet_wandb() -> None:
    """Without a key wandb would stop and ask; offline runs can be synced later."""
    if not os.environ.get("WANDB_API_KEY"):
        os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_SILENT", "true")
