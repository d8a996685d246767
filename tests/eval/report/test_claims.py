"""Claims of a study in its report: cards, charts, text, and figures that stand alone."""

import xml.etree.ElementTree as ET

import pytest

from tests.support.claims import claim, results
from vistok.eval.report.claims import figures, text
from vistok.eval.report.page import render_html, render_markdown
from vistok.eval.results.rows import Results
from vistok.eval.study.claims.judge import judge

CLAIMS = (
    claim("paired", id="pair", says="With <b> it is lower.", pairs=[["a", "b"], ["a", "c"]],
          lower=["gFID"], equal={"rFID": 0.1}, paper="A paper (arXiv 1)"),
    claim("correlation", id="order", says="It orders better.", better="pFID-v1", than=["rFID"]),
    claim("curve", id="curve", says="It degrades less.", metric="rFID", better=["b"], than=["a"]),
    claim("flat", id="flat", says="It stays.", runs=["a"], flat="gFID", rises="rFID"),
)  # fmt: skip


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Results of three runs with three seeds, with their claims, as a file gives them back."""
    numbers = {}
    for seed in range(3):
        for place, run in enumerate("abc"):
            rise = 0.02 * ((seed + place) % 3)
            curve = {4: 30.0 + place + rise, 8: 20.0 + rise, 16: 10.0 + rise}
            generated = {n: 20.0 - place + rise for n in curve}
            numbers[run, seed] = {"rFID": curve, "gFID": generated, "pFID-v1": 12.0 + place}
    found, made = results(numbers, networks=("n", "m"), losses={"a": ["m"]})
    facts = {"study": {"claims": [judge(one, found, made) for one in CLAIMS]}}
    runs = [{**run, "spec": {"blocks": [[16]], "vocab": [8]}, "model": {}} for run in found.runs]
    path = tmp_path_factory.mktemp("claims") / "results.json"
    whole = found.model_copy(update={"runs": tuple(runs), "facts": {**found.facts, **facts}})
    whole.save(path)
    return Results.load(path)


def test_the_page_begins_with_the_claims(judged):
    page = render_html(judged)
    main = page[page.index('<main id="main">') :]
    assert main.index('id="claims"') < main.index('id="summary"')
    assert '<a href="#claims">Claims</a>' in page
    for name in ("pair", "order", "curve", "flat"):
        assert f'id="claim-{name}"' in page
    assert "With &lt;b&gt; it is lower." in page and "With <b> it" not in page
    assert "m: shown, decides nothing" in page
    assert "A paper (arXiv 1)" in page and "It would need:" in page
    verdicts = {one["id"]: one["verdict"] for one in judged.facts["study"]["claims"]}
    assert verdicts == {
        "pair": "holds here",
        "order": "not decided",
        "curve": "does not hold here",
        "flat": "holds here",
    }
    for verdict in verdicts.values():
        assert f">{verdict}</b>" in page


def test_the_text_has_them_too(judged):
    page = render_markdown(judged, "report.html", "results.json")
    assert page.index("## Claims") < page.index("## Numbers")
    assert "With 3 tokenizers" not in page and "with 3 tokenizers nothing may be claimed" in page
    told = text(judged)
    assert "HOLDS HERE: With <b> it is lower." in told and "Doubt: The training of a" in told


def test_figures_stand_alone(judged):
    """Files for papers: valid, of the networks that decide, without the page's colors."""
    found = figures(judged)
    assert set(found) == {"pair", "order", "curve", "flat"}
    for svg in found.values():
        root = ET.fromstring(svg)
        assert root.tag.endswith("svg") and "var(" not in svg
    texts = ["".join(one.itertext()) for one in ET.fromstring(found["pair"]).iter()
             if one.tag.endswith("text")]  # fmt: skip
    assert "With <b> it is lower. (holds here)" in texts
    assert "gFID: with minus without" in texts and "on average" in texts
    band = [one for one in ET.fromstring(found["pair"]).iter("{http://www.w3.org/2000/svg}rect")]
    assert len(band) == 2  # the paper, and the margin of about equal


def test_an_evaluation_without_claims_has_no_section(judged):
    plain = judged.model_copy(update={"facts": {"pairs": judged.facts["pairs"]}})
    assert 'id="claims"' not in render_html(plain) and figures(plain) == {}
    assert "## Claims" not in render_markdown(plain, "report.html", "results.json")
