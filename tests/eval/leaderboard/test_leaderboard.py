"""Leaderboards: one table for each protocol, honest ranks, every file accounted for."""

import json
import math
import os
from pathlib import Path
from urllib.parse import unquote

import pytest
from click.testing import CliRunner

from tests.support.leaderboard import (
    CNN,
    IMAGENET,
    INCEPTION,
    made,
    row,
    run,
    sha,
    tokenizer,
    write,
)
from vistok.eval.__main__ import leaderboard as command
from vistok.eval.leaderboard.collect import collect
from vistok.eval.leaderboard.entries import entries_of
from vistok.eval.leaderboard.page import LeaderboardConfig, write_leaderboard
from vistok.eval.leaderboard.ranks import clearly_better, tables
from vistok.eval.results.compare import differences
from vistok.eval.systems.runs import resolve


def board(folder, **files):
    """The tables of results files, given as {name: Results}."""
    for name, results in files.items():
        (folder / f"{name}.results.json").write_text(results.json_text())
    return tables(entries_of(collect([folder], folder / "board.html")))


def shown(folder, out="board.html", **keys):
    config = LeaderboardConfig(out=str(folder / out), **keys)
    (page, beside), sources = write_leaderboard([folder], config)
    return page.read_text(), beside.read_text(), sources


def ranks(table):
    return [(place.entry.row.run, place.rank) for place in table.places]


@pytest.mark.parametrize(
    "change",
    [
        {"count": 49_999},
        {"crop": "adm"},
        {"filter": "bilinear"},
        {"size": (128, 128)},
        {"features": CNN},
        {"features": INCEPTION.model_copy(update={"sha256": "00" * 32})},
        {"features": INCEPTION.model_copy(update={"preprocess": "PIL"})},
        {"reference": IMAGENET.model_copy(update={"split": "train"})},
        {"reference": IMAGENET.model_copy(update={"manifest": "ff" * 32})},
        {"setting": {"mode": "quick"}},
        {"seed": 1},
        {"sampling": {"generator": {"guidance": 2.0}}},
        {"sampling": {"decoder": {"steps": 25}}},
        {"condition": "class"},
        {"precision": "bf16"},
    ],
    ids=lambda change: "-".join(change),
)
def test_rows_of_two_protocols_are_never_in_one_table(tmp_path, change):
    one, other = row("rFID", "a", 1.0), row("rFID", "b", 2.0, **change)
    assert differences(one, other)
    found = board(tmp_path, both=made((run("a"), [one]), (run("b"), [other])))
    assert [ranks(table) for table in found] in ([[("a", None)], [("b", None)]],
                                                 [[("b", None)], [("a", None)]])  # fmt: skip
    alike = row("rFID", "c", 3.0)
    (first, second) = board(tmp_path, third=made((run("c"), [alike])))
    assert ranks(first) == [("a", 1), ("c", 2)] and ranks(second) == [("b", None)]


def test_ties_and_overlapping_intervals_share_a_rank(tmp_path):
    values = {
        "far": (3.0, None),
        "wide": (1.2, (1.0, 1.4)),
        "best": (1.1, (1.05, 1.15)),
        "alike": (1.104, None),  # prints 1.10
        "next": (1.3, (1.25, 1.35)),
    }
    parts = [
        (run(name), [row("rFID", name, value, interval=interval)])
        for name, (value, interval) in values.items()
    ]
    (table,) = board(tmp_path, all=made(*parts))
    # `wide` overlaps all but `far`; `next` has two wholly below it.
    assert ranks(table) == [("best", 1), ("alike", 1), ("wide", 1), ("next", 3), ("far", 5)]


def test_the_better_side_is_that_of_the_metric(tmp_path):
    parts = [(run(n), [row("PSNR", n, v), row("KID", n, v)]) for n, v in (("a", 20.0), ("b", 30.0))]
    found = board(tmp_path, all=made(*parts))
    assert {t.first.metric: ranks(t) for t in found} == {
        "PSNR": [("b", 1), ("a", 2)],
        "KID": [("a", 1), ("b", 2)],
    }
    one = row("PSNR", "a", 20.0, interval=(19.0, 21.0))
    assert not clearly_better(row("PSNR", "b", 20.5), one)
    assert clearly_better(row("PSNR", "b", 21.5), one)


def test_a_number_that_is_none_has_no_rank(tmp_path):
    bad = row("rFID", "bad", None, not_finite="inf")
    parts = [(run(n), [row("rFID", n, v)]) for n, v in (("a", 1.0), ("b", 2.0))]
    (table,) = board(tmp_path, all=made(*parts, (run("bad"), [bad])))
    assert ranks(table) == [("a", 1), ("b", 2), ("bad", None)]
    assert "∞" in shown(tmp_path)[0]


def test_a_number_in_two_files_is_shown_once_and_contradictions_are_flagged(tmp_path):
    same, near, other = (made(tokenizer("a", v, "MIT")) for v in (1.0, 1.002, 1.2))
    beside = made(tokenizer("b", 2.0, "MIT"), tokenizer("c", 3.0, "MIT"))
    found = board(tmp_path, first=same, second=same, near=near, beside=beside)
    places = {place.entry.row.run: place for place in found[0].places if place.entry.whole}
    assert len(places["a"].entry.sources) == 3 and places["a"].rank == 1
    html = shown(tmp_path)[0]
    assert "files disagree" not in html and html.count('href="second.results.json"') > 1
    found = board(tmp_path, other=other)
    places = {place.entry.row.run: place for place in found[0].places if place.entry.whole}
    assert places["a"].rank is None and places["a"].entry.contradicts
    assert places["b"].rank == 1
    html, text, _ = shown(tmp_path)
    assert "files disagree: 1.00, 1.20" in html and "files disagree: 1.00, 1.20" in text
    # The same name with other weights is another model.
    again = run("a") | {"sha256": sha("x")}
    rows = [one.model_copy(update={"weights": {"tokenizer": sha("x")}}) for one in other.rows]
    found = board(tmp_path, other=made((again, rows)))
    assert [p.rank for p in found[0].places if p.entry.row.run == "a" and p.entry.whole] == [1, 2]


def test_files_that_are_not_valid_are_listed_with_their_reason(tmp_path):
    write(tmp_path)
    good = made(tokenizer("a", 1.0, "MIT"))
    cases = {
        "cut": (good.json_text()[:500], "cannot be read as JSON"),
        "field": (good.json_text().replace('"count": 50000', '"count": -1'), "count"),
        "nan": (good.json_text().replace('"value": 1.0', '"value": NaN'), "no finite number"),
        "weights": (made((run("a"), [row("rFID", "a", 1.0, weights={})])).json_text(),
                    "no sha256 of the weights"),
        "hash": (made((run("a"), [row("rFID", "a", 1.0, weights={"tokenizer": "x"})])).json_text(),
                 "expected a sha256"),
        "unknown": (made((run("b"), [row("rFID", "a", 1.0)])).json_text(), "no record"),
        "list": ("[]", "schema None"),
    }  # fmt: skip
    for name, (text, _) in cases.items():
        (tmp_path / f"{name}.results.json").write_text(text)
    os.symlink(tmp_path / "alpha/results.json", tmp_path / "link.results.json")
    html, text, sources = shown(tmp_path)
    reasons = {source.name: source.reason for source in sources if source.reason}
    assert len(sources) == 9 + len(cases) + 1 and len(reasons) == 2 + len(cases) + 1
    for name, (_, wanted) in cases.items():
        assert wanted in reasons[f"{name}.results.json"]
    assert "a link" in reasons["link.results.json"]
    for name, reason in reasons.items():
        assert "\n" not in reason and str(tmp_path) not in reason
        assert name in html and name in text.replace("\\", "")
    assert f"{len(reasons)} of {len(sources)} files" in html


def test_what_is_not_shown_is_counted(tmp_path):
    extra = [
        row("bits/image", "a", 12.0),
        row("PSNR-mean-color", "a", 9.0),
        row("PSNR", "a", 9.0, point={"damage": "flip", "share": 0.1}),
        row("gFID-untrained", "a", 99.0),
    ]
    facts, rows = tokenizer("a", 1.0, "MIT")
    board(tmp_path, all=made((facts, [*rows, *extra])))
    said = "1 points of grids and curves, 2 baselines and floors, 1 without a better side"
    assert f"a: 4 numbers; not shown: {said}" in shown(tmp_path)[0]


def test_the_same_files_make_the_same_bytes(tmp_path, monkeypatch):
    (tmp_path / "sent").mkdir()
    write(tmp_path / "sent")
    pages = []
    for place in (tmp_path, tmp_path / "sent"):
        monkeypatch.chdir(place)
        folder = os.path.relpath(tmp_path / "sent")
        out = os.path.relpath(tmp_path / "board.html")
        write_leaderboard([folder], LeaderboardConfig(out=out))
        pages.append([(tmp_path / f"board.{kind}").read_bytes() for kind in ("html", "md")])
    assert pages[0] == pages[1]
    assert not any(str(tmp_path).encode() in one for one in pages[0])


def test_every_row_links_to_its_file_and_says_where_it_comes_from(tmp_path):
    write(tmp_path)
    html, text, sources = shown(tmp_path, "pages/board.html")
    for source in sources:
        assert (tmp_path / "pages" / unquote(source.href)).resolve().is_file()
        assert f'href="{source.href}"' in html
    for words in (sha("alpha-256"), "3f2c9a1b7d40", "2026-11-28"):
        assert words in html
    assert sha("alpha-256")[:12] in text and "tokens of alpha-256" in text
    # Intervals, floors and marks.
    assert "1.01–1.05" in html and "2.60‡" in html and "; below its floor" in html
    assert "2.60‡" in text and "‡ below its floor: nearer to the reference" in text
    assert "mean of 3 seeds from 0" in html and "guidance 1.5" in html


def test_files_of_others_are_not_replaced(tmp_path, fails):
    write(tmp_path)
    shown(tmp_path)
    html, text, _ = shown(tmp_path)  # its own earlier version is
    (tmp_path / "board.md").write_text("mine")
    with fails(ValueError, "board.md: it was not written by this command"):
        shown(tmp_path)
    assert (tmp_path / "board.md").read_text() == "mine"
    assert shown(tmp_path, overwrite=True)[:2] == (html, text)


def test_metrics_are_chosen(tmp_path):
    write(tmp_path)
    html, text, _ = shown(tmp_path, metrics=["PSNR"])
    assert "## PSNR" in text and "## rFID" not in text and 'id="metric-rfid"' not in html
    words = [str(tmp_path), f"out={tmp_path / 'board.html'}", "metrics=bits/image"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 1 and "unknown metric 'bits/image'" in done.output


def test_the_command(tmp_path):
    write(tmp_path)
    out = tmp_path / "board.html"
    done = CliRunner().invoke(command, [str(tmp_path), f"out={out}"])
    assert done.exit_code == 0 and out.is_file() and out.with_suffix(".md").is_file()
    assert "not valid: broken/results.json: schema 1; expected 3" in done.output
    for words, wanted in (
        ([str(tmp_path / "gone"), f"out={out}"], "no such folder"),
        ([str(tmp_path / "labs"), "out=board.pdf"], "ends in .html"),
        ([f"out={out}"], "no folder given"),
        ([str(tmp_path)], "out"),
    ):
        done = CliRunner().invoke(command, words)
        assert done.exit_code == 1 and wanted in done.output and done.output.count("\n") == 1
    (tmp_path / "empty").mkdir()
    done = CliRunner().invoke(command, [str(tmp_path / "empty"), f"out={out}"])
    assert done.exit_code == 1 and "no file whose name ends in results.json" in done.output


def test_nothing_in_a_name_becomes_markdown(tmp_path):
    name = "[a](http://x) | <b> `c`"
    facts, rows = tokenizer(name, 1.0, "MIT | *x*")
    board(tmp_path, all=made((facts, rows)))
    text = shown(tmp_path, title="<script>")[1]
    assert "<b>" not in text and "a](http" not in text and "<script>" not in text
    assert all(line.count(" | ") == 9 for line in text.splitlines() if line.startswith("| "))


def test_runs_say_their_license(runs):
    (system,) = resolve(runs)
    facts = [one.facts() for one in (system.tokenizer, *system.generators)]
    assert [one["license"] for one in facts] == [None, None]
    path = runs[0] / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"license": "MIT"}))
    assert resolve(runs)[0].tokenizer.facts()["license"] == "MIT"


def test_every_committed_results_file_is_valid():
    """Those of the gallery, and all that people sent."""
    gallery = Path(__file__).parents[3] / "eval/gallery"
    sources = collect([gallery], "board.html")
    assert [(one.name, one.reason) for one in sources if one.reason] == []
    assert "quickstart_results.json" in [one.name for one in sources]


def test_no_number_is_made_up(tmp_path):
    """Values are those of the files, to the last digit."""
    write(tmp_path)
    entries = entries_of(collect([tmp_path], tmp_path / "board.html"))
    values = sorted(entry.row.value for entry in entries)
    assert len(entries) == 30 and math.isclose(values[0], 0.54, abs_tol=0.2)
    assert all(any(r.value == e.row.value for _, r in e.sources) for e in entries)
