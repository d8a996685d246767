"""Tables of metrics and protocols, from the records that reports print."""

from __future__ import annotations

import inspect

from vistok.eval.config import DEFAULT
from vistok.eval.protocols.base import PROTOCOLS
from vistok.eval.results.metrics import METRICS

_ARROWS = {"higher": "↑", "lower": "↓", "": ""}


def metrics(*names: str) -> str:
    """Definition list of these metrics (of all, if none is named), each with its sentence."""
    wanted = [METRICS[name] for name in names] or list(METRICS.values())
    lines = []
    for one in wanted:
        unit = f", {one.unit}" if one.unit else ""
        arrow = f" {_ARROWS[one.better]}" if one.better else ""
        lines += [f"**`{one.name}`**{arrow}{unit}", f":   {one.help}", ""]
    return "\n".join(['<div class="keys" markdown>', "", *lines, "</div>"])


def protocols() -> str:
    """Definition list of protocols: name, version, kinds of samples, what it measures."""
    lines = []
    for name, protocol in PROTOCOLS.items():
        text = " ".join((inspect.getdoc(type(protocol)) or "").split("\n\n")[0].split())
        usual = "measured by default" if name in DEFAULT else "on request"
        kinds = " and ".join(f"{kind}s" for kind in protocol.media)
        lines += [f"**`{name}`** version {protocol.version}, {kinds}, {usual}", f":   {text}", ""]
    return "\n".join(['<div class="keys" markdown>', "", *lines, "</div>"])
