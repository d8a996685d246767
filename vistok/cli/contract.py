"""`vistok test-part`: one's own parts against the contract of their family."""

from __future__ import annotations

import sys
from typing import Any

import click

from vistok.cli.outputs import say
from vistok.config.errors import ConfigError, one_line_errors


@click.command("test-part")
@click.argument("module")
@click.argument("words", nargs=-1, metavar="[NAME] [KEY=VALUE]...")
@click.option("--list", "only_list", is_flag=True, help="Name the parts and checks, and stop.")
@click.option("--processes", is_flag=True, help="Also compare two processes with one (seconds).")
@one_line_errors
def test_part(module: str, words: tuple[str, ...], only_list: bool, processes: bool) -> None:
    """Test the parts that MODULE registers, before hours of training.

    MODULE is a Python module (my_vq for the file my_vq.py in this folder). NAME is the kind of one
    of its parts; all of them are tested without it. Each part is put into the smallest tokenizer
    that holds it, with its `tiny()` config; KEY=VALUE changes that, and tokenizer.KEY=VALUE the
    tokenizer around it. Exit code 0: nothing failed; 1: something did. What is missing may be left
    out, and says what cannot run then.
    """
    from vistok.contracts import own

    named = [word for word in words if "=" not in word]
    if len(named) > 1:
        raise ConfigError(f"{named[1]}: one NAME at most; expected KEY=VALUE words after it")
    parts = own.parts_of(module, named[0] if named else None)
    cases = own.cases(parts, [word for word in words if "=" in word])
    failed = False
    for case in cases:
        say(own.heading(case))
        if only_list:
            for one in own.checks_for(case.family):
                say(f"  {one.name}")
            continue
        tally = own.Tally()
        for outcome in own.report(case):
            if isinstance(outcome, str):
                say(f"  {outcome}")
                continue
            tally.add(outcome)
            say(f"  {outcome.state:8} {_told(outcome)}")
        if processes and case.family == "quantizer":
            from vistok.contracts.processes import compare

            tally.add(outcome := compare(case, module))
            say(f"  {outcome.state:8} {_told(outcome)}")
        say(str(tally))
        failed |= bool(tally.counts["failed"])
    sys.exit(1 if failed else 0)


def _told(outcome: Any) -> str:
    """The promise, and what is wrong with it; of a missing method what cannot run."""
    if outcome.state == "missing":
        return outcome.text
    return f"{outcome.check.name}: {outcome.text}" if outcome.text else outcome.check.name
