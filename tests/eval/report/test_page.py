"""Reports of several runs: the common table, curves, exports, and a page that stays small."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from tests.support.eval_results import PHOTOS, generated, made, row, run_facts, strips
from vistok.eval.report import curves
from vistok.eval.report import page_size as fitting
from vistok.eval.report.comparison import comparison, places
from vistok.eval.report.exports import comparison_csv, latex, tex
from vistok.eval.report.image_viewer import viewers
from vistok.eval.report.page import render_html, render_markdown, write_report
from vistok.eval.results.rows import Results, json_schema
from vistok.eval.strips import strip

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def results():
    return made(3)


@pytest.fixture(scope="module")
def page(results):
    return render_html(results)


def _column(table, start):
    place = next(i for i, c in enumerate(table.columns) if c.name.startswith(start))
    return [entry.cells[place] for entry in table.entries]


def test_one_table_of_all_runs(results):
    table = comparison(results)
    assert [e.name for e in table.entries] == [
        f"{n} + {n}/probe-tiny" for n in ("nested", "tail", "fixed")
    ]
    psnr, pfid = _column(table, "PSNR["), _column(table, "pFID-v1")
    assert [c.best for c in psnr] == [False, False, True]  # higher is better
    assert [c.value for c in pfid] == [60, 57, 54] and [c.best for c in pfid] == [False] * 2 + [
        True
    ]
    names = [column.name for column in table.columns]
    assert "gFID[vistok-cnn, photos] guidance 1.5" in names and len(set(names)) == len(names)
    assert not any(name.startswith("PSNR-mean-color") for name in names)


def test_other_protocols_are_marked_and_never_best():
    results = made(3)
    low = [
        r.model_copy(update={"value": 0.1}) if r.metric == "rFID" and r.run == "fixed" else r
        for r in results.rows
    ]
    table = comparison(results.model_copy(update={"rows": tuple(low)}))
    nested, tail, fixed = _column(table, "rFID")
    assert fixed.value == 0.1 and fixed.differs == ("count",) and not fixed.best
    assert nested.best and not tail.best and not nested.differs
    assert table.entries[2].differs == ("count",) and table.mixed == ("count",)


def test_data_and_networks_have_columns_of_their_own():
    other = {"reference": PHOTOS.model_copy(update={"name": "cifar10"})}
    results = Results(
        rows=(row("PSNR", "a", 20.0), row("PSNR", "b", 30.0, **other)),
        runs=(run_facts("a"), run_facts("b")),
    )
    table = comparison(results)
    assert [c.name for c in table.columns] == ["PSNR[photos]", "PSNR[cifar10]"]
    assert not any(cell.best for entry in table.entries for cell in entry.cells)
    assert [[c.text for c in e.cells] for e in table.entries] == [["20.00", ""], ["", "30.00"]]


def test_a_generators_number_does_not_hide_its_tokenizers():
    rows = (row("KID", "a", 0.1), row("KID", "g", 0.2, **generated(1.0)))
    runs = (run_facts("a"), run_facts("g", "generator"))
    table = comparison(Results(rows=rows, runs=runs, facts={"pairs": {"a": ["g"]}}))
    assert [c.value for c in table.entries[0].cells] == [0.1, 0.2]


def test_curves_hold_all_runs(results):
    charts = "".join(curves.length_charts(results, "tokens"))
    assert charts.count(">kept tokens<") == 2 and "fixed (≠ count)" in charts
    assert ">192<" not in charts
    assert curves.length_charts(results, "bits") == []  # 12 bits a token in every run: the same
    other = run_facts("tail", lengths={"16": {"tokens": 16, "bits": 160}})
    runs = [other if run["name"] == "tail" else run for run in results.runs]
    bits = curves.length_charts(results.model_copy(update={"runs": tuple(runs)}), "bits")
    assert ">100<" in "".join(bits)
    (rate,) = curves.rate_charts(results)
    for name in ("nested<", "nested, zstd<", "JPEG<", "WebP<", "AVIF<", "bytes per image"):
        assert name in rate
    flipped, lost = curves.damage_charts(results)
    assert "share of bits flipped" in flipped and "lost at the tail" in lost
    assert "nested at 0: 18.00" in flipped  # the undamaged number is its first point


def test_blocks_and_tokens_share_an_axis():
    """A prefix of 2 blocks is 5 tokens, and stands at 5."""
    blocks = run_facts("var")
    blocks["lengths"] = {"1": {"tokens": 1, "bits": 12}, "2": {"tokens": 5, "bits": 60}}
    rows = tuple(row("PSNR", "var", 10.0 + k, k) for k in (1, 2))
    (chart,) = curves.length_charts(Results(rows=rows, runs=(blocks,)), "tokens")
    assert "var at 5: 12.00" in chart


def test_correlations_say_how_few_points_they_have(results, page):
    relations = curves.relations(results)
    assert relations and all("too few tokenizers" in one.text for one in relations)
    assert not any("(p " in one.text for one in relations)
    many = [one for one in curves.relations(made(6)) if one.title.startswith("pFID-v1[")]
    assert many[0].n == 6 and "Spearman -1.00 (p 0.0028)" in many[0].text
    assert "too few" not in many[0].text
    assert "n = 2" in page and "n = 3" in page  # fixed's rFID has other samples: it is not mixed in


def test_the_same_images_of_all_runs_are_one_viewer(results, page):
    (one,) = viewers(results.facts["image_grids"], "reconstructions", places(results))
    assert [lane.run for lane in one.lanes] == ["nested", "tail", "fixed"]
    assert [s.at for s in one.lanes[0].strips] == [16, 4, 1] and one.lossless
    (part,) = one.parts
    original = part.uri
    assert page.count(original) == 2  # once with the reconstructions, once with perturbed tokens
    other = strips("reconstructions", "other", size=16)
    assert len(viewers([*results.facts["image_grids"], other], "reconstructions", {})) == 2


class _Scripts(HTMLParser):
    found = 0

    def handle_starttag(self, tag, attributes):
        if tag == "script":
            assert not attributes
            self.found += 1


def test_the_only_script_is_ours(page):
    scripts = _Scripts()
    scripts.feed(page)
    assert scripts.found == 1
    (text,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    templates = ROOT / "eval" / "report" / "templates"
    assert text == "".join((templates / name).read_text() for name in ("tables.js", "report.js"))
    for word in ("fetch(", "XMLHttpRequest", "innerHTML", "import(", "eval(", "http"):
        assert word not in text
    assert not re.search(r"\son\w+=", re.sub(r"<script>.*</script>", "", page, flags=re.S))


def test_an_image_must_lie_in_the_file(results, fails):
    grid = json.loads(json.dumps(results.facts["image_grids"][0]))
    for uri in ("https://example.org/x.png", "data:text/html;base64,AA", 'data:image/png;base64,"'):
        grid["rows"][1]["uri"] = uri
        with fails(ValueError, "image", "base64"):
            render_html(results.model_copy(update={"facts": {"image_grids": [grid]}}))


def test_a_page_stays_small(monkeypatch):
    """Whatever the runs and pixels; what is missing is said."""
    results = made(5, size=64, lengths=(16, 8, 4, 2, 1), cells=8)
    whole = render_html(results)
    assert "left-out" not in whole
    for limit in (0.8, 0.4, 0.15):
        text = len(render_html(results.model_copy(update={"facts": {"image_grids": []}})))
        room = text + int(limit * (len(whole) - text)) + 40_000
        monkeypatch.setattr(fitting, "LIMIT", room)
        page = render_html(results)
        assert len(page.encode()) <= room and "left-out" in page
        (said,) = re.findall(r'id="left-out">(.*?)</p>', page, re.S)
        assert "quality" in said
    assert "of 8 images" in said  # the smallest page shows fewer of them
    assert page.count("data:image/") > 5


def test_a_page_without_room_leaves_out_its_longest_parts(monkeypatch):
    monkeypatch.setattr("vistok.eval.report.page._TEXT", 60_000)
    page = render_html(made(8))
    (said,) = re.findall(r'id="left-out">(.*?)</p>', page, re.S)
    assert "the table of all rows" in said and "All runs" in page
    assert not re.search(r"All \d+ rows", page)


@pytest.mark.slow
def test_many_runs_of_large_images_fit():
    """10 runs with 256 px strips that are noise, the worst for an image format."""
    noise = torch.Generator().manual_seed(0)
    uris = [
        strip(torch.randint(0, 256, (8, 3, 256, 256), generator=noise, dtype=torch.uint8))
        for _ in range(3)
    ]
    results = made(10, images=False)
    grids = [
        {
            **{"kind": "reconstructions", "run": f"variant-{i}", "size": [256, 256], "cells": 8},
            "columns": [str(c) for c in range(8)],
            "rows": [{"label": f"{k} tokens", "uri": uris[k % 3], "tokens": k} for k in range(9)],
        }
        for i in range(10)
    ]
    assert sum(len(r["uri"]) for g in grids for r in g["rows"]) > 3 * fitting.LIMIT
    results = results.model_copy(update={"facts": {**results.facts, "image_grids": grids}})
    page = render_html(results)
    assert len(page.encode()) <= fitting.LIMIT and page.count("data:image/webp") > 10


def test_tables_as_files(results, tmp_path):
    written = write_report(results, tmp_path / "out" / "all.html")
    assert [p.name for p in written] == ["results.json", "all.md", "all.tex", "all.csv", "all.html"]
    lines = list(csv.DictReader(io.StringIO((tmp_path / "out" / "all.csv").read_text())))
    assert [line["run"] for line in lines] == ["nested", "tail", "fixed"]
    assert float(lines[1]["PSNR[photos]"]) == 14 + 4 + 1 / 3  # full precision
    assert lines[2]["protocol differs in"] == "count"
    text = (tmp_path / "out" / "all.tex").read_text()
    tables = re.findall(r"\\begin\{tabular\}\{(l r*|lr*)\}\n(.*?)\\end\{tabular\}", text, re.S)
    assert len(tables) == 7  # the comparison, then each run's lengths
    for columns, body in tables:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.split(r"(?<!\\)&", line)) for line in rows} == {len(columns)}
        assert body.startswith("\\toprule\n") and "\\midrule\n" in body
    assert r"\textbf{18.67}" in text and r"$^{\neq}$" in text
    page = (tmp_path / "out" / "all.html").read_text()
    assert 'download="all.csv"' in page and 'download="all.tex"' in page


def test_exports_are_escaped():
    evil = r"=cmd & \input{x} 50% $a_b^c ~#{} <|>"
    results = Results(rows=(row("PSNR", evil, 1.0),), runs=(run_facts(evil),))
    text = latex(results)
    for raw in (r"\input", "cmd &", "50% ", " $a", "a_b"):
        assert raw not in text.split("\\toprule")[1], raw
    assert tex("a_b & 5% [x]") == r"a\_b \& 5\% {[}x{]}"
    (_, line) = list(csv.reader(io.StringIO(comparison_csv(results))))
    assert line[0] == "'" + evil  # no formula for a spreadsheet


def test_markdown_has_the_common_table(results):
    text = render_markdown(results, "a.html", "results.json")
    assert "| run | rFID" in text and "18.67 (best)" in text and "7.62 ≠" in text
    assert "another protocol than the first number of the column: count" in text
    assert "too few tokenizers for any claim" in text and "| linear probe |" in text
    assert "Command: `vistok eval nested tail fixed`" in text


def test_a_real_file_obeys_the_schema(results, tmp_path):
    """The committed schema, checked by a library that knows nothing of our classes."""
    validator = pytest.importorskip(
        "jsonschema", reason="pip install jsonschema"
    ).Draft202012Validator
    schema = json.loads((ROOT / "eval" / "results.schema.json").read_text())
    validator.check_schema(schema)
    assert schema == json_schema()
    results.save(tmp_path / "results.json")
    data = json.loads((tmp_path / "results.json").read_text())
    validator(schema).validate(data)
    gallery = json.loads((ROOT / "eval" / "gallery" / "quickstart_results.json").read_text())
    validator(schema).validate(gallery)
    for place, value in (("value", "1.0"), ("count", None), ("invented", 1)):
        broken = json.loads(json.dumps(data))
        broken["rows"][0][place] = value
        assert not validator(schema).is_valid(broken), place
