"""Verdicts and published figures as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from vistok.core.text import printable
from vistok.eval.report.tables import plain
from vistok.eval.results.metrics import counted
from vistok.eval.results.text import value_text
from vistok.eval.verify.compare import Outcome, Verdict, text, unstated
from vistok.pretrained.published import Preset

EXIT: dict[Outcome, int] = {"pass": 0, "fail": 3, "not comparable": 4}
"""Exit code of each outcome; 1 and 2 are mistakes in the command, as everywhere."""

_UNCHECKED = (
    "which images these are (papers give no hash; a reference file goes by its name)",
    "whether the weights, of the model and of the network, are the released ones (no hash was "
    "published)",
)


def verdict_text(one: Verdict) -> str:
    """Lines of a verdict: both numbers, what follows, and what nobody can check."""
    preset, row = one.preset, one.row
    protocol = preset.protocol
    count = f"{row.count:,} {counted(row.metric, row.clip is not None)}"
    interval = "" if row.interval is None else "  95 %: {:.4g} to {:.4g}".format(*row.interval)
    lines = [
        f"{preset.name}: {_outcome(one)}",
        "",
        f"  published  {preset.metric} {preset.value:.{preset.digits}f}  {protocol.source}",
        f"  measured   {_measured(one)}  {row.display}, {count}{interval}",
        "",
    ]
    if one.differences:
        head = ["field", "published", "here"]
        body = [[d.field, d.published, d.here] for d in one.differences]
        lines += [*(f"  {line}" for line in plain(head, body).splitlines()), ""]
    if one.unstated:
        lines.append(f"  not stated by the source: {', '.join(one.unstated)}")
    if protocol.unsure:
        lines.append(f"  uncertain: {protocol.unsure}")
    lines.append(f"  not checked: {'; '.join(_UNCHECKED)}")
    lines += [f"  weights of the {part}: sha256 {digest}" for part, digest in row.weights.items()]
    if row.features is not None:
        lines.append(f"  weights of the network: sha256 {row.features.sha256}")
    return printable("\n".join(line.rstrip() for line in lines), keep="\n")


def list_text(presets: Iterable[Preset]) -> str:
    """All published figures, under the protocol that they share."""
    groups: dict[tuple, list[Preset]] = {}
    for preset in presets:
        groups.setdefault((preset.metric, preset.protocol), []).append(preset)
    blocks = []
    for (metric, protocol), own in groups.items():
        lines = [f"{metric}: {protocol.described} ({protocol.source})"]
        if protocol.unknown:
            lines.append(f"  cannot be verified: {protocol.unknown}")
        else:
            lines.append(f"  {_fields(own[0])}")
            lines += [f"  uncertain: {protocol.unsure}"] * bool(protocol.unsure)
            lines.append(f"  {_agrees(own[0])}")
        width = max(len(preset.name) for preset in own)
        lines += [f"    {p.name:{width}}  {p.value:.{p.digits}f}" for p in own]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _agrees(preset: Preset) -> str:
    """The tolerance and what it is made of."""
    parts = f"rounding {preset.rounding:g}, spread {preset.protocol.spread:g}"
    return f"passes within {preset.tolerance:g}: {parts}"


def _outcome(one: Verdict) -> str:
    if one.outcome == "not comparable":
        fields = ", ".join(dict.fromkeys(d.field for d in one.differences))
        return f"not comparable: {fields} differ{'s' * (',' not in fields)}"
    if one.apart is None:
        return "fails: the measured number is not finite"
    said = f"{abs(one.apart):.3f} apart, {one.preset.tolerance:g} allowed"
    return f"{'passes' if one.outcome == 'pass' else 'fails'}: {said}"


def _measured(one: Verdict) -> str:
    """The measured number with two digits more than the published one."""
    row, digits = one.row, one.preset.digits + 2
    number = value_text(row) if row.value is None else f"{row.value:.{digits}f}"
    return f"{row.metric} {number}"


def _fields(preset: Preset) -> str:
    """The stated fields of a protocol, and the names of those that are not stated."""
    protocol = preset.protocol
    said = [f"network {protocol.network}"] if protocol.network else []
    said += [f"{text(protocol.count)} {'samples' if preset.metric == 'gFID' else 'images'}"]
    said[-1] += f" of {text(protocol.size)}" if protocol.size else ""
    for name in ("crop", "filter", "condition", "reference", "latents"):
        value = getattr(protocol, name)
        said += [f"{name} {value}"] if value not in (None, "none") else []
    said += [f"{key}={value}" for key, value in protocol.settings]
    missing = unstated(preset)
    return ", ".join(said) + (f"; not stated: {', '.join(missing)}" if missing else "")
