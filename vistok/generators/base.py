"""Contract of generators, and how they are saved.

A generator models the tokens that a TokenSpec describes, perhaps under a condition. Nothing outside
knows how: classes, text, likelihoods and sampling settings are asked of it.
Letters: B batch, L positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import model_validator
from torch import Tensor, nn

from vistok.config import Config, ConfigError, validate, validate_part
from vistok.config.contract import base_of, required
from vistok.config.overrides import merge
from vistok.config.plugins import recorded
from vistok.config.registry import build, entries
from vistok.core.draws import Draws
from vistok.core.errors import InputError
from vistok.core.records import Batch, Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.generators.card import generator_card
from vistok.generators.conditioning import ConditionConfig, check_condition, read_condition
from vistok.generators.embedding import CodeEmbedding
from vistok.generators.texts import ReadsTexts, read_text_record
from vistok.runtime.modes import evaluating
from vistok.storage.card import CardFacts
from vistok.storage.imported import Imported
from vistok.storage.lineage import read_record
from vistok.tokens import Tokens, TokenSpec


class GeneratorConfig(Config):
    """Base of generators' configs; each adds its networks and its own sampling settings."""

    kind: str
    condition: ConditionConfig = ConditionConfig()
    sampling: Config = Config()
    """Default settings of sampling; they are saved with the model."""
    presets: dict[str, dict[str, Any]] = {}
    """Named changes of `sampling`. `guided` (none) and `unguided` (without guidance) are always
    there; a release gives its paper's own."""

    @model_validator(mode="after")
    def _presets_fit(self) -> GeneratorConfig:
        for name, changes in self.presets.items():
            whole = merge(self.sampling.model_dump(), changes)
            validate(type(self.sampling), whole, f"presets.{name}")
        return self

    @property
    def wants_codes(self) -> bool:
        """True if the generator is built from the code vectors of the tokenizer."""
        return False


class SavedCodes(nn.Module):
    """Stands for code vectors that come with a generator's saved weights."""


@base_of("generator")
class Generator(ReadsTexts, Imported, library_name="vistok", tags=["image-generator"]):
    """Base class of generators: networks over token sequences, without encoder or decoder.

    A subclass is built as `Kind(config, spec, codes=None)` and defines `forward`, `evaluate` and
    `generate`, and `unable` if there are tokens that it cannot model; its config has a default for
    everything. `codes` is the tokenizer's quantizer if `config.wants_codes`; what is needed of it
    later must be copied, since a saved generator is loaded with `SavedCodes` in its place.

    Attributes:
        config: its own config.
        spec: TokenSpec of the tokens that it learns and samples.
        inner: the same tokens in the vocabulary that is modeled, which a kind may regroup.
        classes: names of its classes; () = unconditional, or without names.
        tokenizer: {"name", "sha256", "codes_sha256"} of the tokenizer whose tokens it learned; may
            be empty, or lack the last.
        origin: of imported weights; None for those trained here.
        metrics: names that `evaluate` gives.
        judged_by: the one of them that tells the better of two checkpoints, and 1 if higher is
            better, else -1.
        takes_known: True if sampling takes over known codes: after a position was sampled, its code
            is that of `Condition.known` where `known_mask` says so, and what follows is sampled
            with it.
        continues_frames: True if it obeys condition.first_frames.
        masks_text: True if it obeys condition.text.mask, and can do without a class token.
    """

    makes = "generator"
    config: GeneratorConfig
    spec: TokenSpec
    inner: TokenSpec
    metrics: tuple[str, ...]
    judged_by: tuple[str, int]
    takes_known: bool = False
    masks_text: bool = False
    continues_frames: bool = False

    def __init__(self, config: GeneratorConfig, spec: TokenSpec) -> None:
        super().__init__()
        reason = self.unable(config, spec)
        if reason is not None:
            raise InputError(f"kind={config.kind} {reason}; {_who_can(spec)}")
        text = config.condition.text
        if text is not None and (text.mask or not text.class_token) and not self.masks_text:
            raise InputError(
                f"kind={config.kind} looks at the padding of a text and needs the class token "
                "behind it; leave out condition.text.mask and condition.text.class_token, or use "
                "kind=autoregressive"
            )
        if config.condition.first_frames is not None and not self.continues_frames:
            raise InputError(
                f"condition.first_frames={config.condition.first_frames}: kind={config.kind} "
                "continues no known frames; leave it out, or use kind=autoregressive"
            )
        self.config, self.spec, self.inner = config, spec, spec
        self.classes: tuple[str, ...] = ()
        self.tokenizer: dict[str, str] = {}

    @classmethod
    def unable(cls, config: GeneratorConfig, spec: TokenSpec) -> str | None:
        """Reason why a generator of this config cannot model these tokens; None if it can.

        It continues the words "kind=NAME": "models discrete tokens, and these are continuous".
        """
        return None if spec.vocab else "models discrete tokens, and these are continuous (vocab=())"

    def condition_of(self, batch: Batch) -> Condition:
        """The condition that this generator reads of a batch; unlabeled samples have none.

        Raises ConfigError, one line, if the batch lacks text features that are read.
        """
        return read_condition(batch, self.config.condition)

    # -- training -------------------------------------------------------------------------------

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        """Draws of a training step for the samples `index` [B]: `null`, parts["generator"]."""
        return Draws(null=rng.uniform(index) < self.config.condition.dropout)

    @required
    def forward(
        self, tokens: Tokens, condition: Condition, draws: Draws | None = None
    ) -> dict[str, Tensor]:
        """Scalars of a batch: "loss", which training minimizes, and others that are logged."""
        raise NotImplementedError

    @required
    def evaluate(
        self, tokens: Tokens, condition: Condition
    ) -> dict[str, tuple[Tensor | float, int]]:
        """{name: (sum, count)} of a batch; metrics are sums over counts of all batches."""
        raise NotImplementedError

    # -- sampling -------------------------------------------------------------------------------

    @property
    def can_stop(self) -> bool:
        """True if sampling may end at a prefix; else whole sequences are sampled and then cut."""
        return False

    @property
    def num_classes(self) -> int:
        """Number of classes of Condition.label; 0 = unconditional."""
        return self.config.condition.classes or 0

    @property
    def sampling(self) -> Config:
        """Default settings of `sample`."""
        return self.config.sampling

    @property
    def presets(self) -> dict[str, dict[str, Any]]:
        """Named changes of the default settings; `guided` and `unguided` are always among them."""
        return {"guided": {}, "unguided": self.unguided, **self.config.presets}

    @property
    def unguided(self) -> dict[str, float]:
        """Changes of sampling settings that switch guidance off."""
        known = type(self.sampling).model_fields
        return {name: 1.0 for name in ("guidance", "guidance_start") if name in known}

    def settings(self, sampling: Config | Mapping[str, Any] | str | None = None) -> Config:
        """The settings of `sample`: the default, with changes, or others of the same class.

        Args:
            sampling: settings, changes, the name of a preset, or changes with such a name under
                the key "preset", upon which they are laid.

        Raises ValueError, one line, for unknown keys, presets and wrong values.
        """
        kind = type(self.sampling)
        if isinstance(sampling, str):
            sampling = {"preset": sampling}
        if isinstance(sampling, Mapping) and "preset" in sampling:
            sampling = dict(sampling)
            sampling = merge(self._preset(sampling.pop("preset")), sampling)
        if sampling is None or isinstance(sampling, kind):
            found = self.sampling if sampling is None else sampling
        elif isinstance(sampling, Mapping):
            found = validate(kind, merge(self.sampling.model_dump(), sampling), "sampling")
        else:
            raise InputError(
                f"sampling={sampling!r}: expected {kind.__name__} or a dict of changes of "
                f"{', '.join(kind.model_fields) or 'nothing: this generator has no settings'}"
            )
        self.check_settings(found)
        return found

    def _preset(self, name: object) -> dict[str, Any]:
        if name not in self.presets:
            raise InputError(f"sampling.preset={name}: expected one of {', '.join(self.presets)}")
        return self.presets[name]

    def check_condition(self, condition: Condition, samples: int) -> None:
        """Raise ValueError, one line, for a condition that this generator cannot read.

        One that continues a known prefix or known frames checks those itself.
        """
        check_condition(condition, self.config.condition, samples, self.spec, self.takes_known)

    def check_settings(self, settings: Config) -> None:
        """Raise ValueError, one line, for settings that this generator cannot follow."""

    def sample(
        self,
        condition: Condition | None = None,
        *,
        index: Tensor,
        seed: int = 0,
        length: int | None = None,
        sampling: Config | Mapping[str, Any] | str | None = None,
    ) -> Tokens:
        """New tokens of B samples, on the generator's device.

        Args:
            condition: of B samples; None = unconditional.
            index, seed: sample numbers [B] and seed, which key all randomness: how samples are
                split into batches changes nothing.
            length: prefix to end at, if the spec allows it; None = whole sequences.
            sampling: as `settings` takes it; None = `self.sampling`.

        Raises ValueError, one line, for a condition, length or setting that does not fit.
        """
        settings = self.settings(sampling)
        spec = self.spec
        length = spec.max_prefix if length is None else spec.check_length(length)
        condition = Condition() if condition is None else condition
        self.check_condition(condition, len(index))
        positions = spec.positions_in(length) if self.can_stop else spec.length
        with torch.no_grad(), evaluating(self):
            condition = _moved(condition, next(self.parameters()).device)
            tokens = self.generate(condition, index.cpu(), seed, positions, settings)
        return tokens if length == spec.max_prefix else tokens.prefix(length)

    @required
    def generate(
        self, condition: Condition, index: Tensor, seed: int, positions: int, settings: Any
    ) -> Tokens:
        """Samples before they are cut to their length; `sample` calls it.

        Args:
            condition: checked and on the generator's device.
            index: sample numbers [B] on the CPU.
            positions: how many of the first positions are wanted; L unless `can_stop`.
            settings: of the class of `self.sampling`, checked.
        """
        raise NotImplementedError

    def regrouped(self, tokens: Tokens) -> Tokens:
        """Tokens in the vocabulary that is modeled."""
        same = tokens.spec.vocab == self.inner.vocab
        return tokens if same else tokens.regroup(self.inner.vocab)

    def tokens_of(self, codes: Tensor) -> Tokens:
        """Tokens in the tokenizer's vocabulary, of codes [B, n, F] in the one that is modeled."""
        tokens = Tokens(self.inner, indices=codes.to(Tokens.dtype(self.inner)))
        if self.inner.vocab != self.spec.vocab:
            tokens = tokens.regroup(self.spec.vocab)
        return Tokens(self.spec, indices=tokens.indices)

    # -- files ----------------------------------------------------------------------------------

    def summary(self) -> dict[str, object]:
        """Facts to print before training, by title."""
        return {"tokens/sample": self.spec.length}

    def untrained(self, seed: int = 0) -> Generator:
        """The same generator with fresh weights: the baseline of one that was trained."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            twin = type(self)(self.config, self.spec, SavedCodes()).eval()
        for name, buffer in self.named_buffers():  # code vectors of the tokenizer
            twin.get_buffer(name).copy_(buffer)
        for mine, other in zip(self.modules(), twin.modules(), strict=True):
            if isinstance(mine, CodeEmbedding):  # what training made of them: no start is saved
                other.table.data.copy_(mine.table)
        twin.classes, twin.tokenizer = self.classes, self.tokenizer
        twin.text_record, twin._text_encoder = self.text_record, self._text_encoder
        return twin

    def card_facts(self) -> CardFacts:
        return generator_card(self)

    def describe(self) -> dict[str, Any]:
        return {
            **self.config.model_dump(mode="json"),
            "spec": self.spec.model_dump(mode="json"),
            "class_names": list(self.classes),
            "tokenizer": self.tokenizer,
            **({"text_encoder": self.text_record} if self.text_record else {}),
        }

    @classmethod
    def from_description(cls, data: dict[str, Any], source: str) -> Generator:
        data = dict(data)
        names = ("spec", "class_names", "tokenizer", "text_encoder", "plugins")
        facts = {name: data.pop(name, None) for name in names}
        if facts["spec"] is None:
            raise ConfigError(f"{source}: no 'spec'; expected the config of a generator")
        with recorded(facts["plugins"], source):
            config = validate_part("generator", data, source)
        generator = build(config, validate(TokenSpec, facts["spec"], source), SavedCodes())
        generator.classes = _class_names(facts["class_names"], generator.num_classes, source)
        generator.tokenizer = _made_by(facts["tokenizer"], source)
        generator.text_record = read_text_record(facts["text_encoder"], source)
        return generator


def load_generator(name: str | Path, **options: Any) -> Generator:
    """The generator of any kind behind a name: `Generator.from_pretrained`."""
    return Generator.from_pretrained(name, **options)


def _who_can(spec: TokenSpec) -> str:
    """The kinds of generators that can model these tokens, as the end of a message."""
    kinds = []
    for kind, entry in entries("generator").items():
        if entry.part.unable(entry.config(), spec) is None:
            kinds.append(kind)
    blocks, vocab = (str(part) for part in (spec.blocks, spec.vocab))
    tokens = f"tokens of blocks={blocks[:60]}, vocab={vocab[:60]}"
    if not kinds:
        return f"no generator models {tokens}: use a tokenizer with a discrete quantizer"
    return f"for {tokens} use {', '.join(kinds)}"


def _class_names(names: Any, classes: int, source: str) -> tuple[str, ...]:
    """The names of all classes, or none: sampling goes over the names, so one too few or a text
    taken for a list of letters would change what is sampled."""
    if not names and isinstance(names, list | None):
        return ()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"{source}: class_names={str(names)[:60]!r}: expected a list of texts; save it again"
        )
    if len(names) != classes:
        raise ConfigError(
            f"{source}: {len(names)} class_names for condition.classes={classes}; expected one "
            "name for each class, or none; save it again"
        )
    return tuple(names)


def _made_by(tokenizer: Any, source: str) -> dict[str, str]:
    """The record of the tokenizer, {} if it is not known."""
    if tokenizer is None or tokenizer == {}:
        return {}
    try:
        return read_record(tokenizer)
    except InputError as error:
        raise ConfigError(f"{source}: {error}; save it again") from None


def _moved(condition: Condition, device: torch.device) -> Condition:
    held = {name: getattr(condition, name) for name in vars(condition)}
    moved = {name: value.to(device) for name, value in held.items() if hasattr(value, "to")}
    return type(condition)(**{**held, **moved})
