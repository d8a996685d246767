"""Comparing runs on a page: settings that differ, overlaid curves, short names, columns."""

import re

import pytest

from tests.support.eval_results import NETWORK, PHOTOS, generated, made, row, run_facts
from vistok.eval.report.comparison import comparison
from vistok.eval.report.config_differences import config_differences
from vistok.eval.report.exports import latex
from vistok.eval.report.layout import columns
from vistok.eval.report.naming import Naming
from vistok.eval.report.page import render_html, render_markdown
from vistok.eval.report.training_curves import training
from vistok.eval.results.rows import Results


def config(name, quantizer, lr=0.1, **rest):
    tokenizer = {"quantizer": quantizer, "regularizers": []}
    task = {"kind": "tokenizer", "tokenizer": tokenizer}
    return {"name": name, "out": f"runs/{name}", "task": task, "optimizer": {"lr": lr}, **rest}


def of(*runs, rows=()):
    rows = rows or tuple(row("PSNR", run["name"], 20.0) for run in runs)
    return Results(rows=tuple(rows), runs=runs)


def test_settings_that_differ():
    fsq, vq = {"kind": "fsq", "levels": [8, 8]}, {"kind": "vq", "codebook_size": 64}
    results = of(
        run_facts("a", config=config("a", fsq, steps=9)),
        run_facts("b", config=config("b", {**fsq, "levels": [4, 4]}, lr=0.2, steps=9)),
        run_facts("c", config=config("c", vq, steps=9)),
        run_facts("saved", config=None, model={"quantizer": fsq, "regularizers": []}),
    )
    (table,) = config_differences(results)
    assert table.runs == ("a", "b", "c", "saved")
    found = {row.before + row.key: [v.text for v in row.values] for row in table.rows}
    assert found == {
        "task.tokenizer.quantizer.kind": ["fsq", "fsq", "vq", "fsq"],
        "task.tokenizer.quantizer.levels": ["[8, 8]", "[4, 4]", "", "[8, 8]"],
        "optimizer.lr": ["0.1", "0.2", "0.1", ""],
        "task.kind": ["tokenizer", "tokenizer", "tokenizer", ""],
    }
    assert [row.key for row in table.only] == ["codebook_size", "steps"]
    page, notes = render_html(results), render_markdown(results, "a.html", "a.json")
    assert "Settings that differ" in page and "2 keys that only some of them have" in page
    assert "| optimizer.lr | 0.1 | 0.2 | 0.1 | – |" in notes
    assert config_differences(of(run_facts("a"))) == []


def test_training_curves_of_all_runs_share_charts_and_colors():
    line = lambda step, split="train", **n: {"step": float(step), "split": split, **n}
    history = [line(s, loss=1 / s, l2=1 / s, perceptual=0.5) for s in (1, 2, 3)]
    history += [line(s, "val", psnr=10.0 + s, **{"psnr@1": 9.0}) for s in (1, 2, 3)]
    results = of(*(run_facts(name, history=history) for name in "abc"))
    (group,) = training(results)
    titles = [re.search(r'aria-label="([^"]*)"', chart)[1] for chart in group.charts]
    assert titles == ["l2", "perceptual", "validation PSNR (dB)"]  # the total equals its only term
    for chart in group.charts:
        assert all(f"var(--series-{i})" in chart for i in (1, 2, 3)) and "legend" not in chart
    assert [group.legend.count(f">{name}<") for name in "abc"] == [1, 1, 1]
    (alone,) = training(of(run_facts("a", history=history)))
    assert alone.legend == "" and "1 tokens" in alone.charts[-1]  # one run: a curve a length


def test_short_names_leave_out_what_all_share():
    rows = [row("rFID", "a", 1.0), row("PSNR", "a", 2.0), row("gFID", "g", 1.0, **generated(1.5))]
    naming = Naming(rows)
    assert [naming.of(one).text for one in rows] == ["rFID", "PSNR (dB)", "gFID guidance 1.5"]
    assert (
        naming.of(rows[0]).whole == "rFID[vistok-cnn, photos]" and naming.of(rows[0]).arrow == "↓"
    )
    assert naming.legend() == ["Features are those of vistok-cnn.", "Images: photos."]
    other = NETWORK.model_copy(update={"name": "inception"})
    more = [*rows, row("rFID", "a", 3.0, features=other)]
    more.append(row("PSNR", "b", 2.0, reference=PHOTOS.model_copy(update={"name": "cifar10"})))
    naming = Naming(more)
    assert [naming.of(one).text for one in more] == [
        *("rFID vistok-cnn", "PSNR (dB) photos", "gFID guidance 1.5"),
        *("rFID inception", "PSNR (dB) cifar10"),
    ]


def test_the_page_says_network_and_data_once():
    page = render_html(made(3))
    body = re.sub(r' title="[^"]*"|<title>[^<]*</title>|href="[^"]*"', "", page)
    body = body[: body.index('id="relations"')]  # whose axes are whole names
    assert "[vistok-cnn, photos]" not in body and "[photos]" not in body
    assert 'title="rFID[vistok-cnn, photos]"' in page
    assert 'aria-label="lower is better"' in page and ">lower is better" not in page


@pytest.mark.parametrize("count", range(2, 30))
def test_no_chart_is_left_alone_in_its_row(count):
    for text in columns(count).split("; "):
        across = int(text.split(": ")[1])
        assert across == count or count % across != 1 or count in (13, 25), (count, text)


def test_the_table_for_papers_fits_a_line_and_takes_columns():
    results = made(3)
    text = latex(results)
    (first, *_) = re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.S)
    head = first.split(r"\toprule")[1].split(r"\midrule")[0]
    assert "vistok-cnn" not in head and r"PSNR (dB) $\uparrow$" in head and "resizebox" not in first
    assert r"\caption{All runs at full length. Features are those of vistok-cnn." in first
    assert "% Left out" in text and all(len(line) < 500 for line in first.splitlines())
    facts = {**results.facts, "config": {"columns": ["codebook-usage", "PSNR"]}}
    chosen = latex(results.model_copy(update={"facts": facts}))
    head = chosen.split(r"\toprule")[1].split(r"\midrule")[0]
    assert head.strip() == r"run & tokens & codebook usage $\uparrow$ & PSNR (dB) $\uparrow$ \\"
    assert len(comparison(results).columns) > 2  # the page and the CSV have all


def test_a_long_table_for_papers_is_cut_into_pages():
    text = latex(made(90, images=False))
    pieces = [
        t for t in re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.S) if "All runs" in t
    ]
    assert len(pieces) == 3 and "(continued)" in pieces[1]
    assert all(piece.count("\n") < 60 for piece in pieces)


def test_tables_of_the_markdown_are_tables():
    """By a Markdown parser: every row of a table has as many cells as its head."""
    parser = pytest.importorskip("markdown_it", reason="pip install markdown-it-py")
    runs = [run_facts(n, config=config(n, {"kind": "a|b", "n": i})) for i, n in enumerate("xy")]
    mixed = made(2)
    for results in (of(*runs), mixed):
        text = render_markdown(results, "a.html", "a.json")
        tokens = parser.MarkdownIt("gfm-like", {"linkify": False}).parse(text)
        rows, tables = [], 0
        for token in tokens:
            tables += token.type == "table_open"
            if token.type == "tr_open":
                rows.append(0)
            elif token.type in ("td_open", "th_open"):
                rows[-1] += 1
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert len(rows) == len(lines) - tables and tables == text.count("| --- |") > 0
        assert rows == [
            len(re.findall(r"(?<!\\)\|", line)) - 1 for line in lines if "---" not in line
        ]
