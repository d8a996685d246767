"""Tokens: the codes of a batch of images or clips, their prefixes and their bytes.

Packed bytes hold ceil(log2 V) bits per factor behind a small header.
Letters: B batch, L positions, F factors, S blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.tokens import radix
from vistok.tokens.codes import Codes
from vistok.tokens.packing import Header, pack, unpack
from vistok.tokens.spec import TokenSpec


@dataclass(frozen=True, eq=False, repr=False)
class Tokens(Codes):
    """The codes of B samples; B is the first axis of every tensor.

    `len`, iteration, `tokens[2]`, slices, lists and masks give samples, always as Tokens that
    decode; `==` compares codes and lengths; `ids` and `flat_ids` give the integers for models, and
    `save` and `load` a file.
    """

    spec: TokenSpec
    indices: Tensor | None = None  # [B, L, F] in the smallest integer type
    values: Tensor | None = None  # [B, L, dim] if continuous
    keep: Tensor | None = None  # [B] | [B, S] kept positions or blocks; None = all
    size: tuple[int, int, int] | None = None  # (T, H, W) that decode gives unless told otherwise
    fps: float | None = None
    made_by: str | None = None
    """Beginning of the hash of the weights that made them (`Tokenizer.codes_sha256`), if known."""

    def __post_init__(self) -> None:
        """InputError for indices or lengths that are no integers: they would be cut to some."""
        for name in ("indices", "keep"):
            if getattr(self, name) is not None:
                _check_integers(name, getattr(self, name))

    @property
    def _keep_shape(self) -> tuple[int, ...]:
        inside = self.spec.prefix == "per_block"
        return (len(self), len(self.spec.blocks)) if inside else (len(self),)

    @staticmethod
    def dtype(spec: TokenSpec) -> torch.dtype:
        """The smallest integer type that holds every index of `spec`."""
        top = max(spec.vocab, default=1) - 1
        for dtype in (torch.uint8, torch.int16, torch.int32):
            if top <= torch.iinfo(dtype).max:
                return dtype
        return torch.int64

    @classmethod
    def of(cls, spec: TokenSpec, indices: Tensor, **rest) -> Tokens:
        """Tokens from indices [B, L, F] of any integer type; values are checked."""
        _check_indices(spec, indices)
        return cls(spec, indices=indices.to(cls.dtype(spec)), **rest)

    def check(self) -> Tokens:
        """self, if shapes, types, indices and lengths are those of the spec; else one line."""
        if self.spec.vocab:
            if self.indices is None:
                raise InputError("these tokens have no indices; their spec is one of codes")
            _check_indices(self.spec, self.indices)
        else:
            _check_values(self.spec, self.values)
        if self.keep is None:
            return self
        if tuple(self.keep.shape) != self._keep_shape:
            raise InputError(
                f"keep has shape {tuple(self.keep.shape)}; expected {self._keep_shape}"
            )
        for length in set(self.keep.flatten().tolist()):
            self.spec.check_length(int(length))
        return self

    def select(self, rows: slice | Tensor) -> Tokens:
        """The tokens of some samples: a slice, places, or an int64 tensor of places."""
        return self._map(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Tokens:
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Tokens:
        """In page-locked memory, for a copy to a GPU that nobody waits for."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Tokens:
        held = {"indices": self.indices, "values": self.values, "keep": self.keep}
        return replace(self, **{k: function(v) for k, v in held.items() if v is not None})

    def kept(self) -> Tensor:
        """[B, L] bool: positions inside the prefix."""
        total = len(self)
        device = (self.indices if self.indices is not None else self.values).device
        return keep_mask(self.spec, self.keep, total, device)

    def prefix(self, length: int | Tensor) -> Tokens:
        """The first `length` positions (or blocks) of each sample; the rest is zeroed.

        Args:
            length: one number, [B] of them, or [B, S] for a cut inside each block. Raises
                ValueError if the spec does not allow it.
        """
        lengths = torch.as_tensor(length)
        _check_integers("length", lengths)
        lengths = lengths.long()
        given, shape = tuple(lengths.shape), self._keep_shape
        if given not in ((), (len(self),), shape):
            raise InputError(f"length has shape {given}; expected one number, or {shape} of them")
        if given and len(given) < len(shape):
            lengths = lengths.reshape(-1, 1)
        lengths = lengths.expand(shape)
        for one in set(lengths.flatten().tolist()):
            self.spec.check_length(one)
        if self.keep is not None:
            lengths = torch.minimum(lengths.to(self.keep.device), self.keep)
        cut = replace(self, keep=lengths)
        mask = cut.kept()[..., None]
        zero = lambda tensor: None if tensor is None else tensor * mask.to(tensor)
        return replace(cut, indices=zero(self.indices), values=zero(self.values))

    def regroup(self, vocab: tuple[int, ...]) -> Tokens:
        """The same codes as digits of another vocabulary with the same product (mixed radix).

        Their values are not looked at, which would wait for a GPU: `check` does that.
        """
        spec = self.spec.regroup(tuple(vocab))
        digits = radix.regroup(self.indices.long(), self.spec.vocab, spec.vocab)
        return replace(self, spec=spec, indices=digits.to(Tokens.dtype(spec)))

    def to_bytes(self) -> list[bytes]:
        """One bit-packed string per sample: header, then ceil(kept positions * bits / 8) bytes."""
        if self.indices is None:
            raise InputError("continuous tokens have no bytes; quantize them first")
        self.check()
        mask = self.kept().cpu().numpy()
        digits = self.indices.cpu().numpy()
        keep = None if self.keep is None else self.keep.reshape(len(self), -1).tolist()
        mark = self.spec.fingerprint()
        return [
            Header(
                mark, None if keep is None else keep[b], self.size, self.fps, self.made_by
            ).write()
            + pack(digits[b][mask[b]], self.spec.factor_bits)
            for b in range(len(self))
        ]

    @classmethod
    def from_bytes(cls, strings: list[bytes], spec: TokenSpec) -> Tokens:
        """The exact inverse of `to_bytes`; ValueError for bytes of another spec or length."""
        parsed = []
        for i, data in enumerate(strings):
            try:
                header, codes = read_header(data, spec)
                positions = kept_positions(header, spec)
                digits = unpack(codes, len(positions), spec.factor_bits)
            except ValueError as error:
                raise InputError(f"token bytes {i}: {error}") from None
            parsed.append((header, positions, digits))
        return gathered(spec, parsed)


def keep_mask(
    spec: TokenSpec, keep: Tensor | None, batch: int, device: torch.device | str
) -> Tensor:
    """[B, L] bool: the positions that `keep` leaves, [B] positions or blocks, or [B, S] inside."""
    if keep is None:
        return torch.ones(batch, spec.length, dtype=torch.bool, device=device)
    keep = keep.to(device)
    place = torch.arange(spec.length, device=device)
    if spec.prefix not in ("block", "per_block"):
        return place[None] < keep[:, None]
    # Lists, so that shapes depend on no tensor: one graph when compiled, no wait on a GPU. For the
    # same reason they go there from the host: `torch.tensor(..., device=...)` waits.
    sizes = spec.block_lengths
    there = lambda rows: torch.tensor(rows).to(device, non_blocking=True)
    block = there([i for i, n in enumerate(sizes) for _ in range(n)])
    if spec.prefix == "block":
        return block[None] < keep[:, None]
    inside = there([i for n in sizes for i in range(n)])
    return inside[None] < (keep[:, None] if keep.ndim == 1 else keep[:, block])


def _check_integers(name: str, tensor: Tensor) -> None:
    """InputError for floats, which would be cut to integers, and for booleans."""
    kind = tensor.dtype
    if kind.is_floating_point or kind.is_complex or kind == torch.bool:
        raise InputError(f"{name} of type {str(kind).removeprefix('torch.')}; expected integers")


def _check_values(spec: TokenSpec, values: Tensor | None) -> None:
    """InputError unless values are finite floats [B, L, dim]."""
    expected = (spec.length, spec.dim)
    if values is None or values.ndim != 3 or tuple(values.shape[1:]) != expected:
        found = None if values is None else tuple(values.shape)
        raise InputError(
            f"values have shape {found}; expected [B, {expected[0]}, {expected[1]}]: these tokens "
            "are continuous"
        )
    if not values.is_floating_point():
        raise InputError(f"values have type {values.dtype}; expected floats")
    if not values.isfinite().all():
        raise InputError("values are not finite; the network or the file that gave them is damaged")


def _check_indices(spec: TokenSpec, indices: Tensor) -> None:
    _check_integers("indices", indices)
    expected = (spec.length, len(spec.vocab))
    if indices.ndim != 3 or tuple(indices.shape[1:]) != expected:
        raise InputError(
            f"indices have shape {tuple(indices.shape)}; expected [B, {expected[0]}, {expected[1]}]"
        )
    if indices.numel() == 0:
        return
    low = int(indices.min())
    if low < 0:
        raise InputError(f"index {low} is negative; expected 0..{max(spec.vocab) - 1}")
    top = indices.amax(dim=(0, 1)).tolist()
    for factor, (seen, size) in enumerate(zip(top, spec.vocab, strict=True)):
        if seen >= size:
            raise InputError(
                f"index {seen} of factor {factor} is outside the codebook; expected 0..{size - 1}"
            )


def read_header(data: bytes, spec: TokenSpec) -> tuple[Header, bytes]:
    """The header of one packed string, and the bytes behind it; ValueError for another spec."""
    header, codes = Header.read(data, len(spec.blocks) if spec.prefix == "per_block" else 1)
    if header.fingerprint != spec.fingerprint():
        raise InputError("they were written with another token spec; use that tokenizer's spec")
    for length in header.keep or ():
        spec.check_length(length)
    return header, codes


def kept_positions(header: Header, spec: TokenSpec) -> np.ndarray:
    """The positions whose codes stand behind a header, ascending."""
    keep = header.keep
    if keep is not None:
        keep = torch.tensor([keep if spec.prefix == "per_block" else keep[0]])
    return keep_mask(spec, keep, 1, "cpu")[0].numpy().nonzero()[0]


def gathered(spec: TokenSpec, parsed: Sequence[tuple[Header, np.ndarray, np.ndarray]]) -> Tokens:
    """Tokens of samples, each a header, its positions [n] and their digits [n, F].

    InputError for samples that differ in size, fps or tokenizer, and for whole ones among prefixes.
    """
    shown = {(header.size, header.fps, header.made_by) for header, _, _ in parsed}
    if len(shown) > 1:
        raise InputError(f"strings of different (size, fps, made_by): {shown}; read them apart")
    size, fps, made_by = shown.pop() if shown else (None, None, None)
    keep, keeps = None, [header.keep for header, _, _ in parsed]
    if any(k is not None for k in keeps):
        if any(k is None for k in keeps):
            raise InputError("some strings are prefixes and some are whole; read them apart")
        keep = torch.tensor(keeps)
        keep = keep if spec.prefix == "per_block" else keep[:, 0]
    indices = np.zeros((len(parsed), spec.length, len(spec.vocab)), np.int64)
    for row, (_, positions, digits) in enumerate(parsed):
        indices[row, positions] = digits
    rest = {"keep": keep, "size": size, "fps": fps, "made_by": made_by}
    return Tokens.of(spec, torch.from_numpy(indices), **rest)
