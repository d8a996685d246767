"""Tokens as an object: samples of a batch, comparison, ids for models, files.

An id is the one number of a position: its factors as digits, the first the fastest (mixed radix, as
`TokenSpec.regroup` has them). Flat ids are one number for each factor of a position, in order, each
factor with a range of its own: factor f begins at the sum of the sizes before it. -1 stands where a
sample has no token, because its prefix ends earlier than that of another sample.
Letters: B batch, L positions, F factors, n positions of the longest prefix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.tokens import radix
from vistok.tokens.spec import TokenSpec

if TYPE_CHECKING:
    from vistok.tokens.tokens import Tokens

_LARGEST = 2**62


class Codes:
    """Part of `Tokens`: all that is asked of them by their fields."""

    spec: TokenSpec
    indices: Tensor | None
    values: Tensor | None
    keep: Tensor | None

    def __len__(self) -> int:
        return len(self.indices if self.indices is not None else self.values)

    # -- samples of a batch ---------------------------------------------------------------------

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> Tokens:
        """The tokens of some samples: a number gives Tokens of one sample, a slice, a list of
        numbers or a tensor (numbers or a mask) of several. IndexError for one that is not there."""
        if not isinstance(rows, slice):
            rows = torch.as_tensor(rows)
            if rows.ndim > 1 or (rows.is_floating_point() and rows.numel()):
                raise IndexError(f"rows of type {rows.dtype} and shape {tuple(rows.shape)}")
            rows = rows if rows.dtype == torch.bool and rows.ndim else rows.long()
        if isinstance(rows, Tensor) and rows.ndim == 0:
            row = int(rows)
            if not -len(self) <= row < len(self):
                raise IndexError(f"sample {row} of {len(self)}")
            rows = slice(row % len(self), row % len(self) + 1)
        return self._map(lambda tensor: tensor[_on(rows, tensor)])

    def __iter__(self) -> Iterator[Tokens]:
        return (self[row] for row in range(len(self)))

    @classmethod
    def cat(cls, many: Sequence[Tokens]) -> Tokens:
        """Tokens of all samples of several; they need the same spec, size, fps and tokenizer,
        as far as these are known.

        Whole sequences beside prefixes count as prefixes of full length.
        """
        many = list(many)
        if not many:
            raise InputError("cat of no tokens; expected a list of at least one")
        first, facts = many[0], {}
        for name in ("spec", "size", "fps", "made_by"):
            values = [getattr(one, name) for one in many]
            facts[name] = None if None in values else values[0]  # unknown of some: of all
            found = {value for value in values if value is not None}
            if len(found) > 1:
                shown = " and ".join(sorted(map(str, found))[:2])
                raise InputError(f"cat of tokens whose {name} differ: {shown}")
        keep = None
        if any(one.keep is not None for one in many):
            whole = lambda one: torch.full(one._keep_shape, one.spec.max_prefix)
            keep = torch.cat([whole(one) if one.keep is None else one.keep for one in many])
        join = lambda name: torch.cat([getattr(one, name) for one in many])
        tensors = {n: join(n) for n in ("indices", "values") if getattr(first, n) is not None}
        return replace(first, keep=keep, **facts, **tensors)

    # -- comparison -----------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        """True for the same codes (or values) of the same spec at the same lengths, whatever the
        device; what is noted beside them (size, fps, made_by) is not compared."""
        if not isinstance(other, Codes):
            return NotImplemented
        if self.spec != other.spec or len(self) != len(other):
            return False
        mine, theirs = self.kept().cpu(), other.kept().cpu()
        if not torch.equal(mine, theirs):
            return False
        name = "values" if self.indices is None else "indices"
        codes = [getattr(one, name) for one in (self, other)]
        if any(one is None for one in codes):
            return False
        return torch.equal(codes[0].cpu()[mine], codes[1].cpu()[theirs])

    __hash__ = None  # they hold tensors

    def __repr__(self) -> str:
        spec, size = self.spec, len(self)
        what = (
            f"{spec.length} tokens of {spec.bits / spec.length:g} bits"
            if spec.vocab
            else (f"{spec.length} vectors of {spec.dim}")
        )
        parts = [f"{size} sample{'s' * (size != 1)} x {what}"]
        if self.keep is not None and size:
            low, high = (int(end) for end in self.keep.aminmax())
            unit = {"block": "blocks", "per_block": "tokens of each block"}.get(spec.prefix, "")
            parts.append(f"kept {low if low == high else f'{low} to {high}'} {unit}".rstrip())
        held = self.indices if self.indices is not None else self.values
        parts.append(f"{str(held.dtype).removeprefix('torch.')} on {held.device}")
        parts += [f"{self.fps:g} fps"] if self.fps is not None else []
        parts += [f"made by {self.made_by}"] if self.made_by is not None else []
        return f"Tokens({', '.join(parts)})"

    # -- integers for models --------------------------------------------------------------------

    def ids(self) -> Tensor:
        """int64 [B, n]: one id for each position, 0 .. spec.codebook_size - 1; n = L of whole
        sequences. `Tokens.from_ids` is the inverse, and `Tokenizer.decode` takes them too.

        Raises InputError for continuous tokens, and for more than 2**62 codes per position (then
        `flat_ids`, perhaps of `regroup`ed tokens).
        """
        self._discrete("ids")
        if self.spec.codebook_size > _LARGEST:
            raise InputError(
                f"a position has {self.spec.codebook_size:.3g} codes, more than an int64 holds; "
                "use flat_ids, perhaps of tokens.regroup(vocab)"
            )
        return self._shown(radix.join(self.indices.long(), self.spec.vocab))

    def flat_ids(self) -> Tensor:
        """int64 [B, n * F]: the factors of each position one after the other, each in a range of
        its own, 0 .. sum(spec.vocab) - 1 in all; for language models over one vocabulary.

        Of one factor these are `ids`. `regroup` first for other factors: 18 bits as two of 512.
        `Tokens.from_flat_ids` is the inverse.
        """
        self._discrete("flat ids")
        shown = self._shown(self.indices.long() + _offsets(self.spec, self.indices.device))
        return shown.flatten(1)

    @classmethod
    def from_ids(cls, spec: TokenSpec, ids: Tensor, **rest: Any) -> Tokens:
        """The inverse of `ids`, of any integer type: [B, n], or [n] of one sample.

        n = L, or the positions of a prefix that the spec allows; -1 at the end of a shorter one.
        Raises InputError for other shapes, ids and lengths.
        """
        ids = _batched(spec, ids, 1)
        top = min(spec.codebook_size, _LARGEST) - 1
        present = ids >= 0
        if ids.numel() and (int(ids.max()) > top or int(ids.min()) < -1):
            wrong = int(ids.max()) if int(ids.max()) > top else int(ids.min())
            raise InputError(f"id {wrong}: expected 0..{top} (-1 behind the end of a prefix)")
        return cls._of(spec, radix.split(ids.clamp_min(0), spec.vocab), present, rest)

    @classmethod
    def from_flat_ids(cls, spec: TokenSpec, ids: Tensor, **rest: Any) -> Tokens:
        """The inverse of `flat_ids`: [B, n * F], or [n * F] of one sample; as `from_ids`."""
        ids = _batched(spec, ids, len(spec.vocab))
        ids = ids.unflatten(1, (-1, len(spec.vocab)))
        present = (ids >= 0).all(-1)
        digits = torch.where(present[..., None], ids - _offsets(spec, ids.device), 0)
        sizes = torch.tensor(spec.vocab, device=ids.device)
        wrong = (digits < 0) | (digits >= sizes) | ((ids != -1) & ~present[..., None])
        if bool(wrong.any()):
            row, place, factor = wrong.nonzero()[0].tolist()
            begin = sum(spec.vocab[:factor])
            raise InputError(
                f"flat id {int(ids[row, place, factor])} of factor {factor}: expected "
                f"{begin}..{begin + spec.vocab[factor] - 1}"
            )
        return cls._of(spec, digits, present, rest)

    @classmethod
    def _of(cls, spec: TokenSpec, digits: Tensor, present: Tensor, rest: dict) -> Tokens:
        """Tokens of digits [B, n, F]; `present` [B, n] says which positions there are."""
        missing = spec.length - digits.shape[1]
        digits = torch.nn.functional.pad(digits, (0, 0, 0, missing))
        present = torch.nn.functional.pad(present, (0, missing))
        keep = None if bool(present.all()) else _kept(spec, present)
        return cls.of(spec, digits, keep=keep, **rest).check()

    def _discrete(self, what: str) -> None:
        if self.indices is None:
            raise InputError(f"continuous tokens have no {what}; quantize them first")
        self.check()

    def _shown(self, numbers: Tensor) -> Tensor:
        """The first n positions, -1 at those that are missing."""
        if self.keep is None:
            return numbers
        kept = self.kept()
        count = int(kept.any(0).nonzero().max()) + 1 if len(self) else 0
        mask = kept[:, :count].unflatten(1, (count, *[1] * (numbers.ndim - 2)))
        return torch.where(mask, numbers[:, :count], -1)

    # -- files ----------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write a .safetensors file of tensors and spec, whole or not at all; `load` reads it."""
        from vistok.tokens.saving import save

        save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Tokens:
        """The tokens of a file that `save` wrote; a UserError of one line for any other."""
        from vistok.tokens.saving import load

        return load(path)


def _on(rows: Any, tensor: Tensor) -> Any:
    return rows.to(tensor.device) if isinstance(rows, Tensor) else rows


def _offsets(spec: TokenSpec, device: torch.device) -> Tensor:
    """[F]: where the range of each factor begins."""
    return torch.tensor([0, *accumulate(spec.vocab[:-1])], device=device)


def _batched(spec: TokenSpec, ids: Tensor, factors: int) -> Tensor:
    """Ids as int64 [B, n * factors]; InputError for other shapes and types."""
    if not spec.vocab:
        raise InputError("these tokens are continuous; expected Tokens with values, not ids")
    ids = torch.as_tensor(ids)
    kind = ids.dtype
    if kind.is_floating_point or kind.is_complex or kind == torch.bool:
        raise InputError(f"ids of type {str(kind).removeprefix('torch.')}; expected integers")
    ids = ids[None] if ids.ndim == 1 else ids
    most = spec.length * factors
    if ids.ndim != 2 or not 1 <= ids.shape[1] <= most or ids.shape[1] % factors:
        each = "" if factors == 1 else f", {factors} for each position"
        raise InputError(
            f"ids have shape {tuple(ids.shape)}; expected [B, {most}]{each}, fewer of a prefix"
        )
    return ids.long()


def _kept(spec: TokenSpec, present: Tensor) -> Tensor:
    """[B] | [B, S]: the lengths of prefixes that hold just these positions; InputError if none."""
    from vistok.tokens.tokens import keep_mask

    if spec.prefix == "per_block":
        keep = torch.stack([part.sum(-1) for part in present.split(spec.block_lengths, 1)], 1)
    elif spec.prefix == "block":
        ends = torch.tensor([0, *accumulate(spec.block_lengths)], device=present.device)
        keep = torch.searchsorted(ends, present.sum(-1))
    else:
        keep = present.sum(-1)
    if spec.prefix == "none" or not torch.equal(
        keep_mask(spec, keep, len(present), present.device), present
    ):
        counts = sorted(set(present.sum(-1).tolist()))
        allowed = [spec.positions_in(n) for n in spec.eval_lengths]
        raise InputError(
            f"ids of {counts[0]} positions are no prefix of this tokenizer's sequences; expected "
            f"the first {', '.join(map(str, allowed[:8]))}{', ...' * (len(allowed) > 8)}"
        )
    return keep
