"""The leaderboard in a real browser: sorting, filters, ranks, malicious names, phones, dark."""

from itertools import pairwise

import pytest
from PIL import Image

from tests.support.leaderboard import made, tokenizer, write
from vistok.eval.leaderboard.page import LeaderboardConfig, write_leaderboard

pytestmark = pytest.mark.slow

# [[rank, model, number], ...] of the rows that are seen, for each table that is seen.
_TABLES = """[...document.querySelectorAll('#metric-%s table.board')].filter(
  t => t.offsetHeight).map(t => [...t.tBodies[0].rows].filter(r => r.offsetHeight).map(
    r => [0, 1, 2].map(i => r.cells[i].innerText.split('\\n')[0].trim())))"""
_SET = """(([name, value]) => { const one = document.querySelector(`[data-filter=${name}]`);
  if (one.type === 'checkbox') one.checked = value; else one.value = value;
  one.dispatchEvent(new Event('input', {bubbles: true})); })(%s)"""
_SHOWN = "document.querySelector('[data-shown]').textContent"
EVIL = """<img src=x onerror="window.pwned=1">"><script>window.pwned=1</script>&lt;"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boards")
    (folder / "sent").mkdir()
    write(folder / "sent")
    write_leaderboard([folder / "sent"], LeaderboardConfig(out=str(folder / "board.html")))
    bad = folder / "bad" / "'onclick=alert(1) <b>&"
    bad.mkdir(parents=True)
    facts, rows = tokenizer(EVIL, 1.0, EVIL)
    rows = [one.model_copy(update={"condition": EVIL, "note": EVIL}) for one in rows]
    (bad / "javascript:alert(1)results.json").write_text(made((facts, rows)).json_text())
    (bad / "<script>results.json").write_text(f'{{"schema": "{EVIL[:20]}'.replace('"<', "<"))
    write_leaderboard(
        [folder / "bad"], LeaderboardConfig(out=str(folder / "evil.html"), title=EVIL)
    )
    return folder


@pytest.fixture
def page(browser, pages):
    """page(name, **how) -> the browser with a board open; afterwards it must have no complaint."""
    opened = []
    browser.console.clear()
    browser.requests.clear()

    def load(name="board.html", **how):
        opened.append((pages / name).as_uri())
        browser.open(pages / name, **how)
        return browser

    yield load
    assert browser.console == []
    fetched = {url for url in browser.requests if not url.startswith("data:")}
    assert fetched == set(opened)


def test_mismatching_rows_are_never_ranked_together(page):
    browser = page()
    first, *others = browser.run(_TABLES % "rfid")
    assert [row[:2] for row in first[:3]] == [
        ["1", "delta-vae"],
        ["2", "alpha-256"],
        ["2", "beta-b64"],
    ]
    # epsilon has the smallest number of all, by another crop; zeta by fewer images.
    assert {row[1] for row in first} == {"alpha-256", "beta-b64", "gamma-s128", "delta-vae"}
    assert sorted({row[1] for row in one} for one in others)  # each alone
    assert sorted(next(iter({row[1] for row in one})) for one in others) == [
        "epsilon-adm",
        "zeta-few",
    ]
    assert [row[0] for row in first if row[1] == "gamma-s128"] == ["–", "–"]  # contradictory
    guided = browser.run(_TABLES % "gfid")
    assert [[row[2] for row in one] for one in guided] == [["6.60", "7.50"], ["2.60‡", "3.50"]]


def test_columns_sort_by_click_and_by_key(page):
    browser = page()
    table = "document.querySelector('#metric-rfid table.board')"
    names = lambda: [row[1] for row in browser.run(_TABLES % "rfid")[0]]
    place = browser.run(
        f"[...{table}.querySelectorAll('thead button')].findIndex(b => b.textContent === 'bits')"
    )
    button = f"{table}.querySelectorAll('thead button')[{place}]"
    browser.run(f"{button}.click()")
    assert names()[-2:] == ["delta-vae"] * 2  # continuous last, either way
    browser.run(f"{button}.focus()")
    browser.key("Enter", "Enter", 13)
    assert names()[0] == "alpha-256" and names()[-2:] == ["delta-vae"] * 2
    states = f"[...{table}.querySelectorAll('thead th')].map(t => t.getAttribute('aria-sort'))"
    assert browser.run(states).count("descending") == 1
    assert browser.run(states)[place] == "descending"
    browser.run(f"{table}.querySelectorAll('thead button')[1].click()")  # by name
    assert names() == sorted(names())
    browser.run(f"{table}.querySelectorAll('thead button')[0].click()")  # by rank
    assert [row[0] for row in browser.run(_TABLES % "rfid")[0]] == [
        "1", "2", "2", "4", "5", "6", "–", "–"
    ]  # fmt: skip


def test_filters_choose_rows_and_ranks_follow(page):
    browser = page()
    choose = lambda name, value: browser.run(_SET % repr([name, value]).replace("True", "true"))
    assert browser.run(_SHOWN) == "30 of 30 numbers"
    choose("most", "1000")  # bits: continuous tokens have none
    first, other, last = browser.run(_TABLES % "rfid")
    assert [row[:2] for row in first] == [
        ["1", "alpha-256"],
        ["2", "beta-b64"],
        ["–", "gamma-s128"],
    ]
    assert [one[0][0] for one in (other, last)] == ["–", "–"]  # nothing beside it
    choose("least", "800")
    assert [row[1] for row in browser.run(_TABLES % "rfid")[0]] == ["alpha-256"]
    browser.run("document.querySelector('.filters [type=reset]').click()")
    browser.run("new Promise(done => setTimeout(done))")
    assert browser.run(_SHOWN) == "30 of 30 numbers"
    choose("whole", True)
    assert len(browser.run(_TABLES % "rfid")[0]) == 4
    choose("license", "Apache-2.0")
    assert [row[1] for row in browser.run(_TABLES % "rfid")[0]] == [
        "delta-vae", "beta-b64", "gamma-s128"
    ]  # fmt: skip
    assert browser.run("document.querySelector('#metric-gfid').hidden")
    assert browser.run("document.querySelector('nav a[href=\"#metric-gfid\"]').hidden")
    choose("license", "")
    choose("media", "clips")
    assert browser.run(_TABLES % "rfid") == [] and len(browser.run(_TABLES % "rfvd")) == 1
    choose("media", "")
    choose("search", "BETA apache")
    assert browser.run(_TABLES % "rfid") == [[["–", "beta-b64", "1.04"]]]
    choose("search", "no such model")
    assert browser.run(_SHOWN) == "0 of 30 numbers"
    assert browser.run("document.querySelector('[data-none]').offsetHeight") > 0


def test_names_are_text(page):
    browser = page("evil.html")
    assert browser.run("window.pwned") is None
    assert browser.run("document.querySelectorAll('script').length") == 1
    assert browser.run("document.querySelectorAll('img, main b, [onclick], [onerror]').length") == 0
    name = browser.run("document.querySelector('table.board tbody .run').textContent")
    assert name == EVIL
    assert browser.run("document.querySelector('h1').textContent") == EVIL
    assert browser.run("document.title") == EVIL
    options = browser.run("[...document.querySelectorAll('option')].map(o => o.textContent)")
    assert any(one.startswith("<img src=x") for one in options)
    schemes = browser.run("[...new Set([...document.querySelectorAll('a')].map(a => a.protocol))]")
    assert schemes == ["file:"]
    listed = browser.run("[...document.querySelectorAll('.files a')].map(a => a.textContent)")
    assert len(listed) == 2 and all("'onclick=alert(1) <b>&/" in one for one in listed)


@pytest.mark.parametrize("width", [1300, 500, 390])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["board.html", "evil.html"])
def test_every_width_and_theme(page, tmp_path, name, width, dark):
    browser = page(name, width=width, dark=dark)
    browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert browser.run("document.documentElement.scrollWidth") <= width
    shot = Image.open(browser.shot(tmp_path / "shot.png")).convert("L")
    color = shot.crop((0, 0, width, 120)).resize((1, 1)).tobytes()[0]
    assert (color < 80) if dark else (color > 200)


def test_the_model_stays_while_a_table_scrolls(page):
    browser = page(width=390)
    cell = "document.querySelector('#metric-rfid tbody th').getBoundingClientRect().x"
    before = browser.run(cell)
    browser.run("document.querySelector('#metric-rfid .scroll').scrollLeft = 200")
    assert abs(browser.run(cell) - before) < 0.5


def test_without_scripts_everything_is_there(page):
    browser = page(scripts=False)
    assert browser.html().count("<tr data-row") == 30
    assert browser.seen("[data-row]") == 30 and browser.seen(".filters") == 0


def test_every_control_has_a_name(page):
    browser = page()
    bare = """[...document.querySelectorAll('input, select, button, a')].filter(
      one => !(one.labels?.length || one.textContent.trim())).length"""
    assert browser.run(bare) == 0
    levels = browser.run(
        "[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and max(b - a for a, b in pairwise(levels)) == 1
