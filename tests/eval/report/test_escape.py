"""Names from elsewhere stay text in Markdown, LaTeX, CSV and on a terminal."""

import csv
import io
import re

import pytest

from tests.support.eval_results import made, row, run_facts
from vistok.core.text import printable
from vistok.eval.report.escape import code, csv_text, markdown, tex
from vistok.eval.report.exports import comparison_csv, latex
from vistok.eval.report.page import render_markdown
from vistok.eval.report.tables import summary
from vistok.eval.results.rows import Results

NAMES = [
    "[click](http://evil.example/x)",
    "![x](http://evil.example/x.png)",
    "<http://evil.example> <script>alert(1)</script>",
    "a](http://evil.example) [b",
    "[x]: http://evil.example",
    "see http://evil.example/x and www.evil.example",
    "*bold* _em_ **b** __b__ ~~gone~~ `code` ``c``",
    "a|b\\|c",
    "x\n\n# heading\n\n- item\n\n    code",
    "| cell |\n| --- |",
    "# heading",
    "> quote",
    "- item",
    "1. item",
    "&lt;b&gt; &#60;",
    "$x$ $`y`$",
    "\\*kept\\*",
    "\x1b[31mred\x07 \u202egnirts",
]


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_a_name_as_it_is(name):
    """By a parser that knows nothing of our escapes: one paragraph of text alone."""
    parser = pytest.importorskip("markdown_it", reason="pip install markdown-it-py")
    (_, inline, _) = parser.MarkdownIt("gfm-like", {"linkify": False}).parse(markdown(name))
    assert {child.type for child in inline.children} <= {"text", "text_special"}
    shown = "".join(child.content for child in inline.children)
    assert shown == printable(" ".join(name.split()))


def test_markdown_has_the_parts_that_it_means():
    """Each table by itself, each item on its line: adjacent ones would run together."""
    parser = pytest.importorskip("markdown_it", reason="pip install markdown-it-py")
    results = made(2)
    rows = [r.model_copy(update={"few": "4 images"}) for r in results.rows]
    results = results.model_copy(update={"rows": tuple(rows)})
    text = render_markdown(results, "a.html", "results.json")
    tokens = parser.MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    count = lambda kind: sum(token.type == kind for token in tokens)
    titles = text.count("| --- |")
    assert count("table_open") == titles > 5 and count("heading_open") == 3
    assert count("list_item_open") == len(re.findall(r"(?m)^- ", text)) > 15
    assert count("bullet_list_open") == 3
    assert all("\n" not in t.content for t in tokens if t.type == "inline")


@pytest.mark.parametrize("name", NAMES)
def test_no_line_of_a_report_is_a_names_own(name):
    """A report of a run with such a name has the lines of one with a plain name."""

    def lines(run):
        rows = tuple(row("PSNR", one, 1.0, note=run) for one in (run, "other"))
        skipped = [{"protocol": run, "run": run, "reason": run}]
        facts = {"skipped": skipped, "commands": [run], "study": {"sentences": [run]}}
        runs = (run_facts(run), run_facts("other"))
        text = render_markdown(Results(rows=rows, runs=runs, facts=facts), run, run)
        return text.splitlines()

    found, plain = lines(name), lines("plain")
    assert len(found) == len(plain)
    kind = lambda line: re.match(r"\W*", line)[0][:1]
    for line, other in zip(found, plain, strict=True):
        assert kind(line) == kind(other), line
        line = re.sub(r"^Command: `[^`<]+`$", "Command: plain", line)  # a span of code, whole
        assert line.count("|") - line.count("\\|") == other.count("|") - other.count("\\|"), line
        assert not re.search(r"(?<!\\)\]\(|<\w|(?<!\\)https?:", line), line


def test_plain_names_stay_readable():
    for name in ("runs/my_run-2", "rFID[vistok-cnn, photos]", "18.67 (best)", "-1.5", "64x64 & up"):
        assert markdown(name) == name
    assert code("vistok eval a b") == "`vistok eval a b`" and "`" not in code("a `b`").replace(
        "\\`", ""
    )


@pytest.mark.parametrize("mark", ["=", "+", "-", "@", "＝", " =", "\t=", "\r=", "\n="])
def test_a_spreadsheet_gets_no_formula(mark):
    name = f"{mark}HYPERLINK(1)"
    results = Results(rows=(row("PSNR", name, 1.0),), runs=(run_facts(name),))
    (_, line) = list(csv.reader(io.StringIO(comparison_csv(results))))
    assert line[0] == csv_text(name) and not re.match(r"\s*[=+@＝-]", line[0])


@pytest.mark.parametrize("name", NAMES)
def test_latex_gets_text_alone(name):
    escaped = tex(name)
    assert "\n" not in escaped and "\x1b" not in escaped
    known = r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}"
    rest = re.sub(known + r"|\\[&%$#_{}]|\{\[\}|\{\]\}", "", escaped)
    assert not set(rest) & set("\\&%$#_{}~^[]<>|")
    results = Results(rows=(row("PSNR", name, 1.0),), runs=(run_facts(name),))
    plain = Results(rows=(row("PSNR", "a", 1.0),), runs=(run_facts("a"),))
    assert len(latex(results).splitlines()) == len(latex(plain).splitlines())


@pytest.mark.parametrize("name", ["\x1b]0;x\x07", "a\rb", "a\nb", "\u202ex", "\x9b1m"])
def test_a_terminal_gets_no_control_characters(name):
    skipped = [{"protocol": name, "run": name, "reason": name}]
    rows = (row("PSNR", name, 1.0, few=name),)
    results = Results(rows=rows, runs=(run_facts(name),), facts={"skipped": skipped})
    assert all(line.isprintable() for line in summary(results).splitlines())
    assert len(summary(results).splitlines()) == len(
        summary(Results(rows=(row("PSNR", "a", 1.0, few="a"),), runs=(run_facts("a"),),
                        facts={"skipped": skipped})).splitlines()
    )  # fmt: skip
