"""Clips in the report play: animated WebP inside the page, stopped by a button, smaller when a page
is too long; charts over time."""

import base64
import io

import pytest
import torch
from PIL import Image

from tests.support.eval_browser import Browser, chromium
from tests.support.eval_results import made
from vistok.eval.report import page_size
from vistok.eval.report.page import write_report
from vistok.eval.report.time_charts import time_charts
from vistok.eval.results.rows import Results
from vistok.eval.strips import grid, strip

_DECODED = """(async () => {
  const image = document.querySelector('#reconstructions img[data-moving]');
  await image.decode();
  const data = await (await fetch(image.src)).arrayBuffer();
  const decoder = new ImageDecoder({ data, type: 'image/webp', preferAnimation: true });
  await decoder.tracks.ready;
  return [decoder.tracks.selectedTrack.frameCount, image.naturalWidth, image.naturalHeight];
})()"""
_SOON = "new Promise(done => setTimeout(done, 400))"


def ramp(count=5, size=16):
    """[2, 3, T, H, W] uint8: clips that grow brighter."""
    levels = torch.linspace(0, 255, count).to(torch.uint8)
    return levels[None, None, :, None, None].expand(2, 3, count, size, size).contiguous()


def frames_of(uri):
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    found = []
    for place in range(image.n_frames):
        image.seek(place)
        image.load()
        found.append((image.convert("RGB").getpixel((0, 0))[0], image.info["duration"]))
    return image.size, found


def clip_results():
    """Results of one run with a grid of clips and a curve over their frames."""
    results = made(1)
    (name,) = [run["name"] for run in results.runs][:1]
    rows = [("original", ramp()), ("16 tokens", ramp() // 2)]
    made_grid = grid("reconstructions", name, rows, ["a", "b"], [{}, {"tokens": 16}], 10)
    facts = {**results.facts, "image_grids": [made_grid]}
    first = results.find("PSNR")[0]
    changed = lambda t: {"metric": "PSNR-cell", "value": 20.0 + t, "point": {"frame": t}}
    curve = tuple(first.model_copy(update=changed(t)) for t in range(5))
    return results.model_copy(update={"facts": facts, "rows": (*results.rows, *curve)})


def test_a_strip_of_clips_holds_every_frame():
    size, found = frames_of(strip(ramp(), 10))
    assert size == (32, 16) and [level for _, level in found] == [100] * 5
    assert [level for level, _ in found] == pytest.approx([0, 63, 127, 191, 255], abs=3)
    assert strip(ramp()[:, :, 0]).startswith("data:image/png")
    assert strip(ramp()[:, :, :1]).startswith("data:image/png")  # one frame has nothing to play


def test_clips_made_smaller_still_play():
    small = page_size._again(strip(ramp(size=64), 10), 2, 1, (16, 16), 60)
    size, found = frames_of(small)
    assert size == (16, 16) and len(found) == 5 and found[0][1] == 100


def test_the_chart_over_time_counts_frames_from_one():
    (chart,) = time_charts(clip_results())
    assert "PSNR (dB) at each frame" in chart and "at 1: 20.00" in chart and "at 5: 24.00" in chart
    assert time_charts(Results()) == []


@pytest.mark.slow
def test_clips_play_in_a_browser(tmp_path):
    chromium()
    write_report(clip_results(), tmp_path / "report.html")
    with Browser(tmp_path / "profile") as browser:
        browser.open(tmp_path / "report.html")
        assert browser.run(_DECODED) == [5, 32, 16]
        box = browser.run(
            "(r => [r.x + scrollX + 4, r.y + scrollY + 4, 8, 8])(document.querySelector("
            "'#reconstructions img[data-moving]').getBoundingClientRect())"
        )
        shots = []
        for _ in range(4):
            shots.append(browser.picture(box))
            browser.run("new Promise(done => setTimeout(done, 130))")
        assert len(set(shots)) > 1
        browser.run("document.querySelector('[data-play]').click()")
        browser.run(_SOON)
        still = browser.picture(box)
        browser.run(_SOON)
        assert browser.picture(box) == still
        button = "document.querySelector('[data-play]').textContent"
        assert browser.run(button) == "play the clips"
        browser.run("document.querySelector('[data-play]').click()")
        assert browser.run(button) == "stop the clips" and browser.run(_DECODED)[0] == 5
        assert browser.console == []
        assert {url for url in browser.requests if not url.startswith("data:")} == {
            (tmp_path / "report.html").as_uri()
        }
