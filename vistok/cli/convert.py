"""`vistok import`: official weights into vistok's format."""

from __future__ import annotations

from pathlib import Path

import click

from vistok.cli.completion import models
from vistok.cli.outputs import claim, overwrite_option, say
from vistok.config.errors import one_line_errors


@click.command("import")
@click.argument("name", shell_complete=models)
@click.argument("out", type=click.Path(file_okay=False))
@click.option("--family", help="Which system it is, if the config does not tell.")
@click.option("--config", type=click.Path(dir_okay=False), help="The official config of a file.")
@overwrite_option
@one_line_errors
def import_(name: str, out: str, family: str | None, config: str | None, overwrite: bool) -> None:
    """Convert released weights into vistok's format.

    NAME: a released name (titok-l32, ...), or a folder or file in the official format. The license
    and what is needed to export the official layout again stay in the folder OUT.

    \b
    Examples:
      vistok import titok-l32 models/titok-l32
      vistok import weights.bin models/mine --family titok --config config.yaml
    """
    from vistok.pretrained import load
    from vistok.storage.hub import CONFIG, WEIGHTS
    from vistok.storage.origin import RECORD, TENSORS

    claim([Path(out, file) for file in (CONFIG, WEIGHTS, RECORD, TENSORS)], overwrite)
    tokenizer = load(name, family=family, config=config)
    tokenizer.save_pretrained(out)
    origin = tokenizer.origin
    say(f"{name} ({origin.family}) -> {out}")
    if origin.inside is not None:
        say(f"weights: those under '{origin.inside}' in the file")
    say(f"license: {origin.license or 'not stated; look at where the weights came from'}")
    say(f"next: vistok info {out}")
