"""The result cache: numbers that were measured before are found again, not measured again.

An outcome is kept as one JSON file under the hash of all that its numbers depend on: protocol and
the digest of its config, weights and configs of tokenizer and generator, images, networks,
reference, sampling settings, seed, precision, kind of device. Names, folders, batch size and the
number of processes are no part of it: a run that was renamed is found, and shown by its new name.
Each file is sealed: one that was damaged or edited is not used, and that is said.
Versions, commit and date of a row stay those of its measurement. After a change of the code:
fresh=true.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from vistok.core.errors import InputError
from vistok.eval.context import Context
from vistok.eval.images import network_of
from vistok.eval.jobs import Job, Outcome, do
from vistok.eval.results.names import renamed_one, renamed_row
from vistok.eval.results.rows import Row
from vistok.eval.resumable import Cache, digest
from vistok.eval.systems.runs import Run
from vistok.runtime import distributed
from vistok.storage.files import write_text
from vistok.storage.sealed import read_sealed, sealed

SCHEMA = 2
_KIND = "vistok-outcome"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResultCache:
    """Outcomes in a cache folder; without one nothing is found and nothing kept."""

    cache: Cache

    def find(self, job: Job, context: Context) -> Outcome | None:
        """The outcome of an earlier evaluation under today's names. All ranks get the same answer,
        the rows on the first rank alone."""
        found = None
        if distributed.rank() == 0 and not self.cache.fresh:
            found = self._read(job, context)
        if distributed.agree(found is not None):
            return found or Outcome()
        return None

    def measure(self, job: Job, context: Context) -> Outcome:
        """Do the job (going on where an earlier evaluation was killed) and keep what it made."""
        facts = facts_of(job, context)
        key = digest(facts)
        passes = self.cache.passes(key)
        outcome = do(job, context, passes)
        if distributed.rank() == 0:
            self._write(key, facts, outcome, _names(job, context))
        passes.clear()
        return outcome

    def _read(self, job: Job, context: Context) -> Outcome | None:
        key = digest(facts_of(job, context))
        path = self.cache.path(_file(job.protocol.name, key))
        if path is None or not path.is_file():
            return None
        try:
            data = read_sealed(path)
            head = (data["kind"], data["schema"], data["key"])
            if head != (_KIND, SCHEMA, key):
                raise InputError("it is no outcome of this job")
            outcome = _outcome(data["outcome"])
            new = dict(zip(data["names"], _names(job, context), strict=True))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            reason = " ".join(str(first).split()) or type(error).__name__
            reason = reason.removeprefix(f"{path}: ")
            log.warning("%s: cannot be used (%s); evaluated again", path, reason)
            return None
        return renamed(outcome, {old: name for old, name in new.items() if old != name})

    def _write(
        self, key: str, facts: dict[str, Any], outcome: Outcome, names: tuple[str, ...]
    ) -> None:
        path = self.cache.path(_file(facts["protocol"], key))
        if path is None:
            return
        data = {
            "kind": _KIND,
            "schema": SCHEMA,
            "key": key,
            "of": facts,
            "names": list(names),
            "outcome": {
                "rows": [row.model_dump(mode="json", exclude={"display"}) for row in outcome.rows],
                "facts": outcome.facts,
                "skipped": list(outcome.skipped),
                "image_grids": list(outcome.image_grids),
            },
        }
        plain = json.loads(json.dumps(data, allow_nan=False, default=str))
        write_text(path, sealed(plain))


def facts_of(job: Job, context: Context) -> dict[str, Any]:
    """Everything that a job's numbers depend on, as JSON."""
    real = context.references.get(job.protocol.name)
    sampling = ("decoder",) if job.generator is None else ("decoder", "generator")
    looked = (context.features, *context.perceptuals, *job.networks)
    return {
        "protocol": job.protocol.name,
        "version": job.protocol.version,
        "config": digest(job.config.model_dump(mode="json")),
        "sampling": {part: how for part, how in context.sampling.items() if part in sampling},
        "tokenizer": _model(context.run),
        "generator": None if job.generator is None else _model(job.generator),
        "data": context.views.identity,
        "networks": [network_of(network).model_dump() for network in looked],
        "reference": None if real is None else real.identity,
        "seed": context.seed if job.seed is None else job.seed,
        "precision": "fp32",  # the only one that `images.exact` allows
        "device": context.device.type,
    }


def renamed(outcome: Outcome, names: dict[str, str]) -> Outcome:
    """The outcome with runs called by other names, where they stand as names.

    A row's or grid's run may be a name or start with it ("tok/probe-tiny"); a note names one as
    "tokens of NAME", at its end or before "; ".
    """
    if not names:
        return outcome
    rows = [renamed_row(row, names) for row in outcome.rows]
    return Outcome(
        tuple(rows),
        _walk(outcome.facts, names),
        tuple(_walk(one, names) for one in outcome.skipped),
        tuple(_walk(one, names) for one in outcome.image_grids),
    )


def _model(run: Run) -> dict[str, str]:
    return {"weights": run.sha256, "config": digest(run.described)}


def _names(job: Job, context: Context) -> tuple[str, ...]:
    return (context.run.name, *(() if job.generator is None else (job.generator.name,)))


def _file(protocol: str, key: str) -> str:
    return f"{protocol}-{key[:32]}.json"


def _outcome(data: dict[str, Any]) -> Outcome:
    rows, dicts = (
        tuple(map(Row.model_validate, data["rows"])),
        (data["skipped"], data["image_grids"]),
    )
    if not all(isinstance(one, dict) for one in (data["facts"], *dicts[0], *dicts[1])):
        raise InputError("facts, skipped and image_grids are not as they were written")
    return Outcome(rows, data["facts"], *map(tuple, dicts))


def _walk(value: Any, names: dict[str, str]) -> Any:
    """JSON with the names replaced in every field called run or name."""
    if isinstance(value, dict):
        return {
            key: renamed_one(one, names)
            if key in ("run", "name") and isinstance(one, str)
            else _walk(one, names)
            for key, one in value.items()
        }
    return [_walk(one, names) for one in value] if isinstance(value, list | tuple) else value
