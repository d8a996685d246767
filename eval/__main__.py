"""`vistok eval RUN... [key=value ...]`, and its sub-commands (`COMMANDS` below).

All but `study` and `leaderboard` run under torchrun too. A first argument that is exactly the name
of a sub-command is that; a folder of that name is `./speed`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from vistok.cli.key_command import key_command
from vistok.config import take_plugins
from vistok.config.errors import one_line_errors
from vistok.config.schema_files import check_study, check_words
from vistok.core.errors import InputError
from vistok.core.verbosity import note


@key_command("RUN... [KEY=VALUE]...", "vistok.eval.config:EvalConfig")
@one_line_errors
def evaluate(arguments: Sequence[str]) -> None:
    """Measure runs (run folders, saved models or released names) and write a report.

    Tokenizers: rFID, PSNR, SSIM, perceptual distance, codebook use, bytes, pFID, at every prefix
    length. Generators: gFID; the tokenizer of a generator is found by its record, if none is named.
    The data are those of each tokenizer's run, or data.KEY=VALUE.

    A results.json among the runs: its rows are shown beside. What eval_cache beside the report
    holds is not measured again, and a killed evaluation resumes. config=FILE is a YAML file of
    settings.

    \b
    Other evaluations:
      vistok eval verify       published numbers of released models, measured again
      vistok eval leaderboard  one page of many results.json
      vistok eval speed        images/s, FLOP and memory
      vistok eval reference    statistics of real images, as a file
      vistok study             train the runs of a study and compare them

    \b
    Examples:
      vistok eval runs/mine report=runs/mine/report.html
      vistok eval runs/mine runs/mine/generator limit=256 gfid.guidance=[1,1.5]
      vistok eval titok-l32 data.kind=folder data.val_path=val data.size=256
    """
    check_words("eval", arguments)  # before the imports, which take seconds
    from vistok.eval.config import EvalConfig, read_config, split_arguments
    from vistok.eval.launch import process_group
    from vistok.eval.measure import evaluate
    from vistok.eval.report.page import write_report
    from vistok.eval.report.tables import summary

    runs, overrides = split_arguments(EvalConfig, arguments)
    config = read_config(EvalConfig, overrides)
    if config.report is not None:
        Path(config.report).parent.mkdir(parents=True, exist_ok=True)
    with process_group(config.device) as (device, first):
        config = config.model_copy(update={"device": str(device)})
        results = evaluate(runs, config, note if first else lambda line: None)
        if not first:
            return
        click.echo(summary(results))
        if config.report is not None:
            there = set(Path(config.report).parent.iterdir())
            for path in write_report(results, config.report, config.overwrite):
                note(f"{'replaced' if path in there else 'wrote'} {path}")
            _say_report(config.report)


@key_command("RUN|CONFIG... [KEY=VALUE]...", "vistok.eval.speed.config:SpeedConfig")
@one_line_errors
def speed(arguments: Sequence[str]) -> None:
    """Images/s, FLOP and peak memory of encode, decode, their parts, a training step and sampling;
    FLOP/s against matrix products.

    Of a config (a .yaml file or a name of `vistok train --list`) the training step alone is
    measured, on noise; it needs no run.
    """
    from vistok.eval.config import read_config, split_arguments
    from vistok.eval.launch import process_group
    from vistok.eval.speed.config import SpeedConfig
    from vistok.eval.speed.measure import measure_speed, speed_table
    from vistok.train.memory import keep_freed_memory

    runs, overrides = split_arguments(SpeedConfig, arguments)
    config = read_config(SpeedConfig, overrides)
    keep_freed_memory()  # as training does
    with process_group(config.device) as (device, first):
        results = measure_speed(runs, config, device)
        if not first:
            return
        click.echo(speed_table(results))
        if config.report is not None:
            path = Path(config.report)
            path.parent.mkdir(parents=True, exist_ok=True)
            done = "replaced" if path.exists() else "wrote"
            results.save(path)
            note(f"{done} {path}")


@key_command("[RUN] out=FILE [KEY=VALUE]...", "vistok.eval.reference.files:ReferenceConfig")
@one_line_errors
def reference(arguments: Sequence[str]) -> None:
    """Feature statistics of a data set, for `reference=FILE`: those of a run, or data.kind=... .

    Images are cropped as for evaluation (no random window, no mirroring), the training split too.
    """
    from vistok.eval.config import read_config, split_arguments
    from vistok.eval.launch import process_group
    from vistok.eval.reference.files import ReferenceConfig, make_reference

    runs, overrides = split_arguments(ReferenceConfig, arguments)
    config = read_config(ReferenceConfig, overrides)
    there = Path(config.out).exists()
    with process_group(config.device) as (device, first):
        real = make_reference(runs, config, device)
        if first:
            shown = real.reference
            noun = "clips" if real.size is not None and len(real.size) == 3 else "images"
            click.echo(f"{shown.name}, {shown.split} split: {shown.count:,} {noun}")
            note(f"{'replaced' if there else 'wrote'} {config.out}")


@key_command("NAME|FILE [KEY=VALUE]...", "vistok.eval.study.study:StudyConfig")
@one_line_errors
def study(arguments: Sequence[str]) -> None:
    """Train the runs of a study (YAML) that are missing, evaluate them and write one report.

    KEY=VALUE is a key of the study (evaluate.limit=256) or of all its training configs (steps=100).
    The same command resumes after a kill. `vistok list studies` names those that come with vistok.

    \b
    Examples:
      vistok study lengths_tiny
      vistok study lengths_tiny only=[nested] steps=100
    """
    from vistok.config import ConfigError

    if arguments:
        check_study(arguments[0], arguments[1:])  # before the imports, which take seconds
    from vistok.eval.launch import process_group
    from vistok.eval.report.tables import summary
    from vistok.eval.study.study import evaluation_of, read_study, run_study

    if not arguments:
        raise ConfigError(
            "no study given; expected a YAML file, or a name that `vistok list studies` shows"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "a study is one process; on several GPUs give each its runs: CUDA_VISIBLE_DEVICES=0 "
            "vistok eval study FILE only=[NAME]"
        )
    config = read_study(arguments[0], arguments[1:])
    with process_group(config.evaluate.device) as (device, _):
        results, target = run_study(config, evaluation_of(config, device))
    click.echo(summary(results))
    if config.claims:
        from vistok.eval.report.claims import text

        click.echo("\n" + text(results))
    if config.correlate:
        from vistok.eval.study.verdict import verdict_text

        click.echo("\n" + verdict_text(results.facts["study"]))
    elif said := results.facts["study"].get("sentences"):
        click.echo("\n" + "\n\n".join(said))
    _say_report(target)


def _say_report(path: str | Path) -> None:
    """The report's path, and its address that a terminal or a browser opens."""
    note(f"report: {path}")
    note(f"        {Path(path).resolve().as_uri()}")


@key_command(
    "NAME [KEY=VALUE]...",
    "vistok.eval.verify.run:VerifyConfig",
    [click.Option(["--list", "listed"], is_flag=True, help="Print every published number.")],
)
@one_line_errors
def verify(arguments: Sequence[str], listed: bool) -> None:
    """Measure a released model by the protocol of its published number, and compare the two.

    NAME is a released tokenizer (rFID) or generator (gFID). The preset chooses network, crop,
    filter, size and sampling; you name the images, and of a generator ADM's reference file. Every
    key of vistok eval may follow; where one makes another protocol, the answer is that the numbers
    do not compare, and which fields differ.

    Exit code: 0 passes, 3 fails, 4 not comparable.

    \b
    Examples:
      vistok eval verify --list
      vistok eval verify titok-l32 data.kind=folder data.val_path=imagenet/val
      vistok eval verify rar-b data.kind=folder data.val_path=val reference=FILE.npz
    """
    from vistok.eval.verify.text import EXIT, list_text, verdict_text

    if listed:
        from vistok.eval.verify.run import all_presets

        click.echo(list_text(all_presets()))
        return
    from vistok.eval.launch import process_group
    from vistok.eval.report.page import write_report
    from vistok.eval.verify.run import verify

    device = [word.partition("=")[2] for word in arguments if word.startswith("device=")]
    with process_group(device[-1] if device else None) as (place, first):
        found, results = verify(arguments, str(place), note if first else lambda line: None)
        if not first:
            return
        click.echo(verdict_text(found))
        config = results.facts["config"]
        if config["report"] is not None:
            Path(config["report"]).parent.mkdir(parents=True, exist_ok=True)
            write_report(results, config["report"], config["overwrite"])
            _say_report(config["report"])
    sys.exit(EXIT[found.outcome])


@key_command("DIR... out=FILE [KEY=VALUE]...", "vistok.eval.leaderboard.page:LeaderboardConfig")
@one_line_errors
def leaderboard(arguments: Sequence[str]) -> None:
    """Make one page (and Markdown) of every results.json below the folders DIR.

    There is a table for each protocol: numbers of different protocols are never ranked together.
    The page sorts and filters, loads nothing and opens from disk. Files that are not valid are
    listed with their reason.

    \b
    Example:
      vistok eval leaderboard runs out=board.html metrics=[rFID,gFID]
    """
    from vistok.eval.config import read_config, split_arguments
    from vistok.eval.leaderboard.page import LeaderboardConfig, write_leaderboard

    folders, overrides = split_arguments(LeaderboardConfig, arguments)
    config = read_config(LeaderboardConfig, overrides)
    written, sources = write_leaderboard(folders, config)
    for source in sources:
        if source.reason:
            click.echo(f"not valid: {source.name}: {source.reason}")
    for path in written:
        note(f"wrote {path}")
    note(f"        {written[0].resolve().as_uri()}")


COMMANDS = {"speed": speed, "reference": reference, "study": study}
COMMANDS |= {"verify": verify, "leaderboard": leaderboard}


@one_line_errors
def main() -> None:
    """The command of the first argument, or the evaluation of runs."""
    words = take_plugins(sys.argv[1:])
    if words and words[0] in COMMANDS:
        COMMANDS[words[0]](args=words[1:], prog_name=f"vistok eval {words[0]}")
    else:
        evaluate(args=words, prog_name="vistok eval")


if __name__ == "__main__":
    main()
