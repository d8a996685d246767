"""Relations between the codes of a codebook follow those of a frozen network's features (GloTok,
arXiv 2511.14184).

This is a reconstruction: no code is public, and the text at hand says only that relations which a
pretrained model induces over the whole data set are transferred to the codebook, and that the model
is not needed while the tokenizer trains. Here its patch features are clustered beforehand (task
`codebook_relations`); the relation of a center, or a code, to all others is softmax(cosine / T), a
histogram over codes, and the loss compares row k of the centers with row k of the codebook.

Letters: K codes, d code width, D feature width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vistok.config import ConfigError
from vistok.config.registry import register
from vistok.core.records import Batch, Reconstruction
from vistok.core.schedules import Progress
from vistok.frozen.files import BadWeights, MissingWeights, hollow, read_state
from vistok.frozen.network import Frozen
from vistok.losses.base import Loss, LossConfig
from vistok.runtime.precision import no_autocast
from vistok.storage.weights import sha256


class CodebookRelationsConfig(LossConfig):
    kind: Literal["codebook_relations"] = "codebook_relations"
    path: str | None = None
    """File of the relations, as the task codebook_relations writes it; any .safetensors file whose
    `tensor` holds K vectors will do, such as a saved tokenizer's. null = no file: every code is to
    be as near as every other."""
    tensor: str = "relations"
    """Name of a tensor in it: cosines [K, K], or vectors [K, D]."""
    of: Literal["cosines", "vectors"] = "cosines"
    """Content of that tensor."""
    codebook: str = "quantizer.codebook"
    """Parameter of the tokenizer with K rows (quantizer.atoms.0.codebook of a residual one)."""
    distance: Literal["kl", "l1"] = "kl"
    """Between two histograms: Kullback-Leibler divergence of the codebook's from the centers', in
    nats, or half the sum of absolute differences."""
    temperature: float = Field(default=0.1, gt=0)
    """T; a small one looks at the nearest codes only."""
    weight: float = Field(default=0.1, ge=0)

    @classmethod
    def tiny(cls) -> CodebookRelationsConfig:
        return cls()


class Relations(Frozen):
    """Cosines [K, K] between the centers of clusters, from a file."""

    recorded = True

    def __init__(self, cosines: Tensor, digest: str = "") -> None:
        super().__init__("relations", digest)
        self.register_buffer("cosines", cosines)
        self.freeze()


@register("loss", CodebookRelationsConfig)
class CodebookRelationsLoss(Loss):
    """Reads a codebook [K, d] of the tokenizer, and nothing of a batch -> `codebook_relations`."""

    needs_pixels = False

    def __init__(self, config: CodebookRelationsConfig) -> None:
        super().__init__(config)
        self.relations: Relations | None = None
        self._owner: list[nn.Module] = []  # of the codebook; in a list: it is the tokenizer's

    @property
    def borrowed(self) -> tuple[nn.Parameter, ...]:
        name = self.config.codebook.rpartition(".")[2]
        return tuple(getattr(owner, name) for owner in self._owner)

    def bind(self, tokenizer: nn.Module) -> None:
        name, parameters = self.config.codebook, dict(tokenizer.named_parameters())
        if name not in parameters or parameters[name].ndim != 2:
            books = [key for key in parameters if key.endswith("codebook")]
            raise ConfigError(
                f"losses: codebook_relations moves '{name}', which is no matrix that gradients "
                f"train; this tokenizer has {', '.join(books) or 'none (an EMA codebook is none)'}"
            )
        # By its owner, since tracing and sharding put other parameters into modules.
        self._owner = [tokenizer.get_submodule(name.rpartition(".")[0])]
        count = len(parameters[name])
        if self.config.path is None or hollow():
            self.relations = Relations(torch.zeros(count, count))
        else:
            self.relations = self._read(count)

    def _read(self, count: int) -> Relations:
        """The file; MissingWeights or BadWeights in one line."""
        config = self.config
        if not Path(config.path).is_file():
            raise MissingWeights(
                f"losses: no relations at {config.path}; make them with `vistok train "
                "jobs/codebook_relations`, or name another file"
            )
        state = read_state(config.path, "codebook_relations")
        found = state.get(config.tensor)
        if found is None or found.ndim != 2:
            raise BadWeights(
                f"losses: {config.path} holds no matrix '{config.tensor}'; it has "
                f"{', '.join(sorted(state)[:8])}"
            )
        cosines = found.float() if config.of == "cosines" else cosines_of(found.float())
        if cosines.shape != (count, count) or not cosines.isfinite().all():
            raise BadWeights(
                f"losses: '{config.tensor}' of {config.path} gives relations "
                f"{tuple(cosines.shape)}; expected finite ones between the {count} codes of "
                f"{config.codebook}"
            )
        return Relations(cosines, sha256(config.path))

    def forward(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        (codebook,) = self.borrowed
        with no_autocast(codebook.device):
            loss = relation_distance(
                codebook.float(),
                self.relations.cosines,
                self.config.temperature,
                self.config.distance,
            )
        return {"codebook_relations": loss}

    def weights(self, progress: Progress) -> dict[str, float]:
        return {"codebook_relations": self.config.weight}


def relation_distance(
    codebook: Tensor, cosines: Tensor, temperature: float, distance: Literal["kl", "l1"]
) -> Tensor:
    """Mean over codes of the distance between the histograms of relations: codebook [K, d] and the
    centers' cosines [K, K] -> scalar."""
    ours = log_histograms(cosines_of(codebook), temperature)
    theirs = log_histograms(cosines, temperature)
    if distance == "kl":
        return (theirs.exp() * (theirs - ours)).sum(1).mean()
    return (ours.exp() - theirs.exp()).abs().sum(1).mean() / 2


def log_histograms(cosines: Tensor, temperature: float) -> Tensor:
    """Logarithm of softmax(cosine / T) over the other codes: [K, K] -> [K, K - 1]."""
    count = len(cosines)
    # Cut behind each element of the diagonal, a row of K + 1 ends with the next one.
    others = cosines.flatten()[1:].view(count - 1, count + 1)[:, :-1].reshape(count, count - 1)
    return (others / temperature).log_softmax(1)


def cosines_of(vectors: Tensor) -> Tensor:
    """Cosines between all vectors: [K, D] -> [K, K]."""
    units = F.normalize(vectors, dim=1)
    return units @ units.T
