"""Relations between clusters of a frozen network's patch features, for codebook_relations (GloTok).

Patch features of some images are clustered by k-means (Lloyd, Euclidean) into as many groups as the
codebook has rows. Writes `relations.safetensors`: `centers` [K, D], `relations` [K, K] (cosines
between centers) and `hits` [K], the features of each group. Runs in one process; features stay in
memory: images x patches x D x 4 bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor
from tqdm import tqdm

from vistok.config import Config, ConfigError, PartOf
from vistok.config.registry import build, register
from vistok.core.rng import Rng
from vistok.core.verbosity import note, quiet
from vistok.data.batch import to_device
from vistok.data.loading.loader import EvalLoader
from vistok.frozen.vision import NamedNetwork, named
from vistok.frozen.vit import FrozenViTConfig
from vistok.layers.frames import frames
from vistok.losses.codebook_relations import cosines_of
from vistok.quantizers.codebook import kmeans
from vistok.quantizers.nearest import nearest_code
from vistok.storage.weights import write_safetensors
from vistok.train.jobs.base import Context, Job, looked_at

FILE = "relations.safetensors"


class RelationsConfig(Config):
    kind: Literal["codebook_relations"] = "codebook_relations"
    network: Annotated[Any, PartOf("vision")] = FrozenViTConfig()
    """The frozen network: a name (dinov2-b) or a config of the family vision."""
    depth: int | None = Field(default=None, ge=1, le=512)
    """Block whose states are clustered; null = the network's output."""
    codes: int = Field(default=4096, ge=3, le=2**16)
    """K, groups: rows of the codebook."""
    limit: int | None = Field(default=50_000, ge=1)
    """Training images to look at, spread over the data set; null = all."""
    patches: int = Field(default=16, ge=1, le=2**16)
    """Patches of each image that are clustered, picked at random; fewer if it has fewer."""
    iterations: int = Field(default=20, ge=1, le=10_000)

    @field_validator("network", mode="before", json_schema_input_type=NamedNetwork)
    @classmethod
    def _named(cls, value: Any) -> Any:
        return named(value)


@register("task", RelationsConfig)
class Relations(Job):
    def __init__(self, config: RelationsConfig, data) -> None:
        self.config = config

    def rows(self, split: str, count: int) -> int:
        limit = self.config.limit if split == "train" else 0
        return count if limit is None else min(limit, count)

    @torch.no_grad()
    def run(self, context: Context) -> None:
        config, device = self.config, context.accelerator.device
        if context.data is None:
            raise ConfigError("data: missing; give the images to look at")
        if context.accelerator.num_processes > 1:
            raise ConfigError(
                f"task.kind=codebook_relations runs in one process, not in "
                f"{context.accelerator.num_processes}; start it without a launcher"
            )
        network = build(config.network).to(device)
        points = self._points(context, network)
        if len(points) < config.codes:
            raise ConfigError(
                f"task.codes={config.codes}, but there are {len(points)} patch features; look at "
                "more images or patches, or ask for fewer codes"
            )
        rng = Rng(context.config.seed, "codebook_relations")
        order = torch.from_numpy(rng.generator().permutation(len(points)))
        centers = kmeans(points, points[order[: config.codes].to(device)], config.iterations)
        hits = torch.bincount(nearest_code(points, centers), minlength=config.codes)
        made = {"centers": centers, "relations": cosines_of(centers), "hits": hits}
        write_safetensors(
            {name: tensor.cpu() for name, tensor in made.items()}, context.folder / FILE
        )
        used = int((hits > 0).sum())
        note(
            f"relations of {network.name} between {config.codes} groups ({used} with features) of "
            f"{len(points):,} patch features are in {context.folder / FILE}"
        )

    def _points(self, context: Context, network) -> Tensor:
        """Patch features [n, D] of training images, on the device."""
        config, train = self.config, context.config
        dataset = context.data.open("train", augment=False)
        rows = looked_at(len(dataset), self.rows("train", len(dataset)), train.seed)
        loader = EvalLoader(dataset, train.batch_size, workers=train.workers, only=rows)
        rng, found = Rng(train.seed, "patches"), []
        for batch in tqdm(loader, desc="patch features", unit="batch", disable=quiet()):
            pixels = to_device(batch, context.accelerator.device).pixels
            features = network.look(frames(pixels), config.depth).patches.float()
            picks = rng.uniform(batch.index, (features.shape[1],)).argsort(1)[:, : config.patches]
            picks = picks.to(features.device)[:, :, None].expand(-1, -1, features.shape[2])
            found.append(features.gather(1, picks).flatten(0, 1))
        return torch.cat(found)
