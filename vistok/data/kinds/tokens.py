"""Token caches as training data of generators and of probes on tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.rng import Rng
from vistok.data.base import (
    DataError,
    Dataset,
    Sample,
    Split,
    augments,
    held_out,
    manifest_hash,
    one_line,
)
from vistok.data.token_cache import EMPTY, META, TokenCache
from vistok.storage.lineage import Identity, pairing
from vistok.storage.trained import RUN_CONFIG

LOGVARS = (-30.0, 20.0)  # to which log variances are clamped, as by the quantizer kl


class CachedTokensConfig(Config):
    """Cached tokens: folders that the cache task wrote."""

    kind: Literal["tokens"] = "tokens"
    path: str
    """The run whose tokens `vistok cache` wrote, their folder (which holds train and val), or the
    cache of the training split alone."""
    val_path: str | None = None
    """The cache of the validation split; null = the one called val beside that of the training
    split, if `path` holds both."""
    val_share: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Share of `path` held out for validation, by a stable hash of the sample's number."""
    posterior: bool = False
    """Training reads samples of a normal posterior (quantizer kl), other ones in every epoch,
    instead of its means: means and log variances are the latents of the cache (task.latents).
    Held-out tokens are the means."""

    @model_validator(mode="after")
    def _places(self) -> CachedTokensConfig:
        if self.val_share is not None and self.val_path is not None:
            raise InputError(
                f"got val_share={self.val_share} and val_path={self.val_path}; give one of them"
            )
        return self


@register("data", CachedTokensConfig)
class CachedTokens:
    """The data part `tokens`."""

    def __init__(self, config: CachedTokensConfig) -> None:
        self.config = config

    def open(self, split: Split, augment: bool | None = None) -> Dataset:
        """Map a finished cache; DataError if it is unfinished, damaged or lacks the split.

        Of several cached crops, augmentation draws one; without it the center is taken.
        """
        config, augment = self.config, augments(split, augment)
        path, val_path = _caches(config)
        if split == "val" and val_path is not None:
            train, cache = TokenCache(path), TokenCache(val_path)
            mine, theirs = (one.meta["tokenizer"] for one in (train, cache))
            if train.spec != cache.spec or not pairing(mine, Identity.of(theirs)).fits:
                raise DataError(
                    f"data.tokens {val_path}: made by another tokenizer "
                    f"({theirs['name']}) than {path} "
                    f"({mine['name']}); cache both with the same weights"
                )
            if train.classes != cache.classes:
                raise DataError(
                    f"data.tokens {val_path}: has other classes ({_classes(cache)}) than "
                    f"{path} ({_classes(train)}); cache both from data with the same classes"
                )
            if train.arrays != cache.arrays:
                raise DataError(
                    f"data.tokens {val_path}: holds {_arrays(cache)}, but {path} "
                    f"{_arrays(train)}; cache both with the same options"
                )
            return CachedTokensDataset(cache, None, split, augment, config.posterior)
        if split == "val" and config.val_share is None:
            raise DataError(
                f"data.tokens {config.path}: no validation split; give val_path or val_share"
            )
        cache = TokenCache(path)
        return CachedTokensDataset(cache, config.val_share, split, augment, config.posterior)


def _caches(config: CachedTokensConfig) -> tuple[Path, Path | None]:
    """The caches of both splits; DataError for a run without cached tokens.

    A cache that is named by itself has no validation split besides `val_path`.
    """
    path = Path(config.path)
    val_path = None if config.val_path is None else Path(config.val_path)
    if (path / META).exists():
        return path, val_path
    for folder in (path, path / "tokens"):
        if (folder / "train" / META).exists():
            beside = folder / "val"
            if val_path is None and config.val_share is None and (beside / META).exists():
                val_path = beside
            return folder / "train", val_path
    if (path / RUN_CONFIG).is_file():
        raise DataError(
            f"data.tokens {path}: no cached tokens in {path / 'tokens'}; write them first: vistok "
            f"cache {path}"
        )
    return path, val_path


class CachedTokensDataset(Dataset):
    """Samples of a cache; of several crops, `augment` draws one by (seed, epoch, index).

    Otherwise the center is taken. With `posterior`, `augment` samples the tokens as well.
    """

    def __init__(
        self,
        cache: TokenCache,
        val_share: float | None,
        split: Split,
        augment: bool,
        posterior: bool = False,
    ) -> None:
        self.augment, self.posterior = augment, posterior
        if posterior:
            _check_posterior(cache)
        self.cache, self.spec, self.classes = cache, cache.spec, cache.classes
        self.split, self.val_share = split, val_share
        arrays = cache.arrays.items()
        unread = (*EMPTY, "latents") if posterior else EMPTY
        self.features = {name: one.shape for name, one in arrays if name not in unread}
        self.empty_text = cache.empty_text()
        rows = range(len(cache))
        if val_share is not None:
            keep = split == "val"
            rows = [row for row in rows if held_out(f"sample {row}", val_share) == keep]
        self._rows = np.array(rows, np.int64)
        if not len(self):
            raise DataError(
                f"data.tokens {cache.path}: val_share={val_share} leaves no sample to the {split} "
                f"split; change val_share or give val_path"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        row, crops = int(self._rows[index]), self.cache.crops
        crop = self.cache.center
        if crops > 1 and self.augment:
            crop = int(Rng(seed, "crop", epoch).generator(index).integers(crops))
        tokens, label = self.cache.row(row, crop)
        latents = self.cache.latents(row, crop)
        if self.posterior:
            if self.augment:
                tokens = _sampled(latents, Rng(seed, "posterior", epoch).generator(index))
            latents = None
        return Sample(
            index,
            None,
            label,
            f"{self.cache.path.name}[{row}]",
            tokens,
            latents=latents,
            space=self.cache.space(row, crop),
            prefix=self.cache.prefix(row, crop),
            condition=self.cache.condition(row),
        )

    def record(self) -> dict[str, Any]:
        """`manifest` covers the tokenizer and the record of the images that were tokenized."""
        meta = self.cache.meta
        facts = [f"{key} {meta[key]}" for key in ("spec", "count", "crops", "source", "tokenizer")]
        arrays = {"arrays": meta["arrays"]} if self.features else {}
        facts += [f"{key} {value}" for key, value in arrays.items()]
        if self.val_share is not None:
            facts.append(f"{self.split} val_share={self.val_share}")
        if self.posterior:
            facts.append("posterior")
        return {
            "kind": "tokens",
            "source": str(self.cache.path),
            "split": self.split,
            "val_share": self.val_share,
            "count": len(self),
            "classes": len(self.classes),
            "crops": self.cache.crops,
            **arrays,
            "tokenizer": meta["tokenizer"],
            "images": meta["source"],
            "manifest": manifest_hash(facts),
        }


def _check_posterior(cache: TokenCache) -> None:
    """DataError unless the cache holds means and log variances of its tokens."""
    wanted, found = (cache.spec.length, 2 * cache.spec.dim), cache.arrays.get("latents")
    if cache.spec.vocab or found is None or found.shape != wanted:
        what = "codes" if cache.spec.vocab else f"continuous tokens with {_arrays(cache)}"
        raise DataError(
            f"data.tokens {cache.path}: posterior=true for {what}; expected tokens of a quantizer "
            f"kl with their latents {list(wanted)}: cache them with task.latents=true, or set "
            "posterior=false"
        )


def _sampled(latents: Tensor, rng: np.random.Generator) -> Tensor:
    """A sample [L, dim] of the posterior whose means and log variances [L, 2 dim] these are."""
    mean, logvar = latents.float().chunk(2, dim=-1)
    noise = torch.from_numpy(rng.standard_normal(mean.shape, dtype=np.float32))
    return mean + (0.5 * logvar.clamp(*LOGVARS)).exp() * noise


def _classes(cache: TokenCache) -> str:
    """The classes of a cache, for messages."""
    few = ", ".join(one_line(name) for name in cache.classes[:3])
    return f"{len(cache.classes)}: {few}" + ", ..." * (len(cache.classes) > 3)


def _arrays(cache: TokenCache) -> str:
    """The optional arrays of a cache, for messages."""
    named = (f"{name} {list(one.shape)} {one.dtype}" for name, one in cache.arrays.items())
    return ", ".join(named) or "tokens alone"
