"""Alignment of a tokenizer's features with those of a frozen vision network.

One part for a family of losses that differ in what is compared and how:
- REPA (arXiv 2410.06940) and FlexTok: cosine of patch features, through a trained MLP;
- RobusTok, ImageFolder (arXiv 2503.08354, 2410.01756): InfoNCE between pooled features, the
  network's going through the tokenizer's own projection to latents;
- ReTok (arXiv 2601.01535): cosine, weighted by the kept length.

Letters: B batch, n positions, N latents, M values, D width of the student, P of the teacher.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from vistok.config import ConfigError, PartOf
from vistok.config.registry import build, register
from vistok.core.errors import InputError
from vistok.core.records import Batch, Reconstruction
from vistok.core.schedules import Progress
from vistok.core.shapes import cells
from vistok.frozen.vision import EmbeddedVisionConfig, NamedNetwork, named
from vistok.frozen.vit import FrozenViTConfig
from vistok.layers.resize import resize
from vistok.losses.base import Loss, LossConfig
from vistok.losses.probe import width_of
from vistok.losses.projector import ProjectorConfig, projector
from vistok.losses.similarity import global_mean, negative_cosine, symmetric_infonce
from vistok.losses.taper import TaperConfig
from vistok.runtime.precision import no_autocast

Source = Literal["latents", "quantized", "clean", "encoder", "decoder"]


class AlignmentConfig(LossConfig):
    kind: Literal["alignment"] = "alignment"
    network: Annotated[Any, PartOf("vision")] = FrozenViTConfig()
    """The teacher: a name (dinov2-b, clip, siglip, vistok-cnn) or a config of the family vision."""
    features: Literal["pooled", "patches"] = "patches"
    """Features of the teacher: one vector per image, or one per patch."""
    depth: int | None = Field(default=None, ge=1, le=512)
    """Block of the teacher whose states are taken; null = its output."""
    image: Literal["input", "target"] = "input"
    """Image that the teacher sees: the tokenizer's input, or what it must rebuild."""

    student: Source = "quantized"
    """Features of the tokenizer: latents before quantization; quantized values as the decoder sees
    them (perturbed), or clean; a tap of the encoder or decoder."""
    tap: str | None = None
    """Name of that tap."""
    branch: int | None = None
    """Branch of a product quantizer whose values are taken (-1 = the last); null = all of them."""

    how: Literal["cosine", "infonce"] = "cosine"
    """cosine compares each position (patches) or image (pooled); infonce tells the images of the
    global batch apart by their pooled features (of one micro-batch of all processes, where
    gradients are accumulated)."""
    projector: ProjectorConfig = ProjectorConfig()
    through: str | None = None
    """Module of the tokenizer (encoder.proj) that the teacher's features go through to the width of
    the student; it learns from this too. Takes the projector's place."""
    normalize: bool = False
    """Divide features by their length before infonce (XQ-GAN's clip_norm)."""
    scale: float = Field(default=1.0, gt=0)
    """Factor of infonce's inner products."""
    scale_end: float | None = Field(default=None, gt=0)
    """Factor after `scale_epochs`, to which it grows linearly, epoch by epoch; null = constant."""
    scale_epochs: int = Field(default=200, ge=1)

    weight: float = Field(default=0.5, ge=0)
    start: int = Field(default=0, ge=0)
    """First step."""
    stop: int | None = Field(default=None, ge=0)
    """Step from which the loss is off again; null = never."""
    taper: TaperConfig | None = None
    """Factor per image that falls with its kept length; null = none."""
    leave_out: Literal["nothing", "dropped", "first_local"] = "dropped"
    """Images that do not count: dropped, those of which a level was dropped; first_local, a leading
    share of each process's batch (XQ-GAN, whatever was drawn for it)."""
    leave_out_share: float = Field(default=0.0, ge=0, le=1)
    """That share (XQ-GAN's codebook_drop)."""

    @field_validator("network", mode="before", json_schema_input_type=NamedNetwork)
    @classmethod
    def _named(cls, value: Any) -> Any:
        return named(value)

    @model_validator(mode="after")
    def _agrees(self) -> AlignmentConfig:
        if (self.tap is not None) != (self.student in ("encoder", "decoder")):
            what = "needs the name of a `tap`" if self.tap is None else "has no `tap`; remove it"
            raise InputError(f"student={self.student} {what}")
        if self.branch is not None and self.student == "decoder":
            raise InputError(f"branch={self.branch}: a decoder has no branches; remove it")
        if self.normalize and self.how == "cosine":
            raise InputError("normalize=true belongs to infonce; a cosine is normalized anyway")
        if self.leave_out_share and self.leave_out != "first_local":
            raise InputError(
                f"leave_out_share={self.leave_out_share} belongs to leave_out=first_local, not "
                f"{self.leave_out}"
            )
        return self

    @classmethod
    def tiny(cls) -> AlignmentConfig:
        return cls(
            network=EmbeddedVisionConfig(),
            features="pooled",
            student="quantized",
            projector=ProjectorConfig(hidden=8),
        )


@register("loss", AlignmentConfig)
class AlignmentLoss(Loss):
    """Reconstruction -> `alignment`: a cosine's negative, or a cross-entropy in nats."""

    needs_pixels = False

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__(config)
        self.network = build(config.network)
        self.projector: nn.Module | None = None
        self._through: list[nn.Module] = []  # in a list: it is the tokenizer's
        self._sides = (1, 1)

    @property
    def trained(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.projector is None else ("projector",)

    @property
    def borrowed(self) -> tuple[nn.Parameter, ...]:
        return tuple(p for module in self._through for p in module.parameters())

    def bind(self, tokenizer: nn.Module) -> None:
        config = self.config
        if tokenizer.shape.is_clip:
            raise ConfigError(
                "losses: alignment compares images, but this tokenizer rebuilds clips; remove it"
            )
        self._sides = tokenizer.shape.image_size
        self._values = tokenizer.layout.count
        self._split(tokenizer)
        if config.taper is not None:
            config.taper.check(self._values, [part.fills for part in tokenizer.regularizers])
        dim, pooled = self.network.sizes(config.depth)
        theirs = pooled if config.features == "pooled" else dim
        ours = width_of(tokenizer, config.student, config.tap)
        ours //= self._branches if config.student in ("quantized", "clean") else 1
        if config.through is not None:
            self._through = [_module(tokenizer, config.through, theirs, ours)]
        elif config.projector.kind == "none":
            if theirs != ours:
                raise ConfigError(
                    f"losses: alignment compares features of {ours} and {theirs} channels with "
                    "projector.kind=none; expected equal widths: use a projector"
                )
        else:
            inside, outside = (ours, theirs)
            if config.projector.side == "teacher":
                inside, outside = theirs, ours
            self.projector = projector(config.projector, inside, outside)

    def _split(self, tokenizer: nn.Module) -> None:
        """Branches of the student, by channels (values) or by positions (latents on grids)."""
        config, grids = self.config, tokenizer.encoder.grids
        by_values = config.student in ("quantized", "clean")
        self._branches = 1
        if config.branch is not None:
            self._branches = tokenizer.spec().branches if by_values else len(grids)
            if not -self._branches <= config.branch < self._branches:
                raise ConfigError(
                    f"losses: alignment of branch={config.branch}, but there are "
                    f"{self._branches}; expected one of them, or null"
                )
        grid = (tokenizer.layout.values if by_values else grids)[0]
        on_grid = len(grid) == 2 or config.student == "decoder"
        if config.how == "cosine" and config.features == "patches" and not on_grid:
            raise ConfigError(
                f"losses: alignment of patches with {config.student}, which lie on no grid "
                f"{grid}; use features=pooled, or a tap of the decoder"
            )
        self._grid = None if config.student == "decoder" else grid

    # -- one step -------------------------------------------------------------------------------

    def forward(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        config = self.config
        stopped = config.stop is not None and progress.step >= config.stop
        if progress.step < config.start or stopped:
            return {}
        image = batch.pixels if config.image == "input" else reconstruction.target
        with torch.no_grad():
            seen = self.network.look(image, config.depth)
        student = self._student(reconstruction)
        counts = self._taking_part(reconstruction, student)
        weights = self._factors(reconstruction, student)
        alike = config.features == "patches" and config.how == "cosine"
        if alike:
            student, teacher = self._onto(student, seen.grid), seen.patches
        else:
            student = student.mean(1, keepdim=True)
            teacher = seen.pooled[:, None] if config.features == "pooled" else seen.patches
        student, teacher = self._projected(student, teacher)
        if not alike:
            student, teacher = student.mean(1).float(), teacher.mean(1).float()
        with no_autocast(student.device):
            if config.how == "cosine":
                terms = negative_cosine(student, teacher)
                return {"alignment": global_mean(terms, counts, weights)}
            if config.normalize:
                student, teacher = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
            scale = self.scale(progress)
            return {"alignment": symmetric_infonce(student, teacher, counts, weights, scale)}

    def scale(self, progress: Progress) -> float:
        """Factor of infonce's inner products at this step."""
        start, end = self.config.scale, self.config.scale_end
        if end is None:
            return start
        return start + (end - start) * min(int(progress.epoch) / self.config.scale_epochs, 1.0)

    def weights(self, progress: Progress) -> dict[str, float]:
        return {"alignment": self.config.weight}

    def _student(self, reconstruction: Reconstruction) -> Tensor:
        """[B, n, D] of the source that the config names."""
        config, latents = self.config, reconstruction.latents
        if config.student in ("quantized", "clean"):
            quantized = reconstruction.quantized
            values = quantized.values if config.student == "quantized" else quantized.clean
            return self._branch(values, -1)
        if config.student == "decoder":
            return reconstruction.decoded.features[config.tap]
        states = latents.values if config.student == "latents" else latents.features[config.tap]
        return self._branch(states, 1)

    def _branch(self, x: Tensor, dim: int) -> Tensor:
        """The chosen branch of those that lie beside each other along a dimension."""
        branch = self.config.branch
        return x if branch is None else x.chunk(self._branches, dim)[branch]

    def _projected(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        for module in self._through:
            if isinstance(module, nn.Conv2d):
                teacher = module(teacher.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
            else:
                teacher = module(teacher)
        if self.projector is None:
            return student, teacher
        if self.config.projector.side == "teacher":
            return student, self.projector(teacher)
        return self.projector(student), teacher

    def _onto(self, student: Tensor, grid: tuple[int, int]) -> Tensor:
        """Positions on their grid, resized to the teacher's: [B, n, D] -> [B, h*w, D]."""
        own = self._grid if self._grid is not None else _grid(student.shape[1], self._sides)
        if own == grid:
            return student
        if cells(own) != student.shape[1]:
            raise InputError(
                f"alignment: {student.shape[1]} features of the {self.config.student} are not the "
                f"grid {own}; use features=pooled"
            )
        maps = student.float().transpose(1, 2).unflatten(2, own)
        return resize(maps, grid, "bilinear", antialias=True).flatten(2).transpose(1, 2)

    def _taking_part(self, reconstruction: Reconstruction, student: Tensor) -> Tensor | None:
        """[B] float: 1 for images that take part, 0 for others; None = all do."""
        config, draws = self.config, reconstruction.draws
        if config.leave_out == "first_local":
            first = int(len(student) * config.leave_out_share)
            return (torch.arange(len(student), device=student.device) >= first).float()
        if config.leave_out == "dropped" and draws is not None and draws.levels is not None:
            return draws.levels.to(student.device).all(1).float()
        return None

    def _factors(self, reconstruction: Reconstruction, student: Tensor) -> Tensor:
        """[B] factor of each image."""
        draws, taper = reconstruction.draws, self.config.taper
        if taper is None or draws is None or draws.keep is None:
            return torch.ones(len(student), device=student.device)
        return taper.factor(draws.keep.to(student.device), self._values)


def _grid(count: int, sides: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of `count` positions that cover an image of these sides evenly."""
    height = round(math.sqrt(count * sides[0] / sides[1]))
    return height, count // max(height, 1)


def _module(tokenizer: nn.Module, name: str, inside: int, outside: int) -> nn.Module:
    """The linear layer of that name; ConfigError if it does not lead from `inside` to `outside`."""
    module = dict(tokenizer.named_modules()).get(name)
    found = "no module"
    if isinstance(module, nn.Linear):
        found = f"a layer from {module.in_features} to {module.out_features} channels"
        if (module.in_features, module.out_features) == (inside, outside):
            return module
    elif isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
        found = f"a layer from {module.in_channels} to {module.out_channels} channels"
        if (module.in_channels, module.out_channels) == (inside, outside):
            return module
    raise ConfigError(
        f"losses: alignment goes through={name}, which is {found}; expected a linear layer or 1x1 "
        f"convolution of the tokenizer from {inside} channels (the teacher's) to {outside}"
    )
