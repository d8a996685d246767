"""The real side of a Fréchet distance: statistics of real images and how they were made.

A reference file holds mean [D], cov [D, D] (divisor count - 1) in fp64 and a protocol record, as
.safetensors or as .npz (mu, sigma, count, protocol), sealed: an edited one is refused. An .npz of
the kind that ADM published (mu, sigma, nothing else) is read too: what it does not say stays
unknown (None), and rows say so.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from vistok.config.bounded import parse_json
from vistok.config.errors import UserError
from vistok.core.errors import InputError
from vistok.core.regular_files import check_regular
from vistok.eval.results.rows import Network, Reference
from vistok.eval.resumable import digest, read_tensors, write_tensors
from vistok.metrics import FeatureStats
from vistok.storage.files import replacing
from vistok.storage.sealed import SEAL
from vistok.storage.weights import sha256

SCHEMA = 1
UNKNOWN = "unknown"  # the split of statistics that do not name it; their count is 0
_RECORD = "vistok-reference"


class StatsError(UserError, ValueError):
    """A reference file that cannot be used; the message is one line."""


@dataclass(frozen=True)
class RealStats:
    """Statistics and all that must agree with the images they are compared to.

    None: the file does not say. A reference whose count is 0 does not say that either.
    """

    stats: FeatureStats
    network: Network | None
    reference: Reference
    crop: str | None
    filter: str | None
    size: tuple[int, ...] | None
    made: dict[str, Any] = field(default_factory=dict)  # versions, commit, date
    remarks: tuple[str, ...] = ()  # mismatches that were allowed: they go into every row's note

    @property
    def protocol(self) -> dict[str, Any]:
        """Row fields that follow from the reference; what it does not know is left out."""
        known = {
            "features": self.network,
            "reference": self.reference,
            "crop": self.crop,
            "filter": self.filter,
            "size": self.size,
        }
        return {name: value for name, value in known.items() if value is not None}

    @property
    def unknown(self) -> tuple[str, ...]:
        """Fields that it does not give, as names of `agreement.FIELDS`."""
        says = {
            "network": self.network,
            "crop": self.crop,
            "filter": self.filter,
            "size": self.size,
            "split": None if self.reference.split == UNKNOWN else self.reference.split,
            "count": self.reference.count or None,
        }
        return tuple(name for name, value in says.items() if value is None)

    @property
    def note(self) -> str:
        """Note of a row that is measured against it."""
        unsaid = self.unknown and (f"the reference does not say its {', '.join(self.unknown)}",)
        return "; ".join((*unsaid, *self.remarks))

    @property
    def identity(self) -> str:
        """sha256 over the numbers, the protocol and the remarks: part of a row's key."""
        moments = hashlib.sha256(self.stats.mean.tobytes())
        moments.update(self.stats.cov.tobytes())
        record = {name: value for name, value in self._record().items() if name != "made"}
        return digest([moments.hexdigest(), record, self.remarks])

    def _record(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "network": None if self.network is None else self.network.model_dump(),
            "reference": self.reference.model_dump(),
            "crop": self.crop,
            "filter": self.filter,
            "size": self.size,
            "made": self.made,
        }

    def save(self, path: str | Path, exact: bool = False) -> None:
        """Write a reference file, .safetensors or .npz by its ending (renamed into place).

        `exact` (.safetensors): the scatter instead of the covariance, whose divisor may cost the
        last bit.
        """
        path = Path(path)
        mean, cov, record = self.stats.mean, self.stats.cov, self._record()
        if path.suffix == ".safetensors":
            tensors = {"mean": torch.from_numpy(mean), "cov": torch.from_numpy(cov)}
            count = torch.tensor(self.stats.count)
            tensors = self.stats.state_dict() if exact else {**tensors, "count": count}
            write_tensors(path, tensors, _RECORD, record)
        elif path.suffix == ".npz":
            record = json.loads(json.dumps(record))
            count = np.int64(self.stats.count)
            record[SEAL] = _seal(mean, cov, count, record)
            text = np.array(json.dumps(record, ensure_ascii=False))  # of characters: no pickle
            with replacing(path) as draft, open(draft, "wb") as file:
                np.savez(file, mu=mean, sigma=cov, count=count, protocol=text)
        else:
            raise StatsError(f"{path}: expected a name that ends in .safetensors or .npz")

    @classmethod
    def load(cls, path: str | Path) -> RealStats:
        """Read a reference file; a one-line error for anything else. Never unpickles."""
        path = Path(path)
        if not path.is_file():
            raise StatsError(
                f"{path}: no such file; expected reference statistics: vistok eval reference "
                "RUN out=FILE makes them"
            )
        try:
            if path.suffix == ".npz":
                return _from_npz(path)
            tensors, record = read_tensors(path, _RECORD)
            if "scatter" in tensors:
                tensors["cov"] = tensors["scatter"] / (int(tensors["count"]) - 1)
            real = _from_record(tensors["mean"], tensors["cov"], record, int(tensors["count"]))
            if "scatter" in tensors:  # checked, now to the last bit
                real.stats.load_state_dict(tensors)
            return real
        except (ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile) as error:
            first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise StatsError(
                f"{path}: not reference statistics ({' '.join(str(first).split())}); expected what "
                "vistok eval reference writes, or an .npz with mu and sigma"
            ) from None


def _from_record(mean: Any, cov: Any, record: dict[str, Any], count: int) -> RealStats:
    if record.get("schema") != SCHEMA:
        raise InputError(f"schema {record.get('schema')!r}, expected {SCHEMA}")
    reference = Reference.model_validate(record["reference"])
    network, size = record["network"], record["size"]
    return RealStats(
        FeatureStats.from_moments(mean, cov, count),
        None if network is None else Network.model_validate(network),
        reference,
        record["crop"],
        record["filter"],
        None if size is None else tuple(map(int, size)),
        dict(record["made"]),
    )


def _seal(mean: np.ndarray, cov: np.ndarray, count: np.ndarray, record: dict[str, Any]) -> str:
    """sha256 over the numbers and the record of an .npz."""
    moments = hashlib.sha256(np.ascontiguousarray(mean).tobytes())
    moments.update(np.ascontiguousarray(cov).tobytes())
    return digest([moments.hexdigest(), int(count), record])


def _from_npz(path: Path) -> RealStats:
    check_regular(path)
    with np.load(path, allow_pickle=False) as file:
        names = set(file.files)
        if "protocol" in names:
            record = parse_json(str(file["protocol"]), "its protocol record")
            mean, cov, count = (file[name] for name in ("mu", "sigma", "count"))
            if not isinstance(record, dict):
                raise InputError("its protocol is no record")
            if record.pop(SEAL, None) != _seal(mean, cov, count, record):
                raise InputError("its seal does not fit its content; it was damaged or edited")
            return _from_record(mean, cov, record, int(count))
        if not {"mu", "sigma"} <= names:
            raise InputError(f"it holds {', '.join(sorted(names)) or 'nothing'}")
        mean, cov = file["mu"], file["sigma"]
    # The count only scales the scatter back and forth; this one brings no warning of few samples.
    stats = FeatureStats.from_moments(mean, cov, max(2, mean.size))
    reference = Reference(
        name=path.stem,
        split=UNKNOWN,
        manifest=sha256(path),
        count=0,
        described=f"statistics file {path.name} without a protocol record; its hash is the file's",
    )
    return RealStats(stats, None, reference, None, None, None)
