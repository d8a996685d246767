"""Text from elsewhere (names of runs, classes, files) in Markdown, LaTeX, CSV and on a terminal.

Each format gets it as plain text: nothing in it becomes a command, a link, markup or a formula.
HTML is escaped by jinja2.
"""

from __future__ import annotations

import re

from vistok.core.text import printable

_TEX = {
    "\\": r"\textbackslash{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",  # after \\ it would be the option of the line break
    "]": "{]}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "∞": r"$\infty$",
    "≠": r"$\neq$",
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
    "±": r"$\pm$",
    "–": "--",
    "…": r"\ldots{}",
    "α": r"$\alpha$",
    "δ": r"$\delta$",
    "·": r"$\cdot$",
}
_FORMULA = tuple("=+-@＝＋－＠")  # a spreadsheet would compute a text that begins so
_MARKDOWN = (  # in this order: later ones add backslashes of their own
    (r"[\\`*~|$]", r"\\\g<0>"),
    (r"(?<![^\W_])_|_(?![^\W_])", r"\\_"),  # inside a word it marks nothing
    (r"&(?=#?\w+;)", "&amp;"),
    (r"<", "&lt;"),
    (r"\](?=[(\[:])", r"\\]"),  # of a link or its definition
    (r"(?i)\b(https?|ftp|mailto|xmpp):", r"\1\\:"),
    (r"(?i)\b(www)\.", r"\1\\."),
    (r"^(>|[#+-]+(?=\s|$))", r"\\\1"),
    (r"^(\d+)([.)])(?=\s|$)", r"\1\\\2"),
)


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a paragraph or in a cell of a table."""
    text = _one_line(text)
    for pattern, instead in _MARKDOWN:
        text = re.sub(pattern, instead, text)
    return text


def code(text: str) -> str:
    """A span of code in Markdown; text that could end it is shown as plain text."""
    text = _one_line(text)
    return markdown(text) if not text or set("`<") & set(text) else f"`{text}`"


def tex(text: str) -> str:
    """Text with everything that LaTeX would read as a command escaped."""
    return "".join(_TEX.get(letter, letter) for letter in _one_line(text))


def csv_text(text: str) -> str:
    """A cell of a spreadsheet that is text whatever it begins with."""
    text = printable(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))
