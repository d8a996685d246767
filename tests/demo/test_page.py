"""The playground in headless chromium: it loads, follows the slider, and asks no other host."""

from __future__ import annotations

import base64
import io
import time
import urllib.error
import urllib.request

import pytest
import torch
from PIL import Image

from tests.conftest import tokenizer_tree
from tests.support.eval_browser import Browser, chromium
from vistok.config import validate
from vistok.demo.models import Models
from vistok.demo.serve import is_loopback, served
from vistok.tokenizer import Tokenizer, TokenizerConfig

SECONDS = 60  # that a busy machine may take for one answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved tokenizer of 8 x 8 pixels, four tokens, and an image file."""
    place = tmp_path_factory.mktemp("demo")
    torch.manual_seed(1)
    config = validate(TokenizerConfig, tokenizer_tree("fsq"))
    Tokenizer(config).eval().save_pretrained(place / "tiny")
    Image.new("RGB", (20, 16), (200, 40, 40)).save(place / "red.png")
    (place / "bad.png").write_text("no image", encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    """The page in a browser, once for all tests of this file."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'vistok[demo]'")
    chromium()
    models = Models([str(folder / "tiny")], typed=True)
    with served(models) as server, Browser(tmp_path_factory.mktemp("profile")) as browser:
        browser.open(server.url, 1200, 900)
        browser.server = server
        wait(browser, "document.querySelectorAll('#vt-out img').length == 3")
        yield browser


def wait(browser, expression):
    """Until an expression is true in the page."""
    end = time.monotonic() + SECONDS
    while not browser.run(f"Boolean({expression})"):
        assert time.monotonic() < end, (expression, browser.run("document.body.innerText")[:800])
        time.sleep(0.05)


def facts(browser):
    return browser.run("document.querySelector('#vt-out .vt-facts').innerText").split()


def drag(browser, value):
    """Move the length slider as dragging does."""
    browser.run(
        "(() => { const slider = document.querySelector('#vt-length input[type=range]');"
        f"slider.value = {value};"
        "slider.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def test_the_page_follows_the_slider(page, tmp_path):
    assert facts(page)[1:4] == ["4", "of", "4"]
    shown = "document.querySelectorAll('#vt-out img')[1].src"
    before = page.run(shown)
    drag(page, 0)
    wait(page, "document.querySelector('#vt-out .vt-facts').innerText.includes('1 of 4')")
    after = page.run(shown)
    assert after != before
    sides = Image.open(io.BytesIO(base64.b64decode(after.split(",")[1]))).size
    assert sides == (8, 8)
    shot = Image.open(page.shot(tmp_path / "page.png")).convert("L")
    assert len(set(shot.resize((120, 90)).tobytes())) > 20


def choose(browser, path):
    """Take the image away and give the page a file, as its file dialog would."""
    browser.run("document.querySelector('#vt-image button[aria-label^=Remove]').click()")
    wait(browser, "document.querySelector('#vt-image input[type=file]')")
    browser.files("#vt-image input[type=file]", [path])


def test_an_image_is_chosen_and_a_broken_one_is_one_line(page, folder):
    choose(page, folder / "bad.png")
    wait(page, "document.querySelector('.vt-error')?.innerText.includes('not an image')")
    assert f"{folder}/bad" not in page.run("document.body.innerText")
    choose(page, folder / "red.png")
    wait(page, "document.querySelectorAll('#vt-out img').length == 3")
    original = page.run("document.querySelector('#vt-out img').src").split(",")[1]
    assert Image.open(io.BytesIO(base64.b64decode(original))).getpixel((4, 4)) == (200, 40, 40)


def test_nothing_but_this_server_is_asked(page):
    own = (page.server.url, "data:", "blob:")
    assert [one for one in page.requests if not one.startswith(own)] == []
    failed = [one for one in page.console if "warning" not in (one.get("type"), one.get("level"))]
    assert failed == []


def test_a_site_that_names_this_address_as_its_own_is_refused(page):
    request = urllib.request.Request(page.server.url, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=SECONDS)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a.org", False)],
)
def test_addresses_that_only_this_machine_reaches(host, local):
    assert is_loopback(host) is local
