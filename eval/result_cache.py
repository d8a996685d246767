"""The result cache: numbers that were measured before are found again, not measured again.

An outcome is kept as one JSON file under the hash of all that its numbers depend on: protocol and
the digest of its config, weights and configs of tokenizer and generator, images, networks,
reference, sampling settings, seed, precision, kind of device. Names, folders, batch size and the
number of processes are no part of it: a run that was renamed is found, and shown by its new name.
Of a job that is measured through several feature networks an outcome is kept for each of them, with
the rows of that network and those of none: one more network is measured alone.
Each file is sealed: one that was damaged or edited is not used, and that is said.
Versions, commit and date of a row stay those of its measurement. After a change of the code:
fresh=true.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
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

    def find(self, job: Job, context: Context) -> list[Outcome | None]:
        """The outcomes of an earlier evaluation under today's names, of each network that the job
        looks through; None for one that is missing. The same ones are missing on all ranks; the
        rows are on the first rank alone."""
        found: list[Outcome | None] = []
        for one in looking(job, context):
            first = distributed.rank() == 0 and not self.cache.fresh
            outcome = self._read(job, one) if first else None
            there = distributed.agree(outcome is not None)
            found.append((outcome or Outcome()) if there else None)
        return found

    def measure(self, job: Job, context: Context, known: Sequence[Outcome | None]) -> Outcome:
        """The whole outcome: the job is done (going on where an earlier evaluation was killed)
        through the networks whose outcomes are not `known`, and what it made is kept."""
        parts = zip(looking(job, context), known, strict=True)
        new = [one for one, outcome in parts if outcome is None]
        facts = [facts_of(job, one) for one in new]
        keys = list(map(digest, facts))
        passes = self.cache.passes(keys[0] if len(keys) == 1 else digest(keys))
        outcome = do(job, context.seen_by(*(one.features for one in new)), passes)
        made = [of_network(outcome, one, context) for one in new]
        if distributed.rank() == 0:
            for key, fact, own in zip(keys, facts, made, strict=True):
                self._write(key, fact, own, _names(job, context))
        passes.clear()
        rest = iter(made)
        return whole([next(rest) if one is None else one for one in known], context)

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


def looking(job: Job, context: Context) -> list[Context]:
    """The contexts, of one feature network each, whose outcomes a job's is made of."""
    return context.each() if job.protocol.every_network else [context.seen_by(context.features)]


def of_network(outcome: Outcome, one: Context, every: Context) -> Outcome:
    """The part of an outcome that the only network of `one` has made, and what no feature network
    of `every` has."""
    mine = lambda name: name is None or name == one.features.name
    rows = tuple(row for row in outcome.rows if mine(seen_through(row, every)))
    skipped = tuple(skip for skip in outcome.skipped if mine(skip.get("network")))
    return replace(outcome, rows=rows, skipped=skipped)


def whole(outcomes: Sequence[Outcome], context: Context) -> Outcome:
    """The whole outcome of a job, from those of its networks: the first one's, and what the others
    have beside it, which is what they have seen themselves."""
    first, *more = outcomes
    rows, skipped = list(first.rows), list(first.skipped)
    for network, outcome in zip(context.more_features, more, strict=False):  # or the first alone
        rows += [row for row in outcome.rows if seen_through(row, context) == network.name]
        skipped += [one for one in outcome.skipped if one.get("network") == network.name]
    return replace(first, rows=tuple(rows), skipped=tuple(skipped))


def seen_through(row: Row, context: Context) -> str | None:
    """The feature network of the context that a row was measured through; None for none of them:
    a perceptual network may have the name of one."""
    names = {network.name for network in context.networks}
    perceptual = [network_of(network) for network in context.perceptuals]
    known = row.features is not None and row.features.name in names
    return row.features.name if known and row.features not in perceptual else None


def facts_of(job: Job, context: Context) -> dict[str, Any]:
    """Everything that a job's numbers depend on, as JSON, of a context of one feature network."""
    real = context.references.get(job.protocol.name, {}).get(context.features.name)
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
        **({} if job.identity is None else {"images": job.identity}),
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
