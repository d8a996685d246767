"""Evaluate runs: every protocol on every tokenizer and its generators -> Results."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from vistok.config import ConfigError
from vistok.config.names import nearest
from vistok.core.errors import InputError
from vistok.core.text import printable
from vistok.eval.config import EvalConfig
from vistok.eval.context import Context, media_of
from vistok.eval.images import Views
from vistok.eval.jobs import Outcome, rows_of
from vistok.eval.protocols.base import PROTOCOLS, Job, Skip
from vistok.eval.protocols.gfid import GFID
from vistok.eval.provenance import provenance
from vistok.eval.reference.agreement import agreed
from vistok.eval.reference.real import RealStats
from vistok.eval.report.files import place, run_key
from vistok.eval.result_cache import ResultCache, facts_of, whole
from vistok.eval.results.fdr import with_fdr
from vistok.eval.results.merge import check_names, joined
from vistok.eval.results.names import chosen_names, renamed
from vistok.eval.results.rows import Results
from vistok.eval.results.spread import pooled
from vistok.eval.resumable import Cache, digest
from vistok.eval.systems.probe import recipe, with_probe
from vistok.eval.systems.released import place as place_of
from vistok.eval.systems.runs import RunError, System, open_data, resolve, sides_of
from vistok.frozen import (
    FeatureNetwork,
    PerceptualNetwork,
    feature_network,
    perceptual_network,
)
from vistok.runtime import distributed


def evaluate(
    paths: Sequence[str | Path], config: EvalConfig, say: Callable[[str], None] = lambda line: None
) -> Results:
    """Measure all runs. Mistakes in names, configs, data and weights show before any work.

    Args:
        paths: run folders, saved models and released names; files that end in .json are results of
            an earlier evaluation, whose rows are taken over as they are.
        say: gets a line on what was measured before and one on what is measured now.
    """
    earlier = [Results.load(path) for path in paths if Path(path).suffix == ".json"]
    folders = [path for path in paths if Path(path).suffix != ".json"]
    before = [run["name"] for results in earlier for run in results.runs]
    if earlier and not folders:
        check_names((), earlier)
        names = chosen_names(config.name, before, before)
        return renamed(_with_columns(joined(earlier[0], earlier[1:]), config), names)
    systems = resolve(folders)
    for one in systems:
        if len(folders) == sum(len(system.generators) for system in systems):
            say(f"{one.tokenizer.folder}: the tokenizer of {one.generators[0].folder}")
    found = [run for one in systems for run in (one.tokenizer, *one.generators)]
    check_names([run.name for run in found], earlier)
    own = {run.folder: run.name for run in reversed(found)}
    given = [own[folder] for folder in map(place_of, folders)]
    names = chosen_names(config.name, given, [*(run.name for run in found), *before])
    if config.report is not None:  # before any work
        known = [{"name": run.name, "folder": str(run.folder)} for run in found]
        known += [run for results in earlier for run in results.runs]
        place(config.report, set(map(run_key, known)), config.protocols, config.overwrite)
    device = config.torch_device
    datasets = [open_data(one.tokenizer, config.data) for one in systems]
    networks, perceptual = _feature_networks(config), _perceptual_networks(config)
    for one in systems:
        for generator in one.generators:
            _check_system(one, generator)
    if config.gfid.probe is not None:
        recipe(config.gfid.probe)  # a mistake in it shows before the first one is trained
        systems = [with_probe(one, config) if _generates(one, config) else one for one in systems]
    _check_generator_sampling(systems, config)
    cache = Cache(config.cache_folder, config.fresh, config.save_every)
    stamp = provenance()
    shared: dict[str, Views] = {}  # runs on the same images share their statistics
    plan: list[tuple[Job | Skip, Context]] = []
    data: dict[str, Any] = {}
    sampling = {"generator": config.sampling, "decoder": config.decoder_sampling}
    for system, dataset in zip(systems, datasets, strict=True):
        batch, workers = config.batch_size, config.workers
        views = Views(dataset, batch, config.limit, device, workers, cache, networks=networks)
        # The whole record: one manifest may be cropped to several sizes.
        views = shared.setdefault(json.dumps(views.record, sort_keys=True, default=str), views)
        context = Context(system.tokenizer, views, networks[0], seed=config.seed, stamp=stamp)
        context.more_features = networks[1:]
        if perceptual:
            context.perceptual, context.more_perceptual = perceptual[0], perceptual[1:]
        context.references = _references(config, views, networks)
        context.sampling = {part: changes for part, changes in sampling.items() if changes}
        _check_sampling(system, context, config)
        data[system.tokenizer.name] = views.record
        plan += [(job, context) for job in _jobs(system, context, config)]
    outcomes = _outcomes(plan, ResultCache(cache), say)
    runs = [run.facts() for one in systems for run in (one.tokenizer, *one.generators)]
    every = [outcome for done in outcomes.values() for outcome in done]
    facts = {
        "commands": [printable(shlex.join(["vistok", "eval", *sys.argv[1:]]))],
        "pairs": {p.tokenizer.name: [g.name for g in p.generators] for p in systems},
        "data": data,
        "features": {"name": networks[0].name, "sha256": networks[0].sha256},
        "world_size": distributed.world_size(),
        "device": str(device),
        "config": config.model_dump(mode="json"),
        "skipped": _once(one for outcome in every for one in outcome.skipped),
        "image_grids": [one for outcome in every for one in outcome.image_grids],
        **_by_fact(outcomes),
        **stamp,
    }
    made = Results(rows=with_fdr(pooled(rows_of(every))), runs=tuple(runs), facts=facts)
    return renamed(joined(made, earlier), names)


def _once(skipped: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """What is skipped, each once: all seeds of a pass skip the same."""
    return list({tuple(one.items()): one for one in skipped}.values())


def _with_columns(results: Results, config: EvalConfig) -> Results:
    """Earlier results shown anew, with the columns that are asked for now."""
    if not config.columns:
        return results
    before = results.facts.get("config") or {}
    facts = {**results.facts, "config": {**before, "columns": list(config.columns)}}
    return results.model_copy(update={"facts": facts})


def _jobs(system: System, context: Context, config: EvalConfig) -> list[Job | Skip]:
    """The jobs of all protocols; a skip for one that cannot take the system's samples."""
    found: list[Job | Skip] = []
    for name in config.protocols:
        protocol = PROTOCOLS[name]
        if set(context.media) & set(protocol.media):
            found += protocol.jobs(system, config)
        elif "image" in protocol.media or "protocols" in config.model_fields_set:
            sides = "x".join(map(str, context.sides))
            takes = "images" if "image" in protocol.media else "clips"
            reason = f"it takes {takes} only; the samples of this tokenizer are {sides}"
            found.append(Skip(name, reason))
    return found


def _outcomes(
    plan: list[tuple[Job | Skip, Context]], results: ResultCache, say: Callable[[str], None]
) -> dict[str, list[Outcome]]:
    """{tokenizer run: the outcomes of its jobs, in order}, found or measured."""
    jobs = [(job, context) for job, context in plan if isinstance(job, Job)]
    keys = [digest(facts_of(job, context)) + context.run.name for job, context in jobs]
    if len(set(keys)) < len(keys):
        job = next(j for (j, _), key in zip(jobs, keys, strict=True) if keys.count(key) > 1)
        raise InputError(f"two jobs of {job.protocol.name} have the same config: {job.config}")
    found = {key: results.find(*one) for key, one in zip(keys, jobs, strict=True)}
    old, new = [], []
    for (job, context), outcomes in zip(jobs, found.values(), strict=True):
        named = f"{job.protocol.name} of {job.whose or context.run.name}"
        pairs = zip(context.networks, outcomes, strict=False)  # or of the first network alone
        missing = [network.name for network, outcome in pairs if outcome is None]
        through = f" through {', '.join(missing)}" if 0 < len(missing) < len(outcomes) else ""
        (new if missing else old).append(named + through)
    if results.cache.folder is not None:
        say(f"{results.cache.folder}: found {len(old)} of {len(jobs)} outcomes" + _listed(old))
        if new:
            say(f"evaluating {len(new)}" + _listed(new))
    outcomes: dict[str, list[Outcome]] = {}
    rest = iter(found.values())
    for job, context in plan:
        if isinstance(job, Skip):
            why = {"protocol": job.what, "run": job.run or context.run.name, "reason": job.reason}
            outcome = Outcome(skipped=(why,))
        elif None in (known := next(rest)):
            context.tokenizer.to(context.device)
            outcome = results.measure(job, context, known)
        else:
            outcome = whole(known, context)
        outcomes.setdefault(context.run.name, []).append(outcome)
    return outcomes


def _generates(system: System, config: EvalConfig) -> bool:
    """True if gFID is asked for and can take the samples of this tokenizer."""
    media = media_of(sides_of(system.tokenizer.tokenizer))
    return GFID.name in config.protocols and media in GFID.media


def _check_generator_sampling(systems: Sequence[System], config: EvalConfig) -> None:
    """ConfigError for settings of generators where there is none: nothing would look at them."""
    if not config.sampling or any(system.generators for system in systems):
        return
    hint = "name the run of a generator, or leave it out"
    if any(getattr(one.tokenizer.tokenizer, "sampling", None) is not None for one in systems):
        key = next(iter(config.sampling))
        hint = f"for the decoder use decoder_sampling.{key}={config.sampling[key]}, or {hint}"
    raise ConfigError(
        f"sampling={config.sampling}: settings of a generator, and no generator is evaluated; "
        f"{hint}"
    )


def _check_sampling(system: System, context: Context, config: EvalConfig) -> None:
    """ConfigError for sampling settings that no part of the system has, before any work."""
    for generator in system.generators:
        generator.generator.settings(config.sampling)
    if config.decoder_sampling and getattr(system.tokenizer.tokenizer, "sampling", None) is None:
        raise RunError(
            f"{system.tokenizer.folder}: decoder_sampling={config.decoder_sampling}: its decoder "
            "does not sample; leave it out"
        )
    context.decoder_sampling  # noqa: B018  (validates them)


def _listed(names: list[str]) -> str:
    return f": {', '.join(names)}" if names else ""


def _references(
    config: EvalConfig, views: Views, networks: Sequence[FeatureNetwork]
) -> dict[str, dict[str, RealStats]]:
    """The reference file of each network, for each protocol that compares with it; MismatchError,
    ValueError."""
    if config.reference is None:
        if config.reference_rfid:
            raise InputError("reference_rfid=true needs a file: reference=FILE")
        return {}
    wanted = {"gfid", "rfid"} if config.reference_rfid else {"gfid"}
    used = sorted(wanted & set(config.protocols))
    if not used:
        raise InputError(
            f"reference={config.reference}: none of {','.join(config.protocols)} compares with it; "
            "add gfid to protocols, or reference_rfid=true for rfid"
        )
    asked = {one.name: one for one in networks if "fid" in one.measures}
    files = _by_network("reference", config.reference, tuple(asked))
    if missing := [name for name in asked if name not in files]:
        raise InputError(
            f"reference={config.reference}: no file for {', '.join(missing)}; expected one for "
            "each of features"
        )
    found: dict[str, dict[str, RealStats]] = {name: {} for name in used}
    for network, file in files.items():
        real, source = RealStats.load(file), f"reference={file}"
        for name in used:
            allowed = config.allow_mismatch
            agree = agreed(real, views, asked[network], name, allowed, source)
            found[name][network] = agree
    return found


def _by_network(key: str, given: Any, names: Sequence[str]) -> dict[str, str]:
    """{network: file} of a key that names one file, or a file for each network."""
    if given is None or isinstance(given, dict):
        for name in given or ():
            if name not in names:
                raise InputError(f"{key}.{name}: no such network here; {nearest(name, names)}")
        return dict(given or {})
    if len(names) > 1:
        raise InputError(
            f"{key}={given}: one file for {', '.join(names)}; name the network: "
            f"{key}.{names[0]}={given}"
        )
    return {names[0]: given} if names else {}


def _by_fact(outcomes: dict[str, list[Outcome]]) -> dict[str, dict[str, Any]]:
    """{fact: {tokenizer run: what its jobs found}}."""
    found: dict[str, dict[str, Any]] = {}
    for run, done in outcomes.items():
        for outcome in done:
            for name, fact in outcome.facts.items():
                found.setdefault(name, {})[run] = fact
    return found


def _feature_networks(config: EvalConfig) -> tuple[FeatureNetwork, ...]:
    """The feature networks that are asked for, in order; InputError if the first has no Fréchet
    distance, which all protocols may take."""
    weights = _weights(config)
    found = [feature_network(name, weights.get(name)) for name in config.features]
    if "fid" not in found[0].measures:
        raise InputError(
            f"features={found[0].name}: no Fréchet distance is defined on it; name another before "
            f"it: features=[vistok-cnn,{found[0].name}]"
        )
    return tuple(one.to(**_place(config)) for one in found)


def _perceptual_networks(config: EvalConfig) -> tuple[PerceptualNetwork, ...]:
    """The perceptual networks that are asked for, in order."""
    weights = _weights(config)
    names = [name for name in dict.fromkeys(config.perceptual) if name != "none"]
    return tuple(perceptual_network(n, weights.get(n)).to(**_place(config)) for n in names)


def _weights(config: EvalConfig) -> dict[str, str]:
    """{network: its weight file}, where files are named."""
    if isinstance(config.weights, dict):
        names = dict.fromkeys((*config.features, *config.perceptual))
        return _by_network("weights", config.weights, tuple(names))
    return _by_network("weights", config.weights, config.features)


def _place(config: EvalConfig) -> dict[str, Any]:
    """Where networks are put. Channels last: the same numbers to rounding, 1.6 times as fast on
    CPUs."""
    return {"device": config.torch_device, "memory_format": torch.channels_last}


def _check_system(system: System, generator: Any) -> None:
    own, theirs = system.tokenizer.spec, generator.spec
    if own.blocks != theirs.blocks or own.codebook_size != theirs.codebook_size:
        raise RunError(
            f"{generator.folder}: its tokens are {theirs.blocks} of {theirs.vocab}, those of "
            f"{system.tokenizer.folder} are {own.blocks} of {own.vocab}; train it again"
        )
