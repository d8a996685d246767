"""Evaluate runs: every protocol on every tokenizer and its generators -> Results."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from vistok.eval.context import Context
from vistok.eval.images import Views
from vistok.eval.jobs import Job, Outcome, jobs_of, rows_of
from vistok.eval.options import Options
from vistok.eval.reference.real import RealStats
from vistok.eval.result_cache import ResultCache, facts_of
from vistok.eval.results.compare import agreed
from vistok.eval.results.merge import check_names, joined
from vistok.eval.results.rows import Results, provenance
from vistok.eval.resumable import Cache, digest
from vistok.eval.systems.probe import recipe, with_probe
from vistok.eval.systems.runs import Pair, RunError, open_data, resolve
from vistok.frozen import FeatureNetwork, feature_network, perceptual_network
from vistok.runtime import distributed


def evaluate(
    paths: Sequence[str | Path], options: Options, say: Callable[[str], None] = lambda line: None
) -> Results:
    """Measure all runs. Mistakes in names, configs, data and weights show before any work.

    Args:
        paths: run folders and saved models; files that end in .json are results of an earlier
            evaluation, whose rows are taken over as they are.
        say: gets a line on what was measured before and one on what is measured now.
    """
    earlier = [Results.load(path) for path in paths if Path(path).suffix == ".json"]
    folders = [path for path in paths if Path(path).suffix != ".json"]
    if earlier and not folders:
        check_names((), earlier)
        return joined(earlier[0], earlier[1:])
    pairs = resolve(folders)
    names = [run.name for pair in pairs for run in (pair.tokenizer, *pair.generators)]
    check_names(names, earlier)
    batch = options.batch or (256 if options.device.type == "cuda" else 32)
    datasets = [open_data(pair.tokenizer, options.data) for pair in pairs]
    features, first, *more = _networks(options)
    for pair in pairs:
        for generator in pair.generators:
            _check_pair(pair, generator)
    if options.probe is not None:
        recipe(options.probe)  # a mistake in it shows before the first one is trained
        pairs = [with_probe(pair, options) for pair in pairs]
    folder = None if options.cache is None else Path(options.cache)
    cache = Cache(folder, options.fresh, options.save_every)
    stamp = provenance()
    shared: dict[str, Views] = {}  # runs on the same images share their statistics
    plan: list[tuple[Job, Context]] = []
    data: dict[str, Any] = {}
    for pair, dataset in zip(pairs, datasets, strict=True):
        views = Views(dataset, batch, options.limit, options.device, options.workers, cache)
        # The whole record: one manifest may be cropped to several sizes.
        views = shared.setdefault(json.dumps(views.record, sort_keys=True, default=str), views)
        context = Context(pair.tokenizer, views, features, first, options.seed, stamp)
        context.more_perceptual = tuple(more)
        context.references = _references(options, views, features)
        data[pair.tokenizer.name] = views.record
        plan += [(job, context) for job in jobs_of(pair, options)]
    outcomes = _outcomes(plan, ResultCache(cache), say)
    runs = [run.facts() for pair in pairs for run in (pair.tokenizer, *pair.generators)]
    every = [outcome for done in outcomes.values() for outcome in done]
    facts = {
        "commands": [shlex.join(["python", "-m", "eval", *sys.argv[1:]])],
        "pairs": {p.tokenizer.name: [g.name for g in p.generators] for p in pairs},
        "data": data,
        "features": {"name": features.name, "sha256": features.sha256},
        "world_size": distributed.world_size(),
        "device": str(options.device),
        "skipped": [one for outcome in every for one in outcome.skipped],
        "pictures": [one for outcome in every for one in outcome.pictures],
        **_by_fact(outcomes),
        **stamp,
    }
    return joined(Results(rows=rows_of(every), runs=tuple(runs), facts=facts), earlier)


def _outcomes(
    plan: list[tuple[Job, Context]], result_cache: ResultCache, say: Callable[[str], None]
) -> dict[str, list[Outcome]]:
    """{tokenizer run: the outcomes of its jobs, in order}, found or measured."""
    keys = [digest(facts_of(job, context)) + context.run.name for job, context in plan]
    if len(set(keys)) < len(keys):
        job = next(j for (j, _), key in zip(plan, keys, strict=True) if keys.count(key) > 1)
        raise ValueError(f"two jobs of {job.protocol} have the same settings: {job.settings}")
    found = [result_cache.find(job, context) for job, context in plan]
    known, new = [], []
    for (job, context), outcome in zip(plan, found, strict=True):
        whose = context.run.name if job.generator is None else job.generator.name
        (new if outcome is None else known).append(f"{job.protocol} of {whose}")
    if result_cache.cache.folder is not None:
        say(
            f"{result_cache.cache.folder}: found {len(known)} of {len(plan)} outcomes"
            + _listed(known)
        )
        if new:
            say(f"evaluating {len(new)}" + _listed(new))
    outcomes: dict[str, list[Outcome]] = {}
    for (job, context), outcome in zip(plan, found, strict=True):
        if outcome is None:
            context.tokenizer.to(context.device)
            outcome = result_cache.measure(job, context)
        outcomes.setdefault(context.run.name, []).append(outcome)
    return outcomes


def _listed(names: list[str]) -> str:
    return f": {', '.join(names)}" if names else ""


def _references(options: Options, views: Views, network: FeatureNetwork) -> dict[str, RealStats]:
    """The reference file for each protocol that compares with it; MismatchError, ValueError."""
    if options.reference is None:
        if options.reference_rfid:
            raise ValueError("--reference-rfid needs a file: --reference FILE")
        return {}
    wanted = {"gfid", "rfid"} if options.reference_rfid else {"gfid"}
    used = sorted(wanted & set(options.protocols))
    if not used:
        raise ValueError(
            f"--reference {options.reference}: none of {','.join(options.protocols)} compares with "
            "it; add gfid to --protocols, or --reference-rfid for rfid"
        )
    real, source = RealStats.load(options.reference), f"--reference {options.reference}"
    return {
        name: agreed(real, views, network, name, options.allow_mismatch, source) for name in used
    }


def _by_fact(outcomes: dict[str, list[Outcome]]) -> dict[str, dict[str, Any]]:
    """{fact: {tokenizer run: what its jobs found}}."""
    found: dict[str, dict[str, Any]] = {}
    for run, done in outcomes.items():
        for outcome in done:
            for name, fact in outcome.facts.items():
                found.setdefault(name, {})[run] = fact
    return found


def _networks(options: Options) -> list[Any]:
    """The feature network and the perceptual ones, at least one: None for none."""
    # Channels last: the same numbers to rounding, 1.6 times as fast on CPUs.
    place = {"device": options.device, "memory_format": torch.channels_last}
    features = feature_network(options.features, options.weights).to(**place)
    names = list(dict.fromkeys(options.perceptual))
    if names == ["none"]:
        return [features, None]
    weights = {options.features: options.weights}
    return [features, *(perceptual_network(n, weights.get(n)).to(**place) for n in names)]


def _check_pair(pair: Pair, generator: Any) -> None:
    own, theirs = pair.tokenizer.spec, generator.spec
    if own.blocks != theirs.blocks or own.codebook_size != theirs.codebook_size:
        raise RunError(
            f"{generator.folder}: its tokens are {theirs.blocks} of {theirs.vocab}, those of "
            f"{pair.tokenizer.folder} are {own.blocks} of {own.vocab}; train it again"
        )
