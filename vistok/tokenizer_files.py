"""Files of a tokenizer: what its config.json holds, and the hashes by which weights are known."""

from __future__ import annotations

from typing import Any

from vistok.conditioning import TEXT_ENCODER
from vistok.config import ConfigError, validate
from vistok.config.plugins import recorded
from vistok.frozen.network import Frozen
from vistok.storage import lineage
from vistok.storage.card import CardFacts
from vistok.storage.imported import Imported
from vistok.storage.lineage import Lineage
from vistok.storage.weights import content_sha256
from vistok.tokenizer_config import TokenizerConfig

_RECORDS = ("plugins", "frozen", "lineage")  # in config.json beside the config


class TokenizerFiles(Imported):
    """Part of a tokenizer: `save_pretrained`, `from_pretrained` and what they write and read."""

    makes = "tokenizer"
    config: TokenizerConfig
    lineage: Lineage
    text_sha256: str | None

    def stays_fp32(self) -> set[str]:
        """The quantizer's, those of a network whose features are read, and buffers of all parts: as
        in mixed-precision training."""
        kept = ("quantizer.", "input_space.") if self.input_space.reads_only else ("quantizer.",)
        own = [name for name, _ in self.named_parameters() if name.startswith(kept)]
        return {*own, *(name for name, _ in self.named_buffers())}

    def codes_sha256(self) -> str:
        """Hash of the weights that make the tokens: all but those of decoder and output space.

        Tokens of one tokenizer mean nothing to another, whatever their spec; one whose decoder
        alone was trained further has the same.
        """
        behind = ("decoder.", "output_space.")
        state = self.state_dict()
        return content_sha256({k: v for k, v in state.items() if not k.startswith(behind)})

    def frozen_record(self) -> dict[str, str]:
        """{name: sha256} of the borrowed frozen networks, which are no part of the saved model.

        That of the text encoder is there once it was used, and stays.
        """
        found = {part.name: part.sha256 for part in self.modules() if isinstance(part, Frozen)}
        return found if self.text_sha256 is None else {**found, TEXT_ENCODER: self.text_sha256}

    def describe(self) -> dict[str, Any]:
        more = {"frozen": self.frozen_record(), "lineage": lineage.describe(self.lineage)}
        described = self.config.model_dump(mode="json")
        return described | {name: value for name, value in more.items() if value}

    @property
    def licenses(self) -> tuple[str, ...]:
        """Licenses of the weights and of those they came from, as far as they are known."""
        parents = (parent.license for step in self.lineage for parent in step.parents)
        return tuple(one for one in (self.config.license, *parents) if one)

    def card_facts(self) -> CardFacts:
        spec, config, clip = self.spec(), self.config, self.shape.is_clip
        sample, sides = ("clip" if clip else "image"), " x ".join(map(str, self.shape.sides))
        size = f"{spec.length:,} tokens"
        size += f" ({spec.bits:,} bits)" if spec.vocab else f" of {spec.dim} numbers"
        flexible = "" if spec.prefix == "none" else "; shorter prefixes decode, too"
        parts = {name: getattr(config, name).kind for name in ("encoder", "quantizer", "decoder")}
        rules = ", ".join(part.kind for part in config.regularizers)
        counts = {f"{n} parameters": f"{c:,}" for n, c in self.part_parameters().items()}
        media, read = ("video", "clip.mp4") if clip else ("image", "cat.jpg")
        return CardFacts(
            title=self.release or self.notes.get("run") or f"A vistok {sample} tokenizer",
            summary=f"A tokenizer of {sample}s, made with vistok: {sides} pixels become {size} and "
            f"back{flexible}.",
            tags=(f"{media}-tokenizer", "vistok", *dict.fromkeys(parts.values())),
            use=(
                "from vistok import Tokenizer",
                "",
                "tokenizer = Tokenizer.from_pretrained(NAME)",
                f'tokens = tokenizer.encode(tokenizer.preprocess("{read}"))',
                "images = tokenizer.to_pil(tokenizer.decode(tokens))",
            ),
            table={
                sample: f"{sides} pixels",
                **spec.described(sample),
                **parts,
                **({"regularizers": rules} if rules else {}),
                **counts,
            },
            weights=(*self.origin_lines(), *self._came_from()),
            config=config.model_dump(mode="json"),
            license=", ".join(dict.fromkeys((*self.licenses, *super().licenses))) or None,
            notes=self.notes,
        )

    def _came_from(self) -> list[str]:
        """Sentences on parents, borrowed networks and the weights' hash."""
        lines = []
        for step in self.lineage:
            parents = ", ".join(f"{p.name} (sha256 {p.sha256[:12]})" for p in step.parents)
            changed = ", ".join(step.changed) or "nothing"
            lines.append(f"Lineage: {step.kind} ({step.stage}) of {parents}; changed: {changed}.")
        for name, sha256 in self.frozen_record().items():
            lines.append(f"Needs the frozen network {name} (sha256 {sha256[:12]}), not included.")
        lines.append(f"Hash of the weights that make tokens: {self.codes_sha256()[:12]}.")
        return lines

    @staticmethod
    def read_config(data: dict[str, Any], source: str) -> TokenizerConfig:
        """The config in a config.json, without plugins, frozen networks and lineage."""
        own = {name: value for name, value in data.items() if name not in _RECORDS}
        with recorded(data.get("plugins"), source):
            return validate(TokenizerConfig, own, source)

    @classmethod
    def from_description(cls, data: dict[str, Any], source: str) -> Any:
        frozen = data.get("frozen", {})
        tokenizer = cls(cls.read_config(data, source))
        tokenizer.lineage = lineage.read(data.get("lineage"), source)
        tokenizer.text_sha256 = frozen.get(TEXT_ENCODER)  # compared when the encoder is loaded
        own = tokenizer.frozen_record()
        if frozen != own:
            raise ConfigError(
                f"{source}: frozen: these weights were trained with {frozen}, and the networks "
                f"here are {own}; expected the same names and hashes: use the same weight files"
            )
        return tokenizer
