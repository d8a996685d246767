"""results.json, the report and the command line, end to end on tiny runs."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.processes import run
from vistok.eval.__main__ import evaluate, speed
from vistok.eval.report.page import render_html, render_markdown, write_report
from vistok.eval.report.tables import summary
from vistok.eval.results.rows import Reference, Results, Row, json_schema

ROOT = Path(__file__).parents[3]
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def report(runs, tmp_path):
    """The folder of a report made by the command line, and what was printed."""
    target = tmp_path / "out" / "report.html"
    arguments = [*map(str, runs), f"report={target}", "limit=20", "gfid.guidance=[1,2]"]
    arguments.append("gfid.seeds=1")
    result = CliRunner().invoke(evaluate, arguments)
    assert result.exit_code == 0, result.output
    return target.parent, result.output


class _Loads(HTMLParser):
    """Everything that a page would fetch."""

    def __init__(self):
        super().__init__()
        self.found, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "srcset", "data", "poster") or (name == "href" and tag != "a"):
                self.found.append(value)


def test_end_to_end(report):
    folder, printed = report
    assert sorted(path.name for path in folder.iterdir()) == [
        "eval_cache", "report.csv", "report.html", "report.md", "report.tex", "results.json",
    ]  # fmt: skip
    for words in ("rFID[vistok-cnn, photos]", "@1", "@4", "gFID-untrained", "report.html",
                  "report.tex", "report.csv"):  # fmt: skip
        assert words in printed
    page = (folder / "report.html").read_text().replace("<wbr>", "")
    for words in (
        "Reconstructions", "Perturbed tokens", "Generated images", "Training", "val_count",
        "How the codebook is used", "not unseen photographs", "hubble",
        "pFID-v1[vistok-cnn, photos]", "prefers-color-scheme: dark",
    ):  # fmt: skip
        assert words in page, words
    # A short name never stands without its network and data in the tooltip.
    short = re.findall(r"(<[^<>]*>)\s*[rgp]FID(?:-v1)?\s*<", re.sub(r"<dt>[^<]*</dt>", "", page))
    assert short and all("FID" in tag and "[vistok-cnn, photos]" in tag for tag in short)
    notes = (folder / "report.md").read_text()
    assert "| rFID[vistok-cnn, photos] |" in notes and "not unseen photographs" in notes


def test_the_page_loads_nothing(report):
    page = (report[0] / "report.html").read_text()
    loads = _Loads()
    loads.feed(page)
    assert loads.found and all(one.startswith("data:") for one in loads.found)
    assert not {"iframe", "object", "embed"} & set(loads.tags)
    assert loads.tags.count("script") == 1  # inline, ours: test_the_only_script_is_ours
    assert not re.search(r"url\(|@import|https?://", page)


def test_results_json(report, tmp_path, fails):
    path = report[0] / "results.json"
    data = json.loads(path.read_text())
    assert data["schema"] == 3 and set(data) == {"schema", "rows", "runs", "facts"}
    results = Results.load(path)
    assert [row.display for row in results.rows] == [row["display"] for row in data["rows"]]
    assert {row.count for row in results.rows} == {20}
    assert len(results.find("PSNR", "tok")) == 3 and results.find("PSNR", length=2)
    results.save(tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == data
    assert render_html(results) == render_html(Results.load(tmp_path / "again.json"))
    data["schema"] = 2
    path.write_text(json.dumps(data))
    with fails(ValueError, "schema 2", "expected 3"):
        Results.load(path)


_WITHOUT_TORCH = """
import sys
from importlib.abc import MetaPathFinder
class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "torchmetrics"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import importlib, pkgutil
from vistok.eval import report, results
for package in (results, report):
    for one in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(one.name)
from vistok.eval.report.page import write_report
from vistok.eval.report.tables import summary
from vistok.eval.results.rows import Results
found = Results.load(sys.argv[1])
print(summary(found))
write_report(found, sys.argv[2])
"""


def test_a_report_is_made_without_torch(report, tmp_path):
    """From results.json alone, in a process that cannot import torch: the very same page."""
    folder, target = report[0], tmp_path / "again" / "report.html"
    command = [sys.executable, "-c", _WITHOUT_TORCH, str(folder / "results.json"), str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "rFID[vistok-cnn, photos]" in done.stdout
    assert target.read_text() == (folder / "report.html").read_text()


def test_the_schema_file_is_current():
    written = json.loads((ROOT / "eval" / "results.schema.json").read_text())
    assert written == json_schema(), (
        "write vistok.eval.results.rows.json_schema() to eval/results.schema.json"
    )


def test_names_are_escaped(tmp_path):
    reference = Reference(name=EVIL, split=EVIL, manifest="0", count=2, described=EVIL)
    rows = [
        Row(metric=metric, value=1.0, run=EVIL, reference=reference, count=2, length=k, note=EVIL)
        for metric in ("rFID", "PSNR", EVIL)
        for k in (1, 2)
    ]
    run = {
        **{name: EVIL for name in ("name", "kind", "sha256")},
        "spec": {"vocab": [EVIL]},
        "model": {EVIL: 1},
        "config": {EVIL: EVIL},
        "history": [{"step": 1, "split": "train", "loss": 1.0}],
    }
    strip = {"label": EVIL, "uri": "data:image/png;base64,AAAA"}
    grid = {"kind": "reconstructions", "run": EVIL, "size": [8, 8], "cells": 1}
    grid |= {"columns": [EVIL], "rows": [strip]}
    skipped = [{"protocol": EVIL, "run": EVIL, "reason": EVIL}]
    book = {"codes": 2, "used": 1, "sorted_counts": [[0, 2], [1, 0]], "position_entropy": [1.0]}
    facts = {"image_grids": [grid], "skipped": skipped, "command": EVIL, "codebook": {EVIL: book},
             "features": {"name": EVIL, "sha256": EVIL}, "commit": EVIL, "date": EVIL}  # fmt: skip
    results = Results(rows=tuple(rows), runs=(run, run), facts=facts)
    for path in write_report(results, tmp_path / "report.html"):
        if path.suffix in (".html", ".md"):
            assert "<img src=x" not in path.read_text(), path
    assert EVIL in summary(results)
    assert "<img" not in render_markdown(results, "a", "b")


def test_mistakes_are_one_line(runs, tmp_path):
    for arguments in (
        [str(runs[1])],
        [str(runs[0]), "features=inceptoin"],
        [str(runs[0]), f"report={tmp_path / 'x.pdf'}"],
        [str(runs[0]), "device=gpu"],
        [str(runs[0]), f"weights={tmp_path / 'none.safetensors'}"],
        [str(runs[0]), "protocols=[rfdi]"],
        [str(runs[0]), "featrues=inception"],
        [str(runs[0]), "pfid.mod=quick"],
        [str(runs[0]), "gfid.guidance=[-1]"],
        [str(runs[0]), "decoder_sampling.steps=2"],
        [str(runs[0]), str(runs[1]), "sampling.temprature=2"],
    ):
        result = CliRunner().invoke(evaluate, arguments)
        lines = result.output.strip().splitlines()
        assert result.exit_code == 1 and len(lines) == 1, (arguments, result.output)
        assert lines[0].startswith("error: ")


def test_speed(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("vistok.eval.speed.clock._SIDE", 64)
    target = tmp_path / "speed.json"
    arguments = [*map(str, runs), "repeats=1", "batch=4", f"report={target}"]
    result = CliRunner().invoke(speed, arguments)
    assert result.exit_code == 1 and "task" in result.output  # the tiny run's config has no task
    pretrained = [str(runs[0] / "model"), str(runs[1]), "data.kind=photos", "data.size=8"]
    asked = ["sampling_batch=[1,4]", "sampling_precision=[fp32]"]
    result = CliRunner().invoke(speed, [*pretrained, *arguments[2:], *asked])
    assert result.exit_code == 0, result.output
    for words in (
        "encode-images/s",
        "decode-share",
        "sample-cache-gain",
        "generate-images/s",
        "GFLOP/s",
        "not measured",
    ):
        assert words in result.output
    results = Results.load(target)
    assert results.find("encode-images/s")[0].count == 4
    rate = lambda name: results.find(f"{name}-images/s")[0]
    count = lambda name: float(rate(name).note.split()[0])  # GFLOP an image
    assert count("encoder") == count("encode") > 0 and count("decoder") == count("decode") > 0
    assert count("quantizer") == 0 and not results.find("quantizer-FLOP/s")  # fsq has no products
    assert count("generate") == pytest.approx(count("sample-cached") + count("decode"), rel=0.02)
    assert count("sample-uncached") > count("sample-cached") > 0
    fast, plain = (results.find(f"sample-{path}-images/s") for path in ("fast", "plain"))
    assert [row.count for row in fast] == [row.count for row in plain] == [1, 4]
    assert [row.sampling["generator"]["fast"] for row in (*fast, *plain)] == [True] * 2 + [
        False
    ] * 2
    for name in ("sample-fast-gain", "sample-bandwidth-share"):
        assert [row.precision for row in results.find(name)] == ["fp32"] * 2
        assert all(row.value > 0 for row in results.find(name))
    if sys.platform == "linux":
        for part in ("encode", "decode", "encoder", "decoder", "lookup", "sample-cached"):
            (peak,) = results.find(f"{part}-peak-GB")
            held = float(peak.note.split()[1])
            assert 0.05 < held <= peak.value + 1e-3 and peak.value < 16


@pytest.mark.slow
def test_two_processes_give_the_same_numbers(runs, report, tmp_path):
    target = tmp_path / "two" / "report.html"
    settings = [f"report={target}", "limit=20", "batch=3", "gfid.guidance=[1,2]"]
    settings.append("gfid.seeds=1")
    done = run("eval", *runs, *settings, processes=2)
    assert done.returncode == 0, done.stderr
    one, two = [Results.load(p.parent / "results.json") for p in (report[0] / "x", target)]
    assert two.facts["world_size"] == 2 and len(one.rows) == len(two.rows)
    for a, b in zip(one.rows, two.rows, strict=True):
        assert (a.metric, a.length, a.count) == (b.metric, b.length, b.count)
        assert b.value == pytest.approx(a.value, rel=1e-4, abs=1e-6), a.display
