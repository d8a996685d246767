"""Official configs that are trees of class paths and arguments (hydra's), read without running any.

A class path is looked up in a table and nothing of it is ever imported or called. Arguments that
only name entries of the official code's dicts (`..._key`) say nothing here; every other one is
taken, or refused by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from vistok.config import ConfigError
from vistok.core.text import printable

REQUIRED = object()  # stands for the default of an argument that must be given
_RELEASE = "expected the config.json that lies beside the released weights, as it came"
_ACTIVATIONS = {"torch.nn.SiLU": "silu", "torch.nn.modules.activation.SiLU": "silu"}
_ACTIVATIONS |= {"torch.nn.GELU": "gelu", "torch.nn.modules.activation.GELU": "gelu"}


@dataclass(frozen=True)
class ClassTree:
    """The classes of one project."""

    family: str  # begins every message
    arguments: Mapping[str, Mapping[str, Any]]  # of each class: defaults
    sequence: str  # class that holds the modules of encoder and decoder
    optional: Collection[str]  # modules that may be left out
    norms: tuple[str, ...]  # paths of parameter-free layer norms

    def options(self, tree: Any, place: str, *classes: str) -> dict[str, Any]:
        """Arguments of a module with their defaults, and its class as `_target_`.

        ConfigError for a class that is none of these, and for arguments that it does not know.
        """
        if not isinstance(tree, Mapping):
            raise ConfigError(f"{self.family}: the config lacks {place}; {_RELEASE}")
        target = tree.get("_target_")
        if target not in classes:
            raise ConfigError(
                f"{self.family}: {place} names the class {printable(target)}; expected "
                f"{' or '.join(classes)} (classes of a config are looked up, never run)"
            )
        known = self.arguments[target]
        given = {
            k: v
            for k, v in tree.items()
            if k in known or not (k == "_target_" or _names_an_entry(k))
        }
        for key in sorted(set(given) - set(known)):
            raise ConfigError(f"{self.family}: {place}.{printable(key)} is not known; {_RELEASE}")
        found = {**known, **given, "_target_": target}
        for key, value in found.items():
            if value is REQUIRED:
                raise ConfigError(f"{self.family}: the config lacks {place}.{key}; {_RELEASE}")
        return found

    def modules(self, tree: Any, side: str, known: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
        """{module: arguments} of encoder or decoder; those that are left out are absent."""
        if not isinstance(tree, Mapping) or not isinstance(tree.get("module_dict"), Mapping):
            raise ConfigError(f"{self.family}: the config lacks {side}.module_dict; {_RELEASE}")
        if tree.get("_target_", self.sequence) != self.sequence:
            raise ConfigError(
                f"{self.family}: {side} names the class {printable(tree['_target_'])}; {_RELEASE}"
            )
        named = tree["module_dict"]
        for name in named:
            if name not in known:
                raise ConfigError(
                    f"{self.family}: {side}.module_dict.{printable(name)} is not known; expected "
                    f"{', '.join(known)}"
                )
        return {
            name: self.options(named.get(name), f"{side}.module_dict.{name}", *classes)
            for name, classes in known.items()
            if name in named or name not in self.optional
        }

    def refuse(self, place: str, value: Any, expected: str) -> None:
        """ConfigError for an option whose value no part of ours has."""
        raise ConfigError(
            f"{self.family}: {place}={printable(value)}: not supported; expected {expected}"
        )

    def only(self, found: Mapping[str, Any], place: str, **wanted: Any) -> None:
        """Refuse options that have another value than these."""
        for key, value in wanted.items():
            if found[key] != value:
                self.refuse(f"{place}.{key}", found[key], repr(value))

    def ignored(self, found: Mapping[str, Any], place: str, why: str, **defaults: Any) -> None:
        """Warn about options with other values than these, which change nothing here."""
        for key, value in defaults.items():
            if found[key] != value:
                warnings.warn(
                    f"{self.family}: {place}.{key}={printable(found[key])}: {why}", stacklevel=3
                )

    def activation(self, value: Any, place: str) -> str:
        """silu or gelu, of a class path or what stands for one."""
        if isinstance(value, Mapping):
            value = value.get("path", value.get("_target_"))
        if value not in _ACTIVATIONS:
            self.refuse(f"{place}.act_layer", value, "torch.nn.SiLU or torch.nn.GELU")
        return _ACTIVATIONS[value]

    def norm_eps(self, value: Any, place: str) -> float:
        """Epsilon of a parameter-free layer norm, of a partial class in the config."""
        if value is None:
            return 1e-5
        given = dict(value) if isinstance(value, Mapping) else {"_target_": value}
        path = given.pop("_target_", None)
        for key in ("_partial_", "bias"):
            given.pop(key, None)
        if path not in self.norms or given.pop("elementwise_affine", True):
            self.refuse(
                f"{place}.norm_layer", value, f"{self.norms[0]} with elementwise_affine=False"
            )
        eps = given.pop("eps", 1e-5)
        if given:
            self.refuse(f"{place}.norm_layer.{sorted(given)[0]}", given, "no such argument")
        return eps

    # -- parts that a whole line of projects shares -----------------------------------------------

    def transformer(self, trunk: Mapping[str, Any], place: str) -> dict[str, Any]:
        """Tree of a TransformerConfig, of a FlexTransformer's arguments."""
        width = trunk["dim"]
        gate = self.activation(trunk["act_layer"], place)
        gated = {"silu": "swiglu", "gelu": "geglu"}
        return {
            "width": width,
            "depth": trunk["depth"],
            "heads": width // trunk["head_dim"],
            "mlp": gated[gate] if trunk["gated_mlp"] else gate,
            "mlp_ratio": trunk["mlp_ratio"],
            "mlp_hidden": "two_thirds" if trunk["gated_mlp"] else "floor",
            "norm": "layernorm",
            "norm_eps": self.norm_eps(trunk["norm_layer"], place),
            "norm_affine": False,
            "qk_norm": trunk["qk_norm"],
            "qk_norm_kind": "layernorm",
            "qk_norm_affine": False,
            "attention_scale": "mup",
            "bias": False,
            "qkv_bias": trunk["qkv_bias"] or None,
            "out_bias": trunk["proj_bias"] or None,
            "mlp_bias": trunk["mlp_bias"] or None,
            "dropout": trunk["drop"],
            "drop_path": trunk["drop_path_rate"],
            "init": trunk["weight_init_style"],
            "branch_scale": "none",
        }

    def check_head(self, head: Mapping[str, Any], place: str, trunk: Mapping[str, Any]) -> None:
        """Refuse options of a head that none of ours has."""
        self.only(head, place, use_mup_readout=False, proj_bias=True)
        eps = self.norm_eps(head["norm_layer"], place)
        if eps != trunk["norm_eps"]:
            self.refuse(f"{place}.norm_layer.eps", eps, f"{trunk['norm_eps']}, that of the blocks")

    def positions(self, found: Mapping[str, Any], name: str) -> dict[str, Any] | None:
        """Tree of a FittedPositionsConfig, of a PositionalEmbeddingAdder's; None if there is none.

        Args:
            found: modules by name.
        """
        if name not in found:
            return None
        given = found[name]
        kinds = {"sincos": "sincos", "learnable_sum": "sum", "learnable_prod": "product"}
        fits = {"absolute": "crop", "interpolate": "interpolate"}
        for key, known in (("posemb_type", kinds), ("posemb_scaling", fits)):
            if given[key] not in known:
                self.refuse(f"{name}.{key}", given[key], " or ".join(known))
        return {
            "kind": kinds[given["posemb_type"]],
            "sides": list(given["max_sizes"]),
            "fit": fits[given["posemb_scaling"]],
        }

    def mask(self, found: Mapping[str, Any], name: str, modes: Mapping[str, str]) -> str:
        """Our name of a packer's attention, full if there is no packer.

        Args:
            found: modules by name. modes: ours by theirs.
        """
        mode = found[name]["mask_mode"] if name in found else "full"
        if mode not in modes:
            self.refuse(f"{name}.mask_mode", mode, " or ".join(modes))
        return modes[mode]


def _names_an_entry(key: str) -> bool:
    return key.endswith(("_key", "_keys")) or key in ("_convert_", "_recursive_")
