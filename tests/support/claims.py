"""Constructed results: numbers of runs and seeds whose truth is known."""

from vistok.config import Config, validate
from vistok.eval.results.rows import Network, Reference, Results, Row
from vistok.eval.study.claims import ClaimConfig
from vistok.eval.study.claims.judge import judge


class One(Config):
    claim: ClaimConfig


def claim(kind, **keys):
    """A claim's config."""
    given = {"kind": kind, "id": "c", "says": "Something is so.", **keys}
    return validate(One, {"claim": given}, "test").claim


REFERENCE = Reference(name="x", split="val", manifest="m", count=600)
GENERATED = ("gFID", "gFID-untrained")


def results(values, networks=("n",), losses=None, sizes=None, intervals=None):
    """Results, and what was made of which run.

    Args:
        values: {(run, seed): {metric: number, or {kept tokens: number}}}.
        losses: {run: networks of its loss}. sizes: {run: {tokens, bits, parameters}}.
        intervals: {(run, seed, metric): interval}.
    """
    rows, runs, pairs, made = [], [], {}, {}
    for (run, seed), own in values.items():
        name = f"seed{seed}/{run}"
        made[name] = (run, seed)
        pairs[name] = [f"{name}/probe"]
        size = {"tokens": 16, "bits": 160, "parameters": 1000, **(sizes or {}).get(run, {})}
        curves = [one for one in own.values() if isinstance(one, dict)]
        lengths = {length for curve in curves for length in curve} | {size["tokens"]}
        bits = size["bits"] / size["tokens"]
        for network in networks:
            for metric, number in own.items():
                curve = number if isinstance(number, dict) else {size["tokens"]: number}
                for length, value in curve.items():
                    rows.append(
                        Row(
                            metric=metric,
                            value=value,
                            interval=(intervals or {}).get((run, seed, metric)),
                            run=pairs[name][0] if metric in GENERATED else name,
                            sampling={"generator": {"guidance": 1.0}}
                            if metric in GENERATED
                            else {},
                            reference=REFERENCE,
                            features=Network(name=network, sha256="0"),
                            count=600,
                            length=length,
                        )
                    )
        task = {"losses": [{"kind": "perceptual", "network": one}
                           for one in (losses or {}).get(run, ())]}  # fmt: skip
        runs.append(
            {
                "name": name,
                "kind": "tokenizer",
                "sha256": name,
                "folder": name,
                "parameters": size["parameters"],
                "config": {"task": task},
                "lengths": {str(n): {"tokens": n, "bits": n * bits} for n in sorted(lengths)},
            }
        )
    found = Results(rows=tuple(rows), runs=tuple(runs), facts={"pairs": pairs})
    return found, made


def verdict(given, numbers, **more):
    """The facts of a claim on constructed numbers."""
    return judge(given, *results(numbers, **more))
