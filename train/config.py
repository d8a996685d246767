"""The training config: one schema for every task."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

import vistok.data
import vistok.train.jobs
import vistok.train.tasks  # noqa: F401  (registers tasks, jobs and data sets)
from vistok.config import Config, PartOf
from vistok.config.plugins import modules_of, taken
from vistok.core.errors import InputError
from vistok.data.kinds.mix import as_mix
from vistok.runtime.precision import Precision
from vistok.train.optim.optimizers import AdamWConfig
from vistok.train.parallel.wrap import Sharding


class TrainConfig(Config):
    name: str = Field(default="run", min_length=1, max_length=200)
    """Name of the run."""
    out: str = Field(default="runs/{name}", min_length=1)
    """Folder of the run; {name} is filled in."""
    plugins: tuple[str, ...] = ()
    """Modules of the user's own parts, a record only: the words plugins=my.module load them."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of all random draws."""
    task: Annotated[Any, PartOf("task")]
    """The task that trains (tokenizer, generator, classifier), or a job that writes files
    (cache)."""
    data: Annotated[Any, PartOf("data")] | None = None
    """The data set; null where the task needs none. A list mixes data sets, each with its `weight`:
    [{kind: folder, ..., weight: 3}, {kind: video, ...}], see kind mix."""
    steps: int = Field(default=1, ge=1, le=10**12)
    """Optimizer steps."""
    batch_size: int = Field(default=256, ge=1, le=2**24)
    """Samples of one optimizer step, over all processes and micro-batches."""
    accumulate: int = Field(default=1, ge=1, le=2**20)
    """Micro-batches into which each process splits its share."""
    optimizer: Annotated[Any, PartOf("optimizer")] = AdamWConfig()
    """Optimizer of every phase."""
    warmup: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    hold: int = Field(default=0, ge=0)
    """Steps at the peak rate between the warm-up and the cosine (xAR: five eighths of them all)."""
    final_lr: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Learning rate at the end, as a share of the peak (cosine)."""
    lr_drops: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """Shares of the steps behind which the rate is `lr_drop` of itself, besides the cosine; a rate
    that is constant between them has final_lr=1 (NAR)."""
    lr_drop: float = Field(default=0.2, gt=0, le=1)
    """Factor of each of these drops."""
    clip: float | None = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Gradient norm above which gradients are scaled down; null = never."""
    ema: float | None = Field(default=0.999, ge=0, lt=1)
    """Decay of the averaged weights, min(ema, (1+t)/(10+t)); null = none."""
    precision: Precision = "fp32"
    """bf16 autocasts the networks, quantizers stay in fp32. auto: bf16 where it is in hardware."""
    compile: bool = False
    """Compile each trained network with torch.compile."""
    sharding: Sharding = "auto"
    """full: FSDP2 cuts the trained network over the processes; none: each holds a copy; auto: what
    the accelerate config says."""
    workers: int = Field(default=0, ge=0, le=2**12)
    """Loader processes for each training process."""
    max_bad_share: float = Field(default=0.01, ge=0, le=1)
    """Share of unreadable training images above which training stops."""
    log_every: int = Field(default=50, ge=1)
    """Steps between lines of the log."""
    validate_every: int = Field(default=1000, ge=0)
    """Steps between validations; 0 = only at the end."""
    validate_batch: int = Field(default=64, ge=1, le=2**20)
    """Samples of a validation batch, per process."""
    validate_limit: int | None = Field(default=None, ge=1)
    """Validation samples; null = all."""
    grid_every: int = Field(default=1000, ge=0)
    """Steps between image grids; 0 = only at the end."""
    save_every: int = Field(default=1000, ge=0)
    """Steps between checkpoints; 0 = only at the end."""
    keep_last: int = Field(default=2, ge=1)
    """Number of the newest checkpoints that are kept."""
    keep_best: int = Field(default=0, ge=0)
    """Number of checkpoints kept besides them: the best by the task's validation metric (PSNR,
    accuracy, nll)."""
    keep_every: int = Field(default=0, ge=0)
    """Checkpoints of steps that are multiples of this are kept too; 0 = none."""
    max_skipped: int = Field(default=10, ge=1)
    """Number of steps in a row without a finite loss and gradient after which the run stops."""
    resume: str = "auto"
    """auto: the newest complete checkpoint of the run, if any; never; or a checkpoint's path."""
    peak_tflops: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Peak TFLOP/s of one device, for `mfu` in the log; null = by the GPU's name, if known."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """Trackers besides metrics.jsonl, which is always written. wandb without a key runs offline."""

    @field_validator(
        "data",
        mode="before",
        json_schema_input_type=Annotated[Any, PartOf("data")] | tuple[dict[str, Any], ...] | None,
    )
    @classmethod
    def _mixed(cls, data: Any) -> Any:
        return as_mix(data)

    @field_validator("plugins", mode="before")
    @classmethod
    def _one_module(cls, plugins: Any) -> Any:
        return (plugins,) if isinstance(plugins, str) else plugins

    @model_validator(mode="after")
    def _records_plugins(self) -> TrainConfig:
        """The modules that are loaded, and those that parts come from, in place of what an earlier
        run recorded."""
        found = tuple(dict.fromkeys((*taken(), *modules_of(self))))
        self.__dict__["plugins"] = found or self.plugins
        return self

    @model_validator(mode="after")
    def _names_a_folder(self) -> TrainConfig:
        if set("{}") & set(self.out.replace("{name}", "")):
            raise InputError(
                f"out={self.out}: expected a folder, in which only {{name}} is filled in"
            )
        if not self.folder.isprintable():
            raise InputError(f"out={self.folder!r}: expected a folder without control characters")
        return self

    @model_validator(mode="after")
    def _divides(self) -> TrainConfig:
        if self.batch_size % self.accumulate:
            raise InputError(
                f"batch_size={self.batch_size} is not a multiple of accumulate={self.accumulate}"
            )
        judged = self.validate_every if self.keep_best else 0
        for name, value in (("keep_every", self.keep_every), ("validate_every", judged)):
            if value and (not self.save_every or value % self.save_every):
                raise InputError(
                    f"{name}={value} is not a multiple of save_every={self.save_every}: "
                    f"{'keep_best' if name == 'validate_every' else name} needs a checkpoint there"
                )
        if self.warmup >= self.steps and self.warmup:
            raise InputError(f"warmup={self.warmup} must be below steps={self.steps}")
        if self.hold and self.warmup + self.hold > self.steps:
            raise InputError(
                f"hold={self.hold} with warmup={self.warmup} goes beyond steps={self.steps}"
            )
        return self

    @property
    def precisions(self) -> dict[str, str]:
        """Key -> fp32 or bf16, of everything that may be computed in either."""
        parts = {"precision": self, "optimizer.precision": self.optimizer}
        return {key: part.precision for key, part in parts.items() if hasattr(part, "precision")}

    @property
    def folder(self) -> str:
        return self.out.replace("{name}", self.name)
