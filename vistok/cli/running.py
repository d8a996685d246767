"""Options of commands that run a model over many files: which model, device, precision, batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click

from vistok.config.errors import InputError
from vistok.config.names import close

model_option = click.option(
    "--model", "named", metavar="NAME", help="The model, instead of a first word; then only files."
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="cpu, cuda, cuda:1, mps; auto: a GPU if any",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "auto"]),
    default="fp32",
    show_default=True,
    help="auto: bf16 where the hardware has it. Codes may differ in the last place.",
)
_workers_option = click.option(
    "--workers",
    type=click.IntRange(0, 64),
    default=2,
    show_default=True,
    help="Threads that read files ahead.",
)
_batch_option = click.option(
    "--batch", type=click.IntRange(1, 4096), help="Samples at a time; default: 16 images, 1 clip."
)


def running_options(command: Callable) -> Callable:
    """--model, --batch, --workers, --device and --precision of a command."""
    options = (model_option, _batch_option, _workers_option, device_option, precision_option)
    for option in reversed(options):
        command = option(command)
    return command


def model_and_files(
    words: Sequence[str], named: str | None, command: str, endings: Sequence[str]
) -> tuple[str, list[str]]:
    """(the model, the files) of a command's words; InputError if one of them is missing.

    Args:
        named: the value of --model. endings: of the command's files.
    """
    files = list(words)
    if named is None and files and (len(files) == 1 or _is_file(files[0], endings)):
        raise InputError(
            f"{files[0]}: no model beside it; write vistok {command} MODEL FILE..., or "
            f"vistok {command} --model vistok-128 {files[0]}"
        )
    model = files.pop(0) if named is None and files else named
    if model is None or not files:
        raise InputError(f"no file named; expected vistok {command} --model NAME FILE...")
    return model, files


def _is_file(word: str, endings: Sequence[str]) -> bool:
    return Path(word).suffix.lower() in endings and Path(word).is_file()


def place_on(tokenizer: Any, device: str) -> Any:
    """The tokenizer on a device; InputError for one that this machine lacks."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kinds = ("cpu", "cuda", "mps", "xpu")
    kind = device.partition(":")[0]
    if kind not in kinds:
        like = close(kind, kinds)
        hint = f"did you mean {like}? " if like else ""
        raise InputError(f"--device {device}: {hint}expected auto, cpu, cuda, cuda:1 or mps")
    try:
        return tokenizer.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"--device {device}: cannot be used here ({reason}); leave it out, or give cpu"
        ) from None


def computing(tokenizer: Any, precision: str) -> AbstractContextManager:
    """Context of the model's passes in a precision."""
    import torch

    from vistok.runtime.precision import has_bf16

    device = next(tokenizer.parameters()).device
    if precision == "auto":
        precision = "bf16" if has_bf16(device) else "fp32"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def batch_of(tokenizer: Any, batch: int | None) -> int:
    """Samples at a time: those that are asked for, or the default of images or clips."""
    return batch or (1 if tokenizer.shape.is_clip else 16)
