"""The report in a real browser: no errors, nothing fetched, slider, sorting, zoom, phones, dark."""

import io

import pytest
from PIL import Image

from tests.support.eval_results import made
from vistok.eval.report.page import write_report

pytestmark = pytest.mark.slow

_SHOWN = """[...document.querySelectorAll('#reconstructions [data-lane]')].map(lane =>
  [...lane.querySelectorAll('.strip')].filter(s => s.offsetHeight).map(s => s.dataset.label))"""
NAMES = ("nested", "tail", "fixed")
_RUNS = """[...document.querySelectorAll('#comparison tbody tr')].map(
  row => row.cells[0].textContent.trim().split(/\\s/)[0])"""
_COLUMN = """[...document.querySelectorAll('#comparison thead button')].findIndex(
  one => one.textContent.startsWith('%s'))"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Three runs that differ in the protocol of one number; the second decodes only whole."""
    folder = tmp_path_factory.mktemp("pages")
    results = made(3)
    for grid in results.facts["image_grids"]:
        if grid["kind"] == "reconstructions" and grid["run"] == "tail":
            grid["rows"] = grid["rows"][:2]
    write_report(results, folder / "report.html")
    return folder


@pytest.fixture
def page(browser, pages):
    """page(**how) -> the browser with the report open; afterwards it must have no complaint."""
    browser.console.clear()
    browser.requests.clear()

    def load(**how):
        browser.open(pages / "report.html", **how)
        return browser

    yield load
    assert browser.console == []
    fetched = {url for url in browser.requests if not url.startswith("data:")}
    assert fetched == {(pages / "report.html").as_uri()}


def _slide(browser, to):
    change = f"s => {{ s.value = {to}; s.dispatchEvent(new Event('input')); }}"
    browser.run(f"({change})(document.querySelector('#reconstructions [data-slider]'))")


def _lanes(browser):
    """Pixels of the reconstructions as a person sees them."""
    box = browser.run(
        "(b => [b.x + scrollX, b.y + scrollY, b.width, b.height])"
        "(document.querySelector('#reconstructions [data-lane]').getBoundingClientRect())"
    )
    return browser.picture(box)


def test_the_slider_changes_the_images(page):
    browser = page()
    assert browser.run(_SHOWN) == [["16 tokens"]] * 3
    long = _lanes(browser)
    _slide(browser, 0)
    assert browser.run(_SHOWN) == [["1 tokens"], ["16 tokens"], ["1 tokens"]]
    assert _lanes(browser) != long
    # The run that cannot go below 16 says so by its color.
    assert browser.run("document.querySelectorAll('#reconstructions .forced').length") == 1
    _slide(browser, 1)
    assert browser.run(_SHOWN) == [["4 tokens"], ["16 tokens"], ["4 tokens"]]
    said = "document.querySelector('#reconstructions [data-slider]').getAttribute('aria-valuetext')"
    assert browser.run(said) == "4 tokens"
    browser.run("document.querySelector('#reconstructions [data-all]').click()")
    assert browser.run(_SHOWN)[0] == ["16 tokens", "4 tokens", "1 tokens"]


def test_the_slider_moves_by_keys(page):
    browser = page()
    browser.run("document.querySelector('#reconstructions [data-slider]').focus()")
    browser.key("ArrowLeft", "ArrowLeft", 37)
    assert browser.run(_SHOWN)[0] == ["4 tokens"]


def test_differences(page):
    browser = page()
    plain = _lanes(browser)
    choose = "(s => { s.value = '%d'; s.dispatchEvent(new Event('change')); })(%s)"
    gain = "document.querySelector('#reconstructions [data-gain]')"
    browser.run(choose % (1, gain))
    faint = _lanes(browser)
    browser.run(choose % (8, gain))
    strong = _lanes(browser)
    mean = lambda picture: sum(
        Image.open(io.BytesIO(picture)).convert("L").resize((1, 1)).tobytes()
    )
    assert mean(plain) > mean(strong) > mean(faint)  # black where nothing differs, then amplified


_BOX = "document.getElementById('lightbox')"
_SAID = f"[...{_BOX}.querySelectorAll('figcaption')].map(c => c.textContent)"
_TILES = f"""[...{_BOX}.querySelectorAll('.tile')].map(t => t.getBoundingClientRect()).map(
  b => [b.x, b.y, b.x + b.width, b.y + b.height])"""


@pytest.mark.parametrize(("width", "height", "least"), [(1400, 1000, 380), (390, 844, 140)])
def test_an_enlarged_image_fills_the_window(page, width, height, least):
    """All runs side by side at the same image, wholly in view, driven by keys."""
    browser = page(width=width, height=height)
    assert browser.run(_TILES) == []
    browser.run("document.querySelectorAll('#reconstructions .names button')[2].click()")
    assert browser.run(f"{_BOX}.matches(':modal')")
    assert browser.run(_SAID) == ["original", *(f"{n}: 16 tokens" for n in NAMES)]
    for left, top, right, bottom in browser.run(_TILES):
        assert 0 <= left and 0 <= top and right <= width and bottom <= height
        assert right - left >= least and abs((right - left) - (bottom - top)) < 1
    assert "class 2 (image 3 of 4)" in browser.run(f"{_BOX}.textContent")
    browser.key("ArrowRight", "ArrowRight", 39)
    assert "image 4 of 4" in browser.run(f"{_BOX}.textContent")
    browser.key("ArrowDown", "ArrowDown", 40)  # a shorter prefix
    assert browser.run(_SAID)[1] == "nested: 4 tokens"
    browser.key("d", "KeyD", 68)
    assert browser.run(_SAID)[1] == "nested: 4 tokens, difference ×4"
    assert browser.run(f"getComputedStyle({_BOX}.querySelector('.tile img')).imageRendering") == (
        "pixelated"
    )
    browser.key("Escape", "Escape", 27)
    assert not browser.run(f"{_BOX}.open")
    assert browser.run(_SHOWN)[0] == ["4 tokens"]  # the page followed


def test_samples_are_enlarged_too(page):
    browser = page()
    browser.run("document.querySelector('#generated .stack').focus()")
    browser.key("Enter", "Enter", 13)
    assert browser.run(_SAID) == ["class 0"]
    ((left, _, right, _),) = browser.run(_TILES)
    assert right - left > 800


def test_columns_sort_by_click_and_by_key(page):
    browser = page()
    assert browser.run(_RUNS) == ["nested", "tail", "fixed"]
    place = browser.run(_COLUMN % "PSNR")
    button = f"document.querySelectorAll('#comparison thead button')[{place}]"
    browser.run(f"{button}.click()")
    assert browser.run(_RUNS) == ["nested", "tail", "fixed"]  # ascending
    browser.run(f"{button}.focus()")
    browser.key("Enter", "Enter", 13)
    assert browser.run(_RUNS) == ["fixed", "tail", "nested"]
    state = f"document.querySelectorAll('#comparison thead th')[{place}].getAttribute('aria-sort')"
    assert browser.run(state) == "descending"
    browser.run("document.querySelector('#comparison thead button').click()")  # by name
    assert browser.run(_RUNS) == ["fixed", "nested", "tail"]


@pytest.mark.parametrize("width", [1400, 500, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_every_width_and_theme(page, tmp_path, width, dark):
    browser = page(width=width, dark=dark)
    browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert browser.run("document.documentElement.scrollWidth") <= width
    first = (
        "[...document.querySelectorAll('img')].find(i => i.offsetHeight).getBoundingClientRect()"
    )
    assert browser.run(f"{first}.bottom") < 700  # images in the first screen, on a phone too
    shot = Image.open(browser.shot(tmp_path / "shot.png")).convert("L")
    colors = shot.crop((0, 0, width, 120)).resize((1, 1)).tobytes()[0]  # the head, without images
    assert (colors < 80) if dark else (colors > 200)
    assert len(shot.getcolors()) > 50


def test_a_table_shows_that_it_scrolls(page):
    """A shade at the edge where it goes on; its first column stays."""
    browser = page(width=390)
    table = "document.querySelector('#comparison').closest('.table')"
    shade = lambda side: browser.run(f"{table}.classList.contains('{side}')")
    assert shade("after") and not shade("before")
    first = f"{table}.querySelector('tbody th').getBoundingClientRect().x"
    there = browser.run(first)
    browser.run(f"{table}.querySelector('.scroll').scrollLeft = 150")
    browser.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert browser.run(first) == there and shade("before")


def test_without_scripts_every_image_is_there(page):
    browser = page(scripts=False)
    html = browser.html()
    assert html.count('class="strip"') > 20
    assert browser.seen("#reconstructions .strip") == 1 + 3 + 1 + 3
    assert browser.seen("#reconstructions .controls") == 0
