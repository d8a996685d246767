"""The `vistok` command: look at a model, encode and decode images, generate new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vistok.config.errors import one_line_errors

_TEXT = click.option("--text", help="What the images show, for a tokenizer that reads text.")


@click.group()
@click.version_option(package_name="vistok")
def main() -> None:
    """Discrete image tokenizers: look at them, encode, decode, generate."""


@main.command()
@click.argument("model")
@one_line_errors
def info(model: str) -> None:
    """Print what MODEL is: parts, parameters, tokens and bits of an image."""
    tokenizer = _tokenizer(model)
    spec, config = tokenizer.spec(), tokenizer.config
    height, width = config.image_size
    rows = {
        "image": f"{height} x {width}",
        "tokens/image": spec.length,
        "vocabulary": " x ".join(map(str, spec.vocab)) or f"continuous, width {spec.dim}",
        "bits/image": spec.bits,
        "bpp": f"{spec.bits / (height * width):.4f}",
        "prefixes": ", ".join(map(str, spec.eval_lengths))
        if spec.prefix != "none"
        else "whole only",
        "encoder": config.encoder.kind,
        "quantizer": config.quantizer.kind,
        "decoder": config.decoder.kind,
        "regularizers": ", ".join(r.kind for r in config.regularizers) or "none",
        "license": config.license or "not stated",
    }
    rows |= {f"{n} parameters": f"{c:,}" for n, c in tokenizer.part_parameters().items()}
    for name, value in rows.items():
        click.echo(f"{name:24} {value}")


@main.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=click.Path())
@click.option("--out", default=".", show_default=True, help="Folder for the .tok files.")
@click.option("--length", type=int, help="Keep a prefix of this many tokens.")
@_TEXT
@one_line_errors
def encode(
    model: str, images: tuple[str, ...], out: str, length: int | None, text: str | None
) -> None:
    """Encode IMAGES (center-cropped to the model's size) into .tok files."""
    tokenizer = _tokenizer(model)
    condition = _condition(tokenizer, text, "encoder")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for path in images:
        tokens = tokenizer.encode(_read([path], tokenizer), length, condition)
        data = tokens.to_bytes()[0]
        target = folder / f"{Path(path).stem}.tok"
        target.write_bytes(data)
        click.echo(f"{path} -> {target} ({len(data)} bytes)")


@main.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option("--out", default=".", show_default=True, help="Folder for the PNG files.")
@click.option("--length", type=int, help="Decode only this prefix.")
@_TEXT
@one_line_errors
def decode(
    model: str, files: tuple[str, ...], out: str, length: int | None, text: str | None
) -> None:
    """Decode .tok FILES into PNG images."""
    from vistok.tokens import Tokens

    tokenizer = _tokenizer(model)
    condition = _condition(tokenizer, text, "decoder")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        try:
            tokens = Tokens.from_bytes([Path(path).read_bytes()], tokenizer.spec())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if length is not None:
            tokens = tokens.prefix(length)
        target = folder / f"{Path(path).stem}.png"
        _write(tokenizer.decode(tokens, condition), target)
        click.echo(f"{path} -> {target}")


@main.command()
@click.argument("generator")
@click.argument("tokenizer")
@click.option("--class", "name", help="Class name or number; all of them if left out.")
@click.option("--count", default=8, show_default=True, help="Images of each class.")
@click.option("--length", type=int, help="Stop after this many tokens.")
@click.option("--guidance", default=1.0, show_default=True)
@click.option("--temperature", default=1.0, show_default=True)
@click.option("--top-k", default=0, show_default=True, help="0 = all.")
@click.option("--top-p", default=1.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", default="generated.png", show_default=True)
@_TEXT
@one_line_errors
def generate(
    generator: str,
    tokenizer: str,
    name: str | None,
    count: int,
    out: str,
    text: str | None,
    seed: int,
    length: int | None,
    **sampling: Any,
) -> None:
    """Sample images from GENERATOR and decode them with TOKENIZER into one grid."""
    import torch

    from vistok.core.records import Condition
    from vistok.generators import load_generator
    from vistok.storage.hub import model_folder

    model, owner = load_generator(model_folder(generator)), _tokenizer(tokenizer)
    condition, labels = _condition(owner, text, "decoder"), None
    if model.classes:
        chosen = range(len(model.classes)) if name is None else [_class(name, model.classes)]
        labels = torch.tensor([c for c in chosen for _ in range(count)])
    elif name is not None:
        raise ValueError(f"--class {name}: this generator was trained without classes")
    index = torch.arange(count if labels is None else len(labels))
    tokens = model.sample(
        Condition(label=labels), index=index, seed=seed, length=length, sampling=sampling
    )
    if condition is not None:
        condition = condition.select([0] * len(tokens))
    _write(owner.decode(tokens, condition), Path(out), columns=count)
    click.echo(out)


@main.command()
@click.argument("data", nargs=-1, required=True)
@click.option("--out", type=click.Path(dir_okay=False), help="Write every finding here, as JSON.")
@click.option("--workers", default=0, show_default=True, help="Processes that read and decode.")
@click.option("--limit", type=click.IntRange(1), help="Look at the first samples only.")
def check(data: tuple[str, ...], out: str | None, workers: int, limit: int | None) -> None:
    """Scan DATA before training on it: sizes, classes, duplicates, what cannot be read.

    DATA: a folder of images, .parquet files or globs, .tar shards, clips, or a YAML config with a
    key `data`; then key=value of the data config, e.g. label_column=null. Exit code 0: nothing
    found; 1: usable, with findings; 2: cannot be scanned, or not one sample is usable.
    """
    import json
    import sys

    from vistok.data.check import run_check
    from vistok.data.findings import table

    paths = [item for item in data if "=" not in item or Path(item).exists()]
    try:
        report = run_check(paths, [item for item in data if item not in paths], workers, limit)
        if out is not None:
            Path(out).write_text(json.dumps(report, indent=1), "utf-8")
    except (ValueError, OSError) as error:  # DataError and ConfigError are ValueErrors
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    click.echo(table(report))
    sys.exit(report["exit_code"])


@main.group()
def edit() -> None:
    """Change images through their tokens; nothing is trained."""


@edit.command("copy")
@click.argument("model")
@click.argument("image", type=click.Path())
@click.argument("source", type=click.Path())
@click.option("--positions", required=True, help="Token positions, such as 0,3 or 0-3.")
@click.option("--out", default="edited.png", show_default=True)
@_TEXT
@one_line_errors
def edit_copy(
    model: str, image: str, source: str, positions: str, out: str, text: str | None
) -> None:
    """Give IMAGE the tokens of SOURCE at some positions, and decode."""
    from vistok.editing import copy_tokens

    tokenizer = _tokenizer(model)
    condition = _condition(tokenizer, text)
    target, given = (
        tokenizer.encode(_read([path], tokenizer), condition=condition) for path in (image, source)
    )
    edited = copy_tokens(target, given, _positions(positions))
    _write(tokenizer.decode(edited, condition), Path(out))
    click.echo(out)


@edit.command("inpaint")
@click.argument("model")
@click.argument("image", type=click.Path())
@click.argument("mask", type=click.Path())
@click.option("--steps", default=300, show_default=True)
@click.option("--lr", default=0.1, show_default=True)
@click.option("--every", default=0, show_default=True, help="Steps between re-encodings; 0: none.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", default="edited.png", show_default=True)
@_TEXT
@one_line_errors
def edit_inpaint(
    model: str, image: str, mask: str, out: str, every: int, text: str | None, **settings: Any
) -> None:
    """Fill what is black in MASK (a image of IMAGE's size) from the rest."""
    from vistok.editing import inpaint

    tokenizer = _tokenizer(model)
    pixels, hole = _read([image, mask], tokenizer).split(1)
    known, condition = (hole.mean(1, keepdim=True) > 0.5).float(), _condition(tokenizer, text)
    config = _edit_config(settings)
    found = inpaint(tokenizer, pixels, known, config, every=every, condition=condition)
    _write_edited(found, out)


@edit.command("match")
@click.argument("model")
@click.argument("image", type=click.Path())
@click.argument("target", type=click.Path())
@click.option("--steps", default=300, show_default=True)
@click.option("--lr", default=0.1, show_default=True)
@click.option("--pull", default=0.0, show_default=True, help="Weight of staying near IMAGE.")
@click.option("--noise", default=0.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", default="edited.png", show_default=True)
@_TEXT
@one_line_errors
def edit_match(
    model: str, image: str, target: str, out: str, text: str | None, **settings: Any
) -> None:
    """Start from IMAGE and optimize its tokens towards TARGET's pixels."""
    from vistok.editing import match, optimize

    tokenizer = _tokenizer(model)
    pixels, wanted = _read([image, target], tokenizer).split(1)
    config, condition = _edit_config(settings), _condition(tokenizer, text)
    found = optimize(tokenizer, match(wanted), pixels, config, condition=condition)
    _write_edited(found, out)


@main.command("import")
@click.argument("name")
@click.argument("out", type=click.Path(file_okay=False))
@click.option("--family", help="Which system it is, if the config does not tell.")
@click.option("--config", type=click.Path(dir_okay=False), help="The official config of a file.")
@one_line_errors
def import_(name: str, out: str, family: str | None, config: str | None) -> None:
    """Convert released weights into vistok's format.

    NAME: a released name (titok-l32, ...), or a folder or file in the official format. The license
    and what is needed to export the official layout again stay in the folder OUT.
    """
    from vistok.pretrained import load

    tokenizer = load(name, family=family, config=config)
    tokenizer.save_pretrained(out)
    origin = tokenizer.origin
    click.echo(f"{name} ({origin.family}) -> {out}")
    click.echo(f"license: {origin.license or 'not stated; look at where the weights came from'}")


def _tokenizer(path: str) -> Any:
    from vistok.storage.hub import model_folder
    from vistok.tokenizer import Tokenizer

    return Tokenizer.from_pretrained(str(model_folder(path)))


def _condition(tokenizer: Any, text: str | None, *parts: str) -> Any:
    """The condition of one image for these parts (none named: all); None if they are given none.

    ValueError if they need a text, or there is one that they would not look at.
    """
    reading = tokenizer.config.reading
    hows = [how for part, how in reading.items() if part in parts or not parts]
    if text is None:
        if all(how.optional for how in hows):
            return None
        raise ValueError(
            "this tokenizer reads text: say what the image shows, --text 'A photo of a cat.' "
            "(--text '' for none)"
        )
    if not hows:
        where = f"; its {' and '.join(reading)} does" if reading else ""
        raise ValueError(
            f"--text: {' and '.join(parts) or 'this tokenizer'} reads no text{where}: leave it out"
        )
    return tokenizer.condition([text])


def _read(paths: list[str], tokenizer: Any) -> Any:
    """Images, center-cropped to the tokenizer's size: [B, 3, H, W] in 0..1."""
    import torch

    from vistok.data.images import read
    from vistok.data.transforms import Transform, TransformConfig

    transform = Transform(TransformConfig(size=tokenizer.config.image_size), "val")
    return torch.stack([transform(read(path), 0) for path in paths]).float() / 255


def _write_edited(found: Any, out: str) -> None:
    """The image that an optimization found, and how far its loss fell."""
    _write(found.pixels, Path(out))
    click.echo(f"{out} (loss {found.losses[0, 0]:.4g} -> {found.losses[-1, 0]:.4g})")


def _edit_config(settings: dict[str, Any]) -> Any:
    from vistok.config import validate
    from vistok.editing import EditConfig

    return validate(EditConfig, settings, "options")


def _positions(text: str) -> list[int]:
    """ "0,3-5" -> [0, 3, 4, 5]."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"--positions {text}: expected numbers and ranges, such as 0,3-5")
        found += range(int(first), int(last or first) + 1)
    return found


def _class(name: str, classes: tuple[str, ...]) -> int:
    if name in classes:
        return classes.index(name)
    if name.isdigit() and int(name) < len(classes):
        return int(name)
    raise ValueError(
        f"--class {name}: expected one of {', '.join(classes)} or 0..{len(classes) - 1}"
    )


def _write(pixels: Any, path: Path, columns: int = 1) -> None:
    """pixels [B, 3, H, W] in 0..1 -> one PNG."""
    from torchvision.utils import save_image

    save_image(pixels, path, nrow=columns, padding=0 if len(pixels) == 1 else 2)


if __name__ == "__main__":
    main()
