"""Spreads, floors and what lies below them, in every form of a report."""

import csv
import io

from tests.support.eval_results import PHOTOS, generated, row, run_facts
from vistok.eval.report.comparison import comparison
from vistok.eval.report.curves import length_charts
from vistok.eval.report.exports import comparison_csv, latex
from vistok.eval.report.markdown_page import render_markdown
from vistok.eval.report.page import render_html
from vistok.eval.report.summary import headline
from vistok.eval.report.tables import summary
from vistok.eval.results.rows import Floor, Results
from vistok.eval.results.text import schedule_text, spread_text, tip

FLOOR = Floor(value=6.0, count=64, reference=PHOTOS)
SEEDS = {"seeds": (0, 1, 2), "each": (9.0, 12.0, 10.5), "interval": (6.8, 14.2), "varies": "seeds"}
LINEAR = {"guidance": 4.0, "guidance_schedule": "linear", "guidance_start": 1.0}


def made():
    """A tokenizer at two lengths and its generator, the guided numbers first."""
    guided = {"sampling": {"generator": LINEAR}, "seed": 0, **SEEDS}
    rows = [
        row("rFID", "a", 5.0, 16, interval=(4.6, 5.4), varies="images", floor=FLOOR),
        row("rFID", "a", 30.0, 4, interval=(28.0, 32.0), varies="images", floor=FLOOR),
        row("gFID", "a/g", 8.0, **{**guided, "each": (7.5, 8.5, 8.0)}, floor=FLOOR),
        row("gFID", "a/g", 10.5, **generated(1.0), **SEEDS, floor=FLOOR),
    ]
    runs = (run_facts("a"), run_facts("a/g", "generator"))
    return Results(rows=tuple(rows), runs=runs, facts={"pairs": {"a": ["a/g"]}})


def test_every_form_shows_them():
    results = made()
    forms = {
        "console": summary(results),
        "page": render_html(results),
        "markdown": render_markdown(results, "a.html", "a.json"),
        "latex": latex(results),
    }
    below = {"page": "5.00‡", "latex": r"5.00$^{\ddagger}$"}
    for form, text in forms.items():
        assert below.get(form, "5.00‡") in text, form
        assert "10.50‡" not in text and "below its floor" in text, form
        assert "64 held-out images of photos have 6.00" in text, form
        assert "of 3 sampling seeds" in text, form
    assert "10.50 (9.00–12.00)" in forms["console"] and "5.00‡ ±0.40" in forms["markdown"]
    assert r"10.50 {\scriptsize (9.00--12.00)}" in forms["latex"]
    assert r"{\scriptsize $\pm$0.40}" in forms["latex"]
    assert '<span class="spread">(9.00–12.00)</span>' in forms["page"]
    assert "seed 0: 9.00; seed 1: 12.00; seed 2: 10.50; 95% interval over seeds" in forms["page"]
    assert "rFID[vistok-cnn, photos] floor (real images)" in forms["console"]
    assert "floor 6.00" in forms["page"] and "floor &" not in forms["markdown"]


def test_a_table_of_numbers_has_their_ends():
    (line,) = csv.DictReader(io.StringIO(comparison_csv(made())))
    name = "gFID[vistok-cnn, photos] guidance 1"
    numbers = [line[name], *(line[f"{name} {end}"] for end in ("95% low", "95% high", "floor"))]
    assert list(map(float, numbers)) == [10.5, 6.8, 14.2, 6.0]
    assert line["below floor"] == "rFID[vistok-cnn, photos]"


def test_the_unguided_number_comes_first_and_a_guided_one_says_its_schedule():
    results = made()
    tiles = [one for one in headline(results) if one["metric"] == "gFID"]
    assert [one["value"] for one in tiles] == ["10.50", "8.00"]
    assert [one["name"].inside for one in tiles] == ["guidance 1", "guidance 4 linear from 1"]
    columns = [one.name for one in comparison(results).columns if one.metric == "gFID"]
    assert columns[0].endswith("guidance 1") and columns[1].endswith("guidance 4 linear from 1")
    said = lambda **how: schedule_text(
        row("gFID", "a", 1.0, sampling={"generator": {"guidance": 2.0, **how}}, seed=0)
    )
    assert said(guidance_schedule="constant") == "constant" and said() == ""
    power = {"guidance_schedule": "power", "guidance_power": 2.5, "guidance_start": 1.0}
    assert said(**power) == "power 2.5 from 1"
    assert said(guidance_schedule="cosine", guidance_interval=[0.1, 0.8]) == (
        "cosine, at 0.1 to 0.8 of the steps"
    )


def test_columns_stand_over_their_floors():
    table = comparison(made())
    floors = {one.name.partition("]")[2] or one.metric: one.floor for one in table.columns}
    assert set(floors.values()) == {"6.00"} and table.floors and table.below and table.spread
    assert all(one.floor_means == "64 held-out images of photos" for one in table.columns)


def test_a_floor_of_another_count_judges_nothing():
    other = FLOOR.model_copy(update={"count": 50})
    small = row("gFID", "a", 5.0, **generated(1.0), floor=other)
    assert not small.below_floor
    results = Results(rows=(small,), runs=(run_facts("a", "generator"),))
    text = summary(results)
    assert "6.00 (n=50)" in text and "‡" not in text


def test_charts_draw_bars_and_the_floor():
    (chart,) = length_charts(made(), "tokens")
    assert chart.count('class="reach"') == 2
    assert "real images" in chart


def test_text_of_spreads():
    assert spread_text(row("rFID", "a", 5.0)) == tip(row("rFID", "a", 5.0)) == ""
    same = {**SEEDS, "each": (1.0, 1.0, 1.0), "interval": (1.0, 1.0)}
    assert spread_text(row("gFID", "a", 1.0, seed=0, **same)) == "(1.00–1.00)"
