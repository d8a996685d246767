"""A Fréchet distance of few images says so wherever it is printed, and what their number makes."""

import csv
import io

import pytest
import torch
from click.testing import CliRunner

from tests.support.eval_results import row, run_facts
from vistok.eval.__main__ import evaluate
from vistok.eval.report import curves
from vistok.eval.report.exports import comparison_csv, latex
from vistok.eval.report.page import render_html, render_markdown
from vistok.eval.report.tables import summary
from vistok.eval.results.rows import Results
from vistok.eval.sample_size import sample_size
from vistok.metrics import FeatureStats

WHY = "biased upwards: 4 images for 320 features"


def shown_everywhere(results, wanted):
    """The text of every form of a report has each of the wanted texts."""
    page = render_html(results)
    forms = {
        "console": summary(results),
        "page": page,
        "markdown": render_markdown(results, "a.html", "a.json"),
        "latex": latex(results).replace(r"$^{\dagger}$", "†"),
        "csv": comparison_csv(results),
    }
    for form, text in forms.items():
        for one in wanted:
            if form != "csv" or one.startswith("biased"):  # there numbers stay numbers
                assert one in text, (form, one)
    return forms


def test_four_images_are_marked_in_every_form(runs, tmp_path):
    """From the command: rFID of four images."""
    page = tmp_path / "report.html"
    arguments = [str(runs[0]), "limit=4", "protocols=rfid", f"report={page}"]
    done = CliRunner().invoke(evaluate, arguments)
    assert done.exit_code == 0, done.output
    results = Results.load(tmp_path / "results.json")
    (rfid,) = results.find("rFID", length=4)
    assert rfid.few == WHY and rfid.bias is None and WHY in rfid.note
    assert all(r.few == "" for r in results.find("PSNR"))
    (usage,) = results.find("codebook-usage")
    assert usage.few == "" or "tokens for" in usage.few
    value = f"{rfid.value:.2f}†"
    forms = shown_everywhere(results, [value, WHY])
    notes = (tmp_path / "report.md").read_text("utf-8")
    assert value in done.output and "† few images" in done.output and WHY in done.output
    assert value in notes and WHY in notes
    (line,) = csv.DictReader(io.StringIO(forms["csv"]))
    assert float(line["rFID[vistok-cnn, photos]"]) == rfid.value
    assert f"rFID[vistok-cnn, photos]: {WHY}" in line["few images"]


def test_charts_are_marked_too():
    rows = tuple(row("rFID", "a", 3.0 / n, n, few=WHY) for n in (1, 4, 16))
    (chart,) = curves.length_charts(Results(rows=rows, runs=(run_facts("a"),)), "tokens")
    assert 'class="title">rFID† ↓<title>rFID[vistok-cnn, photos]</title>' in chart


def test_many_images_are_not_marked():
    results = Results(rows=(row("rFID", "a", 3.0),), runs=(run_facts("a"),))
    assert "†" not in "".join(shown_everywhere(results, ["3.00"]).values())


@pytest.mark.parametrize(
    ("value", "counts", "independent", "bias", "few"),
    [
        (0.3, (512, 512), True, 0.25, "512 images: about 0.25 of it is their small number"),
        (9.0, (512, 512), True, 0.25, ""),
        (0.3, (512, 512), False, 0.25, ""),  # of the same images: most of it cancels
        (0.3, (50_000, 512), True, 0.12628, "512 images: about 0.13 of it is their small number"),
        (0.3, (50_000,), True, 0.00128, ""),  # against statistics that name no count
        (0.3, (50_000, 50_000), True, 0.00256, ""),
        (9.0, (319, 512), True, None, "biased upwards: 319 images for 320 features"),
        (9.0, (512, 4), False, None, "biased upwards: 4 images for 320 features"),
    ],
)
def test_what_is_said_of_the_number_of_images(value, counts, independent, bias, few):
    found = sample_size(value, counts, 320, lambda: 64.0, independent)
    assert found.few == few and found.bias == (None if bias is None else pytest.approx(bias))
    assert found.note == few if bias is None else "independent sets" in found.note


def test_a_perfect_generator_is_told_what_it_scores(context, make_tokenizer):
    """Two halves of one distribution: the distance is about the row's `bias`."""
    found = context(make_tokenizer("fsq"))
    width = found.features.dim
    draws = torch.Generator().manual_seed(0)
    sets = [FeatureStats.of(torch.randn(512, width, generator=draws)) for _ in range(2)]
    made = found.frechet_row("gFID-val", sets[0], against=sets[1])
    assert made.bias == pytest.approx(made.value, rel=0.2) and made.few == ""
    assert f"are about {made.bias:.2g} apart (arXiv 1911.07023" in made.note


def test_real_photos_of_one_distribution(features):
    """A generator of perfect photos: measured, and computed from one side alone."""
    from vistok.data import Photos, PhotosConfig
    from vistok.eval.images import exact
    from vistok.metrics import frechet_distance
    from vistok.metrics.sample_bias import bias_factor

    count, data = 352, Photos(PhotosConfig(size=32, val_count=704)).open("val")
    sets = [FeatureStats(features.dim) for _ in range(2)]
    with exact():
        for start in range(0, 2 * count, 88):
            pixels = torch.stack([data[i].pixels for i in range(start, start + 88)])
            sets[start // count].update(features(pixels))
    measured = frechet_distance(*sets)
    assert measured == pytest.approx(0.40, rel=0.1)
    assert bias_factor(sets[1].cov, count) * 2 / count == pytest.approx(measured, rel=0.25)


@pytest.mark.parametrize(
    ("number", "text"), [("inf", "∞"), ("-inf", "-∞"), ("nan", "NaN"), ("", "n/a")]
)
def test_numbers_that_are_not_finite_keep_their_name(number, text):
    """Not a number is not infinity, and neither is what was not measured."""
    rows = (row("SSIM", "a", None, not_finite=number), row("SSIM", "b", 0.5))
    results = Results(rows=rows, runs=(run_facts("a"), run_facts("b")))
    tex = {"∞": r"$\infty$", "-∞": r"-$\infty$"}.get(text, text)
    forms = shown_everywhere(
        results.model_copy(update={"rows": rows}), [] if "∞" in text else [text]
    )
    assert text in forms["console"] and text in forms["page"] and tex in forms["latex"]
    assert [line["SSIM[photos]"] for line in csv.DictReader(io.StringIO(forms["csv"]))] == [
        number,
        "0.5",
    ]
    again = Results.model_validate_json(
        results.model_dump_json(by_alias=True, exclude={"rows": {"__all__": {"display"}}})
    )
    assert again.rows[0].not_finite == number


def test_a_context_names_what_is_not_finite(context, make_tokenizer):
    found = context(make_tokenizer("fsq"))
    for value in ("inf", "-inf", "nan"):
        made = found.row("PSNR", float(value))
        assert (made.value, made.not_finite) == (None, value) and made.note.endswith(value)
    assert found.row("PSNR", 1.0).not_finite == ""
