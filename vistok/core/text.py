"""Text from outside (file names, class names, configs of downloads) as a terminal may show it."""

from __future__ import annotations


def printable(text: object, keep: str = "") -> str:
    r"""The text with every character that does not print written as an escape, such as \x1b.

    Control characters of a name could move the cursor, hide a line or run a terminal's commands,
    and those of writing direction could reorder it. Lone surrogates (bytes of a file name that are
    no UTF-8) are escaped too, since they could not be written.

    Args:
        keep: characters that stay, such as the newline of a table.
    """
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in str(text))
