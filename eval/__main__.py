"""`python -m eval RUN... --report PATH`, and the verbs `reference DATA --out FILE`, `speed RUN...`
and `study FILE`. All but the study run under torchrun too.

A first argument that is exactly a verb is the verb; a folder of that name is `./speed`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from vistok.config.errors import one_line_errors

VERBS = ("speed", "reference", "study")


def _words(context, parameter, text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(context, parameter, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"'{text}': expected numbers like 1.0,1.5") from None
    if any(value < 0 for value in values):
        raise click.BadParameter(f"'{text}': expected 0 or more")
    return values


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--report", type=click.Path(dir_okay=False), help="HTML file; the others go beside.")
@click.option(
    "--features",
    default="vistok-cnn",
    show_default=True,
    help="Network of Fréchet distances: vistok-cnn, inception, dinov2 or clip.",
)
@click.option("--weights", type=click.Path(), help="Its weight file, if not in the usual place.")
@click.option(
    "--metrics",
    default="fid",
    show_default=True,
    callback=_words,
    help="Beside PSNR and the like: fid, sfid, kid, is, precision, recall, density, coverage, "
    "ms-ssim, separated by commas; or all.",
)
@click.option(
    "--stored",
    type=click.IntRange(2),
    default=50_000,
    show_default=True,
    help="Feature vectors kept for KID, precision and recall; a keyed subset of a larger set.",
)
@click.option(
    "--perceptual",
    multiple=True,
    default=("vistok-cnn",),
    show_default=True,
    help="Perceptual network: vistok-cnn, lpips-vgg, lpips-alex or none; may be repeated.",
)
@click.option("--data", multiple=True, metavar="KEY=VALUE", help="Other data; may be repeated.")
@click.option("--limit", type=click.IntRange(2), help="Only the first so many images.")
@click.option("--batch", type=click.IntRange(1), help="Images at a time; default: 32, GPU 256.")
@click.option("--samples", type=click.IntRange(2), help="Generated images; default: as real.")
@click.option(
    "--pfid",
    type=click.Choice(["full", "quick", "both", "none"]),
    default="both",
    show_default=True,
    help="Perturbed FID: 15 cells, 3 cells at each length, both.",
)
@click.option(
    "--guidance",
    default="1.0,1.5",
    show_default=True,
    callback=_numbers,
    help="Guidance scales of gFID, separated by commas; 1.0 is always measured.",
)
@click.option("--probe", metavar="tiny|s|b|FILE", help="Train an AR probe (once) for gFID.")
@click.option(
    "--train-limit",
    type=click.IntRange(2),
    help="Training images behind gFID (default: --limit, else 50,000), probe (8,192) and "
    "rate_distortion (4,096).",
)
@click.option(
    "--protocols",
    default="rfid,pfid,gfid,pictures",
    show_default=True,
    callback=_words,
    help="What is measured, separated by commas.",
)
@click.option("--reference", type=click.Path(dir_okay=False), help="Statistics for gFID.")
@click.option("--reference-rfid", is_flag=True, help="rFID is measured against them too.")
@click.option(
    "--allow-mismatch",
    multiple=True,
    metavar="FIELD",
    callback=lambda context, parameter, texts: _fields(texts),
    help="Let the reference differ in network, crop, filter, size, split, count or data.",
)
@click.option("--cache", type=click.Path(file_okay=False), help="Default: eval_cache beside.")
@click.option(
    "--save-every",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Seconds after which a long pass is saved there, to go on after a kill.",
)
@click.option("--fresh", is_flag=True, help="Measure again what the cache folder holds.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True)
@click.option("--device", help="cpu, cuda, ...; default: a GPU if there is one.")
@one_line_errors
def evaluate(runs: tuple[str, ...], report: str | None, device: str | None, **given) -> None:
    """Measure RUNS (run folders or saved models) and write a report.

    Tokenizers: rFID, PSNR, SSIM, perceptual distance, codebook use, bytes, pFID, at every prefix
    length. Generators (named together with their tokenizer): gFID. A results.json of an earlier
    evaluation among RUNS: its rows are shown beside. What the cache folder (default: eval_cache
    beside the report) holds is not measured again, and a killed evaluation goes on.
    """
    from vistok.eval.launch import process_group
    from vistok.eval.measure import evaluate
    from vistok.eval.options import Options
    from vistok.eval.report.page import write_report
    from vistok.eval.report.tables import summary

    target = None if report is None else _target(report)
    if given["cache"] is None and target is not None:
        given["cache"] = str(target.parent / "eval_cache")
    with process_group(device) as (chosen, first):
        say = click.echo if first else lambda line: None
        results = evaluate(runs, Options(device=chosen, **given), say)
        if not first:
            return
        click.echo(summary(results))
        if target is not None:
            for path in write_report(results, target):
                click.echo(f"wrote {path}")
            click.echo(f"report: {target}")


def _sizes(context, parameter, text: str | None) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        sizes = (0,)
    if any(size < 1 for size in sizes):
        raise click.BadParameter(f"'{text}': expected sizes of 1 or more, like 4,16")
    return sizes


def _precisions(context, parameter, text: str | None) -> tuple[str, ...]:
    found = tuple(text.split(",")) if text else ()
    if any(name not in ("fp32", "bf16") for name in found):
        raise click.BadParameter(f"'{text}': expected fp32, bf16 or both: fp32,bf16")
    return found


@click.command()
@click.argument("runs", nargs=-1, metavar="RUN|CONFIG...")
@click.option("--report", type=click.Path(dir_okay=False), help="JSON file for the numbers.")
@click.option("--batch", callback=_sizes, help="Images at a time, like 32 or (configs) 4,16.")
@click.option("--precision", callback=_precisions, help="Of configs: fp32,bf16; default: its own.")
@click.option("--lookup", is_flag=True, help="Also the table of codebook searches.")
@click.option(
    "--peer-gb",
    type=float,
    default=2.0,
    show_default=True,
    help="Of --lookup: scores that the other library may hold; 4.1 lets it run every size.",
)
@click.option(
    "--loading",
    multiple=True,
    metavar="FOLDER",
    help="Also its loader (images or parquet) at 128 and 256 px against bare decoding, and its "
    "start at sample 10 million; may be repeated.",
)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--data", multiple=True, metavar="KEY=VALUE", help="Other data; may be repeated.")
@click.option("--device", help="cpu, cuda, ...; default: a GPU if there is one.")
@one_line_errors
def speed(runs: tuple[str, ...], report: str | None, device: str | None, **given) -> None:
    """Images/s, FLOP and peak memory of encode, decode, their parts, a training step and sampling;
    FLOP/s against matrix products.

    Of a config file (.yaml) the training step alone is measured, on noise; it needs no run.
    """
    from vistok.eval.launch import process_group
    from vistok.eval.speed.measure import measure_speed, speed_table
    from vistok.train.memory import keep_freed_memory

    if not (runs or given["lookup"] or given["loading"]):
        raise click.UsageError("name a run, a config file, --lookup or --loading")
    keep_freed_memory()  # as training does
    with process_group(device) as (chosen, first):
        results = measure_speed(runs, device=chosen, **given)
        if not first:
            return
        click.echo(speed_table(results))
        if report is not None:
            path = Path(report)
            path.parent.mkdir(parents=True, exist_ok=True)
            results.save(path)
            click.echo(f"wrote {path}")


@click.command()
@click.argument("data", nargs=-1, metavar="RUN|KEY=VALUE...")
@click.option("--out", required=True, type=click.Path(dir_okay=False), help=".safetensors or .npz")
@click.option("--data", "more", multiple=True, metavar="KEY=VALUE", help="The same as a word.")
@click.option("--split", type=click.Choice(["train", "val"]), default="train", show_default=True)
@click.option("--features", default="vistok-cnn", show_default=True, help="Feature network.")
@click.option("--weights", type=click.Path(), help="Its weight file, if not in the usual place.")
@click.option("--limit", type=click.IntRange(2), help="Only the first so many images.")
@click.option("--batch", type=click.IntRange(1), help="Images at a time; default: 32, GPU 256.")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True)
@click.option("--device", help="cpu, cuda, ...; default: a GPU if there is one.")
@one_line_errors
def reference(data: tuple[str, ...], more: tuple[str, ...], device: str | None, **given) -> None:
    """Feature statistics of a data set, for --reference: those of a run, or kind=... and so on.

    Images are cropped as for evaluation (no random window, no mirroring), the training split too.
    """
    from vistok.eval.launch import process_group
    from vistok.eval.reference.files import make_reference

    with process_group(device) as (chosen, first):
        real = make_reference([*data, *more], device=chosen, **given)
        if first:
            shown = real.reference
            click.echo(f"{shown.name}, {shown.split} split: {shown.count:,} images")
            click.echo(f"wrote {given['out']}")


def _fields(texts: tuple[str, ...]) -> tuple[str, ...]:
    from vistok.eval.results.compare import FIELDS

    found = tuple(name for text in texts for name in text.split(","))
    for name in found:
        if name not in FIELDS:
            raise click.BadParameter(f"'{name}': expected one of {', '.join(FIELDS)}")
    return found


@click.command()
@click.argument("file", metavar="FILE")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--only", multiple=True, metavar="NAME", help="This run alone; may be repeated.")
@click.option("--device", help="cpu, cuda, ...; default: a GPU if there is one.")
@one_line_errors
def study(file: str, overrides: tuple[str, ...], only: tuple[str, ...], device: str | None) -> None:
    """Train the runs of a study (YAML) that are missing, evaluate them and write one report.

    KEY=VALUE is a key of the study (evaluate.limit=256) or of all its training configs (steps=100).
    The same command goes on after a kill.
    """
    from vistok.eval.launch import process_group
    from vistok.eval.report.tables import summary
    from vistok.eval.study.study import options_of, read_study, run_study

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "a study is one process; on several GPUs give each its runs: CUDA_VISIBLE_DEVICES=0 "
            "python -m eval study FILE --only NAME"
        )
    with process_group(device) as (chosen, _):
        config = read_study(file, overrides)
        results, target = run_study(config, options_of(config, chosen), only)
    click.echo(summary(results))
    if config.correlate:
        from vistok.eval.report.verdict import verdict_text

        click.echo("\n" + verdict_text(results.facts["study"]))
    click.echo(f"report: {target}")


def _target(report: str) -> Path:
    path = Path(report)
    if path.suffix != ".html":
        raise ValueError(f"--report {report}: expected a file that ends in .html")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def main() -> None:
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb in VERBS:
        command = {"speed": speed, "reference": reference, "study": study}[verb]
        command(args=sys.argv[2:], prog_name=f"python -m eval {verb}")
    else:
        evaluate(prog_name="python -m eval")


if __name__ == "__main__":
    main()
