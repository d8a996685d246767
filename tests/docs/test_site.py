"""The site builds strictly, fetches nothing of other hosts, and shows what the package has."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.support.eval_browser import Browser, chromium
from vistok.config.registry import entries, families

mkdocs = pytest.importorskip("mkdocs")

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The whole site; a broken link, anchor or reference in it is an error here."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    try:
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    except Abort as error:
        pytest.fail(f"make docs shows the warnings: {error}")
    return folder


def test_no_page_fetches_from_another_host(site):
    fetched = re.compile(r'(?:src|(?<!rel="canonical" )href)="(?:https?:)?//[^"]+"')
    for page in site.rglob("*.html"):
        head = page.read_text("utf-8")
        tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", head)
        assert not [tag for tag in tags if fetched.search(tag)], page.name


def test_every_part_has_its_keys_on_a_page(site):
    import config_pages

    text = "".join(path.read_text("utf-8") for path in (site / "reference/config").glob("*.html"))
    shown = {family for page in config_pages.PAGES for family in page.families}
    assert shown == set(families())
    missing = [
        (family, kind)
        for family in shown
        for kind, entry in entries(family).items()
        if entry.part.__module__.startswith("vistok.") and f'id="{family}-{kind}"' not in text
    ]
    assert not missing


def test_search_works_from_disk(site, tmp_path):
    chromium()
    with Browser(tmp_path) as browser:
        browser.open((site / "index.html").as_uri() + "?q=nested+dropout")
        found, end = "", time.monotonic() + 60
        while not found and time.monotonic() < end:
            time.sleep(0.1)
            found = browser.run("document.querySelector('.md-search-result__list').innerText")
        assert "dropout" in found.lower()
        assert not [url for url in browser.requests if url.startswith("http")]
        assert not browser.console
