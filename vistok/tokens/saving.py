"""Tokens in a .safetensors file: their tensors, and the spec in its header. No code is ever run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from vistok.config import validate
from vistok.config.bounded import parse_json
from vistok.core.errors import InputError
from vistok.core.regular_files import check_regular
from vistok.tokens.spec import TokenSpec
from vistok.tokens.tokens import Tokens

_FORMAT = "vistok tokens"
_TENSORS = ("indices", "values", "keep")


def save(tokens: Tokens, path: str | Path) -> None:
    """Write tokens of any kind, whole or not at all; InputError if the disk refuses."""
    from safetensors.torch import save as in_bytes

    tokens.check()
    held = {name: getattr(tokens, name) for name in _TENSORS}
    facts = {"size": tokens.size, "fps": tokens.fps, "made_by": tokens.made_by}
    header = {
        "format": _FORMAT,
        "spec": json.dumps(tokens.spec.model_dump(mode="json")),
        "facts": json.dumps({name: value for name, value in facts.items() if value is not None}),
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in held.items() if v is not None}
    path = Path(path)
    draft = path.with_name(f".writing_{path.name[:48]}.{os.getpid()}")
    try:
        draft.write_bytes(in_bytes(tensors, header))
        os.replace(draft, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        draft.unlink(missing_ok=True)


def load(path: str | Path) -> Tokens:
    """The tokens of a file that `save` wrote, checked; InputError for any other."""
    from safetensors import SafetensorError, safe_open

    check_regular(path)
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; expected one that Tokens.save wrote")
    try:
        with safe_open(str(path), "pt") as file:
            header = file.metadata() or {}
            held = {name: file.get_tensor(name).clone() for name in file.keys()}
    except (SafetensorError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable safetensors file ({reason})") from None
    if header.get("format") != _FORMAT or not {"spec", "facts"} <= set(header):
        raise InputError(f"{path}: holds no tokens; expected a file that Tokens.save wrote")
    try:
        return _tokens(header, held)
    except (AttributeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: its tokens are damaged ({reason}); save them again") from None


def _tokens(header: dict[str, str], held: dict[str, torch.Tensor]) -> Tokens:
    spec = validate(TokenSpec, parse_json(header["spec"], "spec"), "spec")
    facts = parse_json(header["facts"], "facts")
    if set(held) - set(_TENSORS) or set(facts) - {"size", "fps", "made_by"}:
        raise InputError(f"expected the tensors {', '.join(_TENSORS)} and what save notes")
    size = facts.get("size")
    if size is not None:
        time, height, width = (int(side) for side in size)
        facts["size"] = (time, height, width)
    if not isinstance(facts.get("made_by"), str | None) or isinstance(facts.get("fps"), str):
        raise InputError("made_by is a text and fps a number")
    return Tokens(spec, **held, **facts).check()
