"""A damaged or edited results.json is one line that names the field, or a report that is made."""

import itertools
import json
import random

import pytest

from tests.support.eval_results import made
from vistok.core.errors import InputError
from vistok.eval.report import exports
from vistok.eval.report.page import render_html, render_markdown
from vistok.eval.report.tables import summary
from vistok.eval.results.merge import check_names
from vistok.eval.results.rows import Results
from vistok.eval.study.verdict import verdict, verdict_text

WRONG = (None, 5, -1, 1e300, "x", [], {}, True, [[]], {"a": 1}, ...)  # ... = the key is deleted


@pytest.fixture(scope="module")
def whole():
    """A results.json with everything that a report shows, as plain data."""
    results = made(2, size=8, lengths=(4, 1), cells=2)
    facts = {
        **results.facts,
        "skipped": [{"protocol": "a", "run": "b", "reason": "c"}],
        "config": {"protocols": ["rfid"]},
        "study": {"sentences": ["a"]},
        "versions": {"torch": "2"},
        "report": {"page": "report.html", "files": {"report.md": "0"}},
    }
    data = json.loads(results.model_copy(update={"facts": facts}).json_text())
    for run in data["runs"]:
        run["history"] = [{"step": s, "split": "val", "psnr": 1.0, "psnr@4": 2.0} for s in (1, 2)]
    return data


def read(tmp_path, data):
    path = tmp_path / "results.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return Results.load(path)


def refused(tmp_path, data, *words):
    with pytest.raises(InputError) as caught:
        read(tmp_path, data)
    said = str(caught.value)
    assert said.startswith(str(tmp_path / "results.json")) and "\n" not in said
    assert all(word in said for word in words), said


def changed(data, *path):
    """A copy in which the last of the path is the value at `path[:-1]`."""
    *where, value = path
    copy = json.loads(json.dumps(data))
    inside = copy
    for key in where[:-1]:
        inside = inside[key]
    if value is ...:
        del inside[where[-1]]
    else:
        inside[where[-1]] = value
    return copy


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("rows", 1, 5), ("rows.1",)),
        (("rows", 0, None), ("rows.0",)),
        (("rows", [[]]), ("rows.0",)),
        (("rows", {"a": 1}), ("rows",)),
        (("rows", 0, "run", 5), ("rows.0.run", "string")),
        (("rows", 0, "value", "1.0x"), ("rows.0.value",)),
        (("rows", 0, "not_finite", "inf"), ("rows.0", "not_finite")),
        (("rows", 0, "sampling", {"generator": {"guidance": "a"}}), ("guidance='a'",)),
        (("rows", 0, "point", {"alpha": 1}), ("point", "delta")),
        (("rows", 0, "point", {"codec": "x"}), ("point", "bytes")),
        (("runs", 0, "name", 5), ("runs.0.name", "string")),
        (("runs", 0, "name", ...), ("runs.0.name",)),
        (("runs", 0, "tok"), ("runs.0",)),
        (("runs", 0, "history", [1]), ("runs.0.history.0",)),
        (("facts", []), ("facts",)),
        (("facts", "pairs", {"nested": "abc"}), ("facts.pairs.nested", "list")),
        (("facts", "skipped", [{}]), ("facts.skipped.0",)),
        (("facts", "image_grids", 0, "rows", 0, "uri", 5), ("uri",)),
        (("facts", "codebook", "nested", "used", 4097), ("codebook.nested", "used=4097")),
        (("facts", "codebook", "nested", "used", 12), ("codebook.nested", "12 codes (used)")),
        (("facts", "codebook", "nested", "sorted_counts", 3, 1, 10**6), ("falling counts",)),
        (("facts", "codebook", "nested", "tokens", 3), ("counts of tokens=3",)),
        (("facts", "codebook", "nested", "codes", "many"), ("codebook.nested.codes",)),
        (("schema", 2), ("schema 2", "expected 3")),
    ],
)
def test_what_is_wrong_is_named(whole, tmp_path, path, words):
    refused(tmp_path, changed(whole, *path), *words)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", '"a"', "[" * 100_000, '{"schema": 3, "rows": [{"value": NaN}]}',
             '{"schema": 3, "facts": {"a": 1e999}}', '{"schema": 3, "facts": {"a": -Infinity}}']
)  # fmt: skip
def test_what_is_no_such_file_is_one_line(tmp_path, text):
    refused(tmp_path, text)


def test_any_wrong_value_is_refused_or_shown(whole, tmp_path):
    """Values of wrong types at places of every kind: never another error than one line."""

    def places(data, at=()):
        yield at
        items = data.items() if isinstance(data, dict) else ()
        items = list(enumerate(data))[:2] if isinstance(data, list) else items
        for key, inside in items:
            yield from places(inside, (*at, key))

    kinds = {}
    for place in filter(None, places(whole)):
        kinds.setdefault(tuple("*" if isinstance(k, int) else k for k in place), []).append(place)
    assert len(kinds) > 100
    draws, shown = random.Random(0), 0
    tries = [(draws.choice(of), wrong) for of, wrong in itertools.product(kinds.values(), WRONG)]
    for place, wrong in draws.sample(tries, 45):
        try:
            results = read(tmp_path, changed(whole, *place, wrong))
            check_names((), [results])
            summary(results)
            verdict_text(verdict(results))
            render_markdown(results, "a.html", "a.json")
            exports.latex(results)
            exports.comparison_csv(results)
            render_html(results)
            shown += 1
        except InputError as error:
            assert "\n" not in str(error), (place, wrong)
    assert 5 < shown < 40
