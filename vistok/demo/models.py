"""Models that the page offers: opened once, shared by all visitors."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from vistok import pretrained
from vistok.config.errors import InputError
from vistok.generators import Generator
from vistok.pretrained.owner import owner_of
from vistok.tokenizer import Tokenizer
from vistok.tokens import TokenSpec

_MOST = 12  # models that may be typed into one running page


@dataclass(frozen=True)
class Model:
    """A tokenizer of images, as the page shows it."""

    name: str
    tokenizer: Tokenizer
    codes_sha256: str

    @property
    def spec(self) -> TokenSpec:
        return self.tokenizer.spec()

    @property
    def side(self) -> int:
        """Pixels of the shorter side of its images."""
        return min(self.tokenizer.shape.image_size)


@dataclass(frozen=True)
class Sampler:
    """A generator and the tokenizer that decodes its samples."""

    name: str
    generator: Generator
    owner: Tokenizer
    lock: threading.Lock = field(default_factory=threading.Lock)  # one visitor samples at a time


class Models:
    """The tokenizers that can be chosen, and the generators."""

    def __init__(
        self,
        names: Sequence[str],
        generators: Sequence[str] = (),
        *,
        typed: bool = True,
        device: str = "cpu",
    ) -> None:
        """Open the models that are named at the start.

        Args:
            typed: visitors may add models by name; False where others than this machine's user
                can visit, since a name may be any path of the machine.
        Raises a UserError of one line for a name that opens no tokenizer of images.
        """
        self.typed, self.device = typed, device
        self._lock, self._models, self._added = threading.Lock(), {}, 0
        for name in dict.fromkeys(names):
            self._models[name] = self._opened(name)
        self._samplers = {name: self._sampler(name) for name in dict.fromkeys(generators)}

    @property
    def names(self) -> list[str]:
        return list(self._models)

    @property
    def samplers(self) -> list[str]:
        return list(self._samplers)

    def __getitem__(self, name: str) -> Model:
        """A tokenizer that was opened; InputError for another name, which opens nothing."""
        if name not in self._models:
            raise InputError(f"{name}: not one of the models of this page: {_listed(self.names)}")
        return self._models[name]

    def sampler(self, name: str) -> Sampler:
        """A generator that was opened; InputError for another name."""
        if name not in self._samplers:
            raise InputError(
                f"{name}: not one of the generators of this page: {_listed(self.samplers)}"
            )
        return self._samplers[name]

    def add(self, name: str) -> str:
        """Open a model that a visitor typed; its name. Errors as at the start, and where visitors
        may not."""
        name = name.strip()
        if not self.typed:
            raise InputError("this page offers the models that were named at its start only")
        if not name:
            raise InputError("type the name of a model: a run, a folder or a released name")
        with self._lock:
            if name not in self._models:
                if self._added >= _MOST:
                    raise InputError(f"{_MOST} models were added already; start the page again")
                self._models[name] = self._opened(name)
                self._added += 1
        return name

    def _opened(self, name: str) -> Model:
        tokenizer = pretrained.open(name, expect="tokenizer", device=self.device)
        reads = [part for part, how in tokenizer.config.reading.items() if not how.optional]
        if tokenizer.shape.is_clip:
            raise InputError(f"{name}: a tokenizer of clips; the page shows those of images")
        if reads:
            raise InputError(
                f"{name}: its {' and '.join(reads)} must be told in words what an image shows; the "
                "page has none: use vistok encode --text"
            )
        tokenizer.eval().requires_grad_(False)
        return Model(name, tokenizer, tokenizer.codes_sha256())

    def _sampler(self, name: str) -> Sampler:
        generator = pretrained.open(name, expect="generator", device=self.device)
        if generator.reads_text:
            raise InputError(f"{name}: it samples from texts; use vistok generate --text")
        owner = self._owner(name, generator)
        if owner.shape.is_clip:
            raise InputError(f"{name}: it samples clips; the page shows images")
        return Sampler(name, generator, owner.to(self.device).eval())

    def _owner(self, name: str, generator: Generator) -> Tokenizer:
        """The tokenizer that the generator's record names, else the one of this page's that it
        learned the tokens of."""
        try:
            return owner_of(name, generator)[0]
        except InputError as error:
            for model in self._models:
                try:
                    return owner_of(name, generator, model)[0]
                except InputError:
                    continue
            raise error from None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "there are none"
