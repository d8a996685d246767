"""The templates of a report, by jinja2: HTML is escaped, Markdown by `escape`."""

from __future__ import annotations

import functools
from pathlib import Path

import jinja2
from markupsafe import Markup

from vistok.eval.report.layout import columns

TEMPLATES = Path(__file__).parent / "templates"


@functools.cache
def environment(escape: bool) -> jinja2.Environment:
    """The templates, compiled once; `escape`: for HTML."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=not escape,
    )
    # A narrow page may break a number's name before its bracket.
    made.filters["breakable"] = lambda name: Markup("<wbr>[").join(name.split("["))
    made.filters["columns"] = columns
    return made
