"""TokBench's protocol with readers of the test's own, on images whose answers are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.eval_tokenizers import PatchTokenizer, PixelTokenizer
from tests.support.tokbench import ColorReader, MeanReader, word_image, write_bench
from vistok.core.errors import UserError
from vistok.eval.config import PROTOCOLS
from vistok.eval.jobs import do
from vistok.eval.measure import evaluate
from vistok.eval.report.page import write_report
from vistok.eval.report.tables import special_tables
from vistok.eval.tokbench.readers import FACE_READERS, TEXT_READERS

SIDE = 32
EDGES = "[0.1,0.2,0.3,1]"
LOW, MIDDLE, HIGH = 0.1, 0.2, 0.5
TALL, FLAT = (0, 0, 16, 8), (4, 20, 20, 28)
FIVE = [[3, 3], [5, 3], [4, 4], [3, 5], [5, 5]]


@pytest.fixture
def bench(tmp_path):
    """Five words and three faces in images of the square's own side, which nothing resizes."""
    text = [
        ("a.png", (SIDE, SIDE), [("abcd", "abcd", TALL, LOW), ("hhaa", "hhab", FLAT, MIDDLE)]),
        ("b.png", (SIDE, SIDE), [("dcba", "dcba", TALL, HIGH), ("aaaa", "bbbbb", FLAT, LOW)]),
        ("c.png", (SIDE, SIDE), [("gfed", "gfed", FLAT, 0.05)]),
    ]
    color = lambda *rgb: Image.new("RGB", (SIDE, SIDE), rgb)
    faces = [
        ("x.png", color(200, 0, 0), [(FIVE, LOW), (FIVE, MIDDLE)]),
        ("y.png", color(0, 90, 90), [(FIVE, HIGH)]),
    ]
    return write_bench(tmp_path / "bench", text, faces)


@pytest.fixture
def readers(monkeypatch):
    """The stubs by name; the reader of text, which keeps what it was asked."""
    text = ColorReader()
    monkeypatch.setitem(TEXT_READERS, "stub", lambda weights, device: text)
    monkeypatch.setitem(FACE_READERS, "stub", lambda weights, device: MeanReader())
    return text


@pytest.fixture
def run(context, config, bench, readers):
    """run(tokenizer, "key=value", ...) -> the outcome of both parts."""

    def make(tokenizer, *overrides, batch=16):
        own = [f"tokbench.path={bench}", "tokbench.text_reader=stub", "tokbench.face_reader=stub"]
        own += ["tokbench.sets=[ic13]", f"tokbench.text_edges={EDGES}"]
        chosen = config(*own, f"tokbench.face_edges={EDGES}", *overrides)
        jobs = PROTOCOLS["tokbench"].jobs(None, chosen)
        return [do(job, context(tokenizer, batch=batch)) for job in jobs]

    return make


def values(outcomes):
    """{(metric, group or "mean"): value}"""
    rows = [row for one in outcomes for row in one.rows]
    return {(row.metric, row.point.get("group", "mean")): row.value for row in rows}


class Darker(PixelTokenizer):
    """Decodes red at half."""

    def decode(self, tokens):
        return super().decode(tokens) * torch.tensor([0.5, 1.0, 1.0]).view(3, 1, 1)


def test_exact_reconstructions_are_read_as_they_are(run):
    found = values(run(PixelTokenizer(SIDE)))
    # abcd is right; aaaa is read where bbbbb is meant: 5 edits of 5 letters.
    assert found["T-ACC", "0.1-0.2"] == 0.5 and found["T-NED", "0.1-0.2"] == 0.5
    assert found["T-ACC", "0.2-0.3"] == 0.0 and found["T-NED", "0.2-0.3"] == 0.75
    assert found["T-ACC", "0.3-1"] == found["T-NED", "0.3-1"] == 1.0
    assert found["T-ACC", "mean"] == pytest.approx(0.5)
    assert found["T-NED", "mean"] == pytest.approx(0.75)
    similar = {group: v for (name, group), v in found.items() if name == "F-Sim"}
    assert similar == pytest.approx(dict.fromkeys(("0.1-0.2", "0.2-0.3", "0.3-1", "mean"), 1.0))


def test_what_is_measured_beside_a_number(run):
    text, faces = run(PixelTokenizer(SIDE))
    *groups, mean = [row for row in text.rows if row.metric == "T-ACC"]
    assert [row.count for row in groups] == [2, 1, 1] and mean.count == 4
    assert "(2, 1, 1 words)" in mean.note and "1 of 5 words are in no group" in mean.note
    assert mean.measured == {"resized": mean.value, "every word": 3 / 5}
    assert [row.measured for row in groups] == [{"resized": row.value} for row in groups]
    assert mean.features.name == "stub-colors" and mean.size == (SIDE, SIDE)
    assert mean.reference.name == "TokBench" and mean.reference.count == 3
    assert mean.display == "T-ACC[stub-colors, TokBench]" and mean.plain and not groups[0].plain
    assert "path" not in mean.setting and mean.setting["stored"] == "published"
    assert mean.setting["sets"] == ["ic13"] and mean.condition == "none"
    assert mean.setting["face_edges"] is None and faces.rows[0].setting["text_edges"] is None
    assert "terms of the stub" in faces.rows[-1].note and faces.rows[-1].reference.count == 2


def test_a_damaged_reconstruction_against_its_resized_twin(run):
    """Half the red: abcd (16, 48, 80, 112) is read as aabb, which takes 3 edits; aaaa stays."""
    outcomes = run(Darker(SIDE))
    found = values(outcomes)
    assert found["T-ACC", "0.1-0.2"] == 0.0 and found["T-NED", "0.1-0.2"] == 0.125
    row = next(row for row in outcomes[0].rows if row.metric == "T-NED" and row.plain)
    assert row.measured["resized"] == pytest.approx(0.75) and row.value < 0.5
    # (100, 0, 0) and (200, 0, 0) are one direction; so are the faces without red.
    assert found["F-Sim", "mean"] == pytest.approx(1.0)


def test_faces_are_compared_with_the_original(run):
    class NoRed(PixelTokenizer):
        def decode(self, tokens):
            return (super().decode(tokens) + 0.4).clamp(0, 1)

    outcomes = run(NoRed(SIDE), "tokbench.parts=[faces]")
    found = values(outcomes)
    lifted = np.array([255.0, 102.0, 102.0])
    expected = lifted[0] / np.linalg.norm(lifted)
    assert found["F-Sim", "0.1-0.2"] == pytest.approx(expected)
    assert outcomes[0].rows[-1].measured["resized"] == pytest.approx(1.0)


def test_a_similarity_that_is_none_is_said(run, bench):
    """A vector of 0 has no angle: no number, and no error."""
    black = Image.new("RGB", (SIDE, SIDE))
    write_bench(bench, [], [("x.png", black, [(FIVE, s) for s in (LOW, MIDDLE, HIGH)])])
    (outcome,) = run(PixelTokenizer(SIDE), "tokbench.parts=[faces]")
    assert {(row.value, row.not_finite) for row in outcome.rows} == {(None, "nan")}
    assert all(not row.measured for row in outcome.rows)


def test_batches_change_nothing(run):
    one = values(run(PatchTokenizer(SIDE)))
    two = values(run(PatchTokenizer(SIDE), batch=2))
    assert one == two and one["T-ACC", "mean"] is not None


def test_every_length(run):
    (text,) = run(PatchTokenizer(SIDE), "tokbench.parts=[text]", "tokbench.every_length=true")
    means = {row.length: row.value for row in text.rows if row.metric == "T-NED" and row.plain}
    lengths = PatchTokenizer(SIDE).spec().eval_lengths
    assert list(means) == list(lengths) and len(lengths) > 2
    # With few tokens the lower word of each image is black, which reads "aaaa".
    assert means[lengths[0]] < means[lengths[-1]]
    (only,) = {row.length for row in run(PatchTokenizer(SIDE))[0].rows}
    assert only == max(lengths)


def test_readers_are_told_the_longest_word_of_64(run, readers):
    run(PixelTokenizer(SIDE), "tokbench.parts=[text]")
    assert {longest for _, longest in readers.asked} == {5}
    assert (8, 16, 3) in {shape for shape, _ in readers.asked}
    readers.asked.clear()
    run(PixelTokenizer(SIDE), "tokbench.parts=[text]", "tokbench.limited=false")
    assert {longest for _, longest in readers.asked} == {None}


def test_64_words_with_a_letter_that_is_unknown_are_left_out(run, bench):
    words = [("abcd", "abcd", TALL, MIDDLE)] * 63
    text = [
        ("a.png", (SIDE, SIDE), [*words, ("abcd", "abcé", TALL, LOW)]),
        ("b.png", (SIDE, SIDE), [("abcd", "abcd", TALL, s) for s in (LOW, MIDDLE, HIGH)]),
    ]
    write_bench(bench, text, [])
    (outcome,) = run(PixelTokenizer(SIDE), "tokbench.parts=[text]")
    assert {row.value for row in outcome.rows} == {1.0}
    assert "64 words with or beside letters" in outcome.rows[-1].note
    assert outcome.rows[-1].count == 3
    (outcome,) = run(PixelTokenizer(SIDE), "tokbench.parts=[text]", "tokbench.limited=false")
    assert values([outcome])["T-ACC", "0.1-0.2"] == 0.5 and outcome.rows[-1].count == 67


def test_a_file_of_jpeg_is_written_and_read(run, bench):
    """Quarters a pixel wide lose their colors in JPEG."""
    words = [
        ("ahah", "ahah", (i * 8, 2, i * 8 + 4, 4), s) for i, s in enumerate((LOW, MIDDLE, HIGH))
    ]
    write_bench(bench, [("a.jpg", (SIDE, SIDE), words)], [])
    exact = word_image([("ahah", box) for _, _, box, _ in words], (SIDE, SIDE))
    exact.save(bench / "images" / "text_data" / "ic13" / "a.jpg", "PNG")
    found = {
        stored: values(
            run(PixelTokenizer(SIDE), "tokbench.parts=[text]", f"tokbench.stored={stored}")
        )
        for stored in ("published", "exact")
    }
    assert found["published"]["T-NED", "mean"] < found["exact"]["T-NED", "mean"] == 1.0


def test_an_empty_group_is_said(run, bench):
    write_bench(bench, [("a.png", (SIDE, SIDE), [("abcd", "abcd", TALL, LOW)])], [])
    (outcome,) = run(PixelTokenizer(SIDE), "tokbench.parts=[text]")
    assert values([outcome]) == {("T-ACC", "0.1-0.2"): 1.0, ("T-NED", "0.1-0.2"): 1.0}
    reasons = {one["protocol"]: one["reason"] for one in outcome.skipped}
    assert reasons["T-ACC, 0.3-1"] == "no words of that size; no mean either"
    assert len(reasons) == 4


def test_tokenizers_that_cannot_take_the_images(run):
    class Wide(PixelTokenizer):
        def __init__(self):
            super().__init__(SIDE)
            self.shape.sides = (SIDE, 2 * SIDE)

    class Reads(PixelTokenizer):
        def __init__(self):
            super().__init__(SIDE)
            self.config.text = "clip"
            self.config.reading = {"decoder": SimpleNamespace(optional=False)}

    wide, reads = run(Wide()), run(Reads())
    assert [one.rows for one in (*wide, *reads)] == [()] * 4
    assert "this tokenizer takes 32x64" in wide[0].skipped[0]["reason"]
    assert "the tokenizer reads text" in reads[1].skipped[0]["reason"]


def test_sides_without_published_groups_are_said(run):
    outcomes = run(PixelTokenizer(SIDE), "tokbench.text_edges=null", "tokbench.face_edges=null")
    assert [one.rows for one in outcomes] == [(), ()]
    reason = outcomes[0].skipped[0]["reason"]
    assert reason == (
        "no published groups for images of 32 pixels, but for 256, 512, 1024; give "
        "tokbench.text_edges"
    )


def test_mistakes_show_before_any_work(run, config, bench):
    with pytest.raises(UserError, match=r"tokbench\.path: not given"):
        PROTOCOLS["tokbench"].jobs(None, config())
    with pytest.raises(UserError, match="no folder 'annotations'"):
        run(PixelTokenizer(SIDE), f"tokbench.path={bench / 'images'}")
    with pytest.raises(UserError, match=r"text_edges: got .* two or more ascending numbers"):
        run(PixelTokenizer(SIDE), "tokbench.text_edges=[0.3,0.2]")
    (bench / "images" / "face_data" / "wflw" / "x.png").unlink()
    with pytest.raises(UserError, match=r"x\.png: no such image"):
        run(PixelTokenizer(SIDE))


def test_a_whole_evaluation_and_its_cache(runs, config, bench, readers, tmp_path):
    own = [f"tokbench.path={bench}", "tokbench.text_reader=stub", "tokbench.face_reader=stub"]
    own += ["tokbench.sets=[ic13]", f"tokbench.text_edges={EDGES}", f"tokbench.face_edges={EDGES}"]
    chosen = config("protocols=[tokbench]", "limit=12", f"cache={tmp_path / 'cache'}", *own)
    first = evaluate([runs[0]], chosen)
    assert {row.metric for row in first.rows} == {"T-ACC", "T-NED", "F-Sim"}
    assert {row.size for row in first.rows} == {(8, 8)} and not first.facts["skipped"]
    readers.asked.clear()
    again = evaluate([runs[0]], chosen)
    assert again.rows == first.rows and not readers.asked
    image = bench / "images" / "text_data" / "ic13" / "a.png"
    Image.new("RGB", (SIDE, SIDE), (9, 9, 9)).save(image)
    assert evaluate([runs[0]], chosen).rows != first.rows and readers.asked

    write_report(first, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "text accuracy" in page and "face similarity" in page and "0.1-0.2" in page
    header, body = special_tables(first)[0]
    assert header == ["relative size", *dict.fromkeys(r.display for r in first.rows)]
    assert [line[0] for line in body] == [f"tok @4 {g}" for g in ("0.1-0.2", "0.2-0.3", "0.3-1")]
