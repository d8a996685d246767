"""`vistok demo`: a page on this machine to try tokenizers with."""

from __future__ import annotations

import click

from vistok.config.errors import one_line_errors

_EMBEDDED = "vistok-128"


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--generator", "generators", multiple=True, help="A generator to sample from; several are fine."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: the first free from 7860 on.")
@click.option("--device", default="cpu", show_default=True, help="Where models run.")
@click.option("--no-open", is_flag=True, help="Print the address, open no browser.")
@one_line_errors
def demo(
    models: tuple[str, ...],
    generators: tuple[str, ...],
    host: str,
    port: int | None,
    device: str,
    no_open: bool,
) -> None:
    """Try tokenizers in a page: drop an image, drag the length, change and mix tokens, sample.

    Each MODEL is a run, a folder, a released name; vistok-128 if none is named. The page is
    reachable from this machine only, asks no other host for anything, and keeps uploaded images
    no longer than an hour. With another --host it offers only the models named here, since a
    visitor could otherwise name any file of this machine.
    """
    from vistok.demo.serve import check_installed, is_loopback, served

    check_installed()
    local = is_loopback(host)
    if not local:
        click.echo(
            f"--host {host}: everyone who reaches this address can use the page and its models; "
            "there is no password",
            err=True,
        )
    from vistok.demo.models import Models

    opened = Models(models or (_EMBEDDED,), generators, typed=local, device=device)
    with served(opened, host, port) as page:
        click.echo(f"vistok demo: {page.url} (Ctrl-C ends it)")
        if not no_open:
            click.launch(page.url)
        page.wait()
