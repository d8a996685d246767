"""Damaged tokens: the draws, what each damage does, and the same numbers for any batch."""

import pytest
import torch

from tests.support.eval_tokenizers import PatchTokenizer
from vistok.core.rng import Rng
from vistok.eval.protocols import robust
from vistok.eval.protocols.common import codes_of_others
from vistok.eval.report.tables import summary
from vistok.eval.results.rows import Results
from vistok.tokens import TokenSpec

pytestmark = pytest.mark.filterwarnings("ignore:Fréchet")


@pytest.fixture
def run(measure):
    return lambda context: measure(context, "robust")


SHARES = (0.0, 0.125, 0.25, 0.5, 0.75)


def by_damage(rows, metric="PSNR"):
    return {
        (row.point["damage"], row.point["share"]): row.value for row in rows if row.metric == metric
    }


def test_bit_flips():
    spec = TokenSpec(blocks=((32,),), vocab=(16, 5), dim=2)
    index, size = torch.arange(200), torch.tensor(spec.vocab)
    clean = Rng(0, "x").integers(index, 5, (32, 2))
    same, counts = robust.flip_bits(spec, clean, index, 0.0, 0)
    assert torch.equal(same, clean) and counts.tolist() == [0, 200 * 32 * 7, 0, 200 * 32 * 2]
    some, counts = robust.flip_bits(spec, clean, index, 0.05, 0)
    assert counts[0] / counts[1] == pytest.approx(0.05, rel=0.05)
    assert (some >= 0).all() and (some < size).all()
    more, _ = robust.flip_bits(spec, clean, index, 0.2, 0)
    moved = some != clean  # a larger share flips the same bits and more
    assert ((more != clean) | ~moved).float().mean() > 0.99
    whole, counts = robust.flip_bits(spec, clean, index, 1.0, 0)
    assert counts[0] == counts[1]
    assert torch.equal(whole[..., 0], 15 - clean[..., 0])  # all four bits
    assert torch.equal(whole[..., 1], (7 - clean[..., 1]) % 5)  # 5, 6, 7 leave the codebook
    assert counts[2] == ((7 - clean[..., 1]) >= 5).sum()
    part, _ = robust.flip_bits(spec, clean[50:60], index[50:60], 0.05, 0)
    assert torch.equal(part, some[50:60])
    assert not torch.equal(robust.flip_bits(spec, clean, index, 0.05, 1)[0], some)


def test_lost_positions():
    spec = TokenSpec(blocks=((8,),), vocab=(4,), dim=1)
    assert robust.losses(spec, SHARES) == [0, 1, 2, 4, 6]
    assert robust.losses(spec.model_copy(update={"blocks": ((1,),)}), SHARES) == [0]
    tail = robust.lost_positions(spec, robust.Damage("drop_tail", 0.25), 2)
    head = robust.lost_positions(spec, robust.Damage("drop_head", 0.25), 2)
    assert tail.tolist() == [False] * 6 + [True] * 2 and head.tolist() == [True] * 2 + [False] * 6


def test_codes_of_others():
    codes = torch.arange(5)[:, None, None].expand(5, 3, 1) * 10 + torch.arange(3)[:, None]
    index = torch.arange(5)
    drawn = codes_of_others(codes, index, Rng(0, "x"))
    assert (drawn // 10 != index[:, None, None]).all()  # of another image
    assert torch.equal(drawn % 10, codes % 10)  # at the same position
    assert torch.equal(codes_of_others(codes, index[2:4], Rng(0, "x")), drawn[2:4])
    two = codes_of_others(codes[:2], index[:2], Rng(0, "x"))
    assert torch.equal(two, codes[:2].flip(0))


@pytest.mark.parametrize("missing", ["mask_token", "drop"])
def test_tail_loss_is_a_prefix(context, measure, run, make_tokenizer, missing):
    found = context(make_tokenizer("fsq", missing))
    rows = run(found)
    lost = by_damage(rows)
    rfid = measure(found, "rfid")
    kept = {row.length: row.value for row in rfid if row.metric == "PSNR"}
    assert lost["drop_tail", 0.0] == lost["bit_flip", 0.0] == kept[4]
    assert lost["drop_tail", 0.5] == pytest.approx(kept[2], rel=1e-6)
    assert lost["drop_tail", 0.75] == pytest.approx(kept[1], rel=1e-6)
    assert lost["drop_head", 0.5] != lost["drop_tail", 0.5]
    text = summary(Results(rows=tuple(rows), runs=(), facts={}))
    (line,) = [one for one in text.splitlines() if "drop_tail 50.0%" in one]
    assert line.split()[-3].rstrip("†") == f"{lost['drop_tail', 0.5]:.2f}"
    head = next(r for r in rows if r.point == {"damage": "drop_head", "share": 0.5})
    assert "2 of 4 tokens lost, the first ones; the decoder is told" in head.note
    flip = next(r for r in rows if r.point == {"damage": "bit_flip", "share": 0.05})
    assert "of the code bits flipped" in flip.note and "modulo" in flip.note


def test_damage_grows_and_lost_tokens_are_replaced(context, run):
    tokenizer = PatchTokenizer(16)
    fixed = PatchTokenizer.spec(tokenizer).model_copy(update={"prefix": "none"})
    tokenizer.spec = lambda: fixed
    rows = run(context(tokenizer, count=48, batch=48))
    for kind in ("bit_flip", "drop_tail", "drop_head"):
        values = [value for (k, _), value in by_damage(rows).items() if k == kind]
        assert len(values) == 5 and values == sorted(values, reverse=True), kind
        assert values[0] > values[-1] + 1
    note = next(r.note for r in rows if r.point == {"damage": "drop_tail", "share": 0.25})
    assert "16 of 64 tokens lost, the last ones; replaced by the codes of other images" in note


def test_batch_size_changes_nothing(context, run):
    tokenizer = PatchTokenizer(8)
    fixed = PatchTokenizer.spec(tokenizer).model_copy(update={"prefix": "none"})
    tokenizer.spec = lambda: fixed
    one, two = run(context(tokenizer)), run(context(tokenizer, batch=7))
    assert [row.note for row in one] == [row.note for row in two]
    for a, b in zip(one, two, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-6)


def test_continuous_tokens_are_skipped(context, run):
    tokenizer = PatchTokenizer(8)
    spec = PatchTokenizer.spec(tokenizer).model_copy(update={"vocab": ()})
    tokenizer.spec = lambda: spec
    found = context(tokenizer)
    assert run(found) == [] and "continuous" in found.skipped[0]["reason"]
