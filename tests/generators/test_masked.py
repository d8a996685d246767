"""The masked generator: its loss, its metrics, its steps, and both trunks."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vistok.config import validate
from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.generators.masked import Masked, MaskedConfig
from vistok.generators.noise import uniform_on
from vistok.generators.orders import mask_of
from vistok.generators.unmasking import (
    MaskedSampling,
    StepNoise,
    choose_codes,
    count_masked,
    gumbel,
    least_sure,
)
from vistok.layers import attention
from vistok.runtime import distributed
from vistok.tokens import Tokens, TokenSpec

TRUNKS = {
    "bert": {"kind": "bert", "width": 16, "depth": 2, "heads": 2},
    "uvit": {"kind": "uvit", "width": 16, "depth": 4, "heads": 2, "attention_fp32": True},
}
LABELS = torch.tensor([0, 1, 1])


def make(trunk="bert", vocab=(6,), length=5, prefix="none", lively=True, **options) -> Masked:
    """A generator whose weights all have an influence."""
    torch.manual_seed(2)
    tree = {"trunk": TRUNKS[trunk], "condition": {"classes": 2}, **options}
    spec = TokenSpec(blocks=((length,),), vocab=vocab, prefix=prefix)
    model = Masked(validate(MaskedConfig, tree), spec)
    with torch.no_grad():
        for parameter in model.parameters() if lively else ():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def tokens_of(model: Masked, count: int = 3) -> Tokens:
    generator = torch.Generator().manual_seed(0)
    size = (count, model.spec.length)
    codes = [torch.randint(v, size, generator=generator) for v in model.spec.vocab]
    return Tokens.of(model.spec, torch.stack(codes, -1))


def masked(*rows) -> Draws:
    """Draws of some masks; nobody loses the class."""
    mask = torch.tensor(rows) > 0
    return Draws(null=torch.zeros(len(mask)) > 0, parts={"generator": PartDraws(mask=mask)})


def sample(model: Masked, condition=None, seed: int = 0, **changes) -> torch.Tensor:
    condition = Condition(label=LABELS) if condition is None else condition
    return model.sample(condition, index=torch.arange(3), seed=seed, sampling=changes).indices


@pytest.fixture(params=TRUNKS)
def trunk(request):
    return request.param


# -- training --------------------------------------------------------------------------------------


def test_masks_by_hand():
    u = torch.tensor([0.0, 0.5, 0.9999])
    noise = torch.tensor([[0.4, 0.1, 0.3, 0.2]]).expand(3, -1)
    # argsort is 1, 3, 2, 0: the numbers below the count are masked; 4 2/3 rounds to 3.
    expected = [[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 0, 1]]
    assert mask_of(u, noise).long().tolist() == expected


def test_the_loss_by_hand():
    model = make(vocab=(4, 3), label_smoothing=0.2, unmasked_weight=0.25)
    tokens, condition = tokens_of(model, 2), Condition(label=LABELS[:2])
    rows = [[1, 1, 0, 0, 0], [0, 0, 0, 0, 1]]
    found = model(tokens, condition, masked(*rows))
    codes, mask = tokens.indices.long(), torch.tensor(rows) > 0
    logits = model.logits(codes, mask, condition)
    total, right = 0.0, []
    for b in range(2):
        hits = []
        for i in range(5):
            weight = 1.0 if rows[b][i] else 0.25
            for f, size in enumerate((4, 3)):
                log = logits[f][b, i].log_softmax(-1)
                smooth = 0.8 * F.one_hot(codes[b, i, f], size) + 0.2 / size
                total -= weight * (log * smooth).sum().item()
                if rows[b][i]:
                    hits.append(float(log.argmax() == codes[b, i, f]))
        right.append(sum(hits) / len(hits))
    weights = 3 + 7 * 0.25
    assert found["loss"].item() == pytest.approx(total / weights, rel=1e-5)
    assert found["masked_accuracy"].item() == pytest.approx(sum(right) / 2, abs=1e-6)


def test_weights_add_up_over_processes(monkeypatch):
    """A process with few masked positions counts less than one with many."""
    model = make()
    tokens = tokens_of(model, 2)
    rows = [[1, 1, 1, 1, 1], [0, 1, 0, 0, 0]]
    label = Condition(label=LABELS[:2])
    whole = model(tokens, label, masked(*rows))["loss"]
    weights = [5.0, 1 + 4 * 0.1]
    monkeypatch.setattr(distributed, "mean", lambda own: torch.tensor(sum(weights) / 2))
    parts = [
        model(tokens.select([b]), label.select([b]), masked(rows[b]))["loss"] for b in range(2)
    ]
    assert sum(parts).item() / 2 == pytest.approx(whole.item(), rel=1e-5)


def test_masked_codes_are_not_seen(trunk):
    model = make(trunk)
    tokens, label = tokens_of(model), Condition(label=LABELS)
    mask = torch.tensor([[1, 0, 1, 0, 0]] * 3) > 0
    codes = tokens.indices.long()
    other = torch.where(mask[..., None], (codes + 1) % 6, codes)
    one, two = (model.logits(given, mask, label)[0] for given in (codes, other))
    assert torch.equal(one, two)
    seen = model.logits((codes + 1) % 6, mask, label)[0]
    assert (seen - one).abs().amax((1, 2)).min() > 1e-3


def test_a_cut_sequence_is_a_shorter_one(trunk):
    """What lies behind a prefix has no influence, and no share in loss and metrics."""
    model = make(trunk, prefix="token")
    label, rows = Condition(label=LABELS), [[1, 0, 1, 1, 0]] * 3
    cut = tokens_of(model).prefix(3)
    filled = replace(cut, indices=cut.indices + (~cut.kept())[..., None].to(cut.indices))
    losses = [model(one, label, masked(*rows))["loss"].item() for one in (cut, filled)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    sums = [float(model.evaluate(one, label)["masked_nll"][0]) for one in (cut, filled)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)  # masks are those of its own codes
    codes, mask = cut.indices.long(), torch.tensor(rows) > 0
    nats = model._nats(model.logits(codes, mask & cut.kept(), label, seen=cut.kept()), codes, 0.1)
    weight = torch.tensor([1.0, 0.1, 1.0, 0.0, 0.0])
    expected = (nats * weight).sum() / (3 * 2.1)
    assert model(cut, label, masked(*rows))["loss"].item() == pytest.approx(expected.item())
    assert model.evaluate(cut, label)["masked_nll"][1] == 3 * 3 * 8


def test_metrics_start_from_uniform_codes():
    model = make(vocab=(6, 3), lively=False)
    found = model.evaluate(tokens_of(model), Condition(label=LABELS))
    total, count = found["masked_nll"]
    assert float(total) / count == pytest.approx(math.log(18), rel=1e-6)
    without_draws = model(tokens_of(model), Condition(label=LABELS))
    assert without_draws["loss"].item() == pytest.approx(math.log(18), rel=1e-6)


def test_the_metric_bounds_the_likelihood_of_a_random_order():
    """With L = 2 all masks can be gone through: the mean over numbers and places of masks of the
    mean over masked positions is the likelihood of a random order, from above."""
    model = make(length=2)
    tokens, label = tokens_of(model, 200), Condition()
    codes = tokens.indices.long()
    nats = lambda *row: model._nats(
        model.logits(codes, torch.tensor([row] * 200) > 0, label), codes
    )
    both, first, second = nats(1, 1), nats(1, 0), nats(0, 1)
    bound = (both.mean(1) + (first[:, 0] + second[:, 1]) / 2) / 2
    orders = torch.stack([both[:, 0] + second[:, 1], both[:, 1] + first[:, 0]])
    assert torch.allclose(bound * 2, orders.mean(0), atol=1e-5)
    likelihood = -(torch.logsumexp(-orders, 0) - math.log(2)).mean() / 2
    total, count = model.evaluate(tokens, label)["masked_nll"]
    assert float(total) / count == pytest.approx(bound.mean().item(), abs=0.05)
    assert bound.mean() >= likelihood


# -- steps of the sampler --------------------------------------------------------------------------


def test_numbers_of_masked_positions_by_hand():
    length = torch.tensor([16, 5])
    counts = lambda schedule: [
        count_masked(length, step, MaskedSampling(steps=4, schedule=schedule)).tolist()
        for step in range(4)
    ]
    assert counts("arccos") == [[13, 4], [10, 3], [7, 2], [0, 0]]
    assert counts("cosine") == [[14, 4], [11, 3], [6, 1], [0, 0]]
    assert counts("linear") == [[12, 3], [8, 2], [4, 1], [0, 0]]


def test_the_least_sure_are_masked_again():
    sure = torch.tensor([[3.0, 1.0, 2.0, 0.0], [5.0, 5.0, 9.0, 1.0]])
    were = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]) > 0
    again = lambda *count: least_sure(sure, were, torch.tensor(count)).long().tolist()
    assert again(2, 1) == [[0, 1, 0, 1], [1, 1, 0, 0]]  # equals at the limit come along
    assert again(9, 9) == [[0, 1, 1, 1], [1, 1, 0, 0]]  # one less than before
    assert again(0, 0) == [[0, 0, 0, 1], [1, 1, 0, 0]]  # but at least one
    assert least_sure(sure, were & False, torch.tensor([1, 1])).sum() == 0


def test_choices_by_hand():
    logits = torch.tensor([[[1.0, 0.0, -1.0], [0.0, 0.2, 0.1]]])
    u = torch.tensor([[[0.5, 0.9, 0.1], [0.0, 0.5, 0.9]]])
    ranks = torch.tensor([[0.3, 0.8]])
    choose = lambda step, **settings: choose_codes(
        [logits], StepNoise(u, ranks), step, MaskedSampling(steps=2, **settings)
    )
    g, r = -(-u.log()).log(), -(-ranks.log()).log()
    assert torch.allclose(gumbel(u)[u > 0], g[u > 0])
    assert gumbel(torch.zeros(1)).isfinite().all()
    codes, sure = choose(0, noise=4.0, temperature=0.5, temperature_fall=0.8)
    warm = logits / 0.9
    expected = (warm + 2.0 * gumbel(u)).argmax(-1)
    assert torch.equal(codes[..., 0], expected)
    picked = warm.gather(-1, expected[..., None])[..., 0]
    assert torch.allclose(sure, picked + 2.0 * r)
    codes, sure = choose(1, noise=4.0, confidence="log_prob")  # no noise in the last step
    assert codes.flatten().tolist() == [0, 1]
    assert torch.allclose(sure, logits.log_softmax(-1).amax(-1))
    codes, _ = choose(1, noise=4.0, choice="categorical")
    assert torch.equal(codes[..., 0], (logits + gumbel(u)).argmax(-1))
    codes, _ = choose(0, noise=9.0, temperature=0.0, temperature_fall=0.8)
    assert codes.flatten().tolist() == [0, 1]
    codes, sure = choose(0, noise=9.0, choice="categorical", top_k=1)
    assert codes.flatten().tolist() == [0, 1] and sure.isfinite().all()


def test_numbers_made_on_the_device_are_keyed_and_uniform():
    rng, index = Rng(0, "a", 3), torch.arange(40)
    whole = uniform_on(torch.device("cpu"), rng, index, (50, 7))
    assert torch.equal(uniform_on(torch.device("cpu"), rng, index[[5, 9]], (50, 7)), whole[[5, 9]])
    other = uniform_on(torch.device("cpu"), Rng(0, "a", 4), index, (50, 7))
    assert not torch.equal(other, whole)
    assert whole.min() >= 0 and whole.max() < 1
    share = torch.histc(whole, 10, 0, 1) / whole.numel()
    assert (share - 0.1).abs().max() < 0.01  # 0.1 +- 0.0025
    pairs = torch.corrcoef(torch.stack([whole[..., :-1].flatten(), whole[..., 1:].flatten()]))
    assert pairs[0, 1].abs() < 0.03  # +- 0.009


# -- whole samples ---------------------------------------------------------------------------------


def test_guidance_one_is_no_guidance(trunk):
    model = make(trunk, sampling={"steps": 4, "noise": 2.0})
    plain = sample(model)
    assert torch.equal(sample(model, guidance=1.0, guidance_schedule="linear"), plain)
    assert torch.equal(sample(model, guidance=5.0, guidance_interval=[0.99, 1.0]), plain)
    assert not torch.equal(sample(model, guidance=5.0), plain)
    free = sample(model, Condition(null=torch.ones(3) > 0))
    assert torch.equal(sample(model, guidance=0.0), free)


def test_a_growing_guidance_is_none_in_its_first_step():
    model = make(sampling={"steps": 1, "noise": 2.0})
    grows = {"guidance": 9.0, "guidance_schedule": "linear"}
    assert torch.equal(sample(model, **grows), sample(model))
    later = sample(model, guidance_share="after", **grows)
    assert torch.equal(later, sample(model, guidance=9.0))


def test_steps_from_one_to_many(trunk):
    model = make(trunk)
    for steps in (1, 2, 5, 9):
        assert sample(model, steps=steps).max() < 6
    greedy = {"temperature": 0.0, "noise": 0.0}
    assert torch.equal(sample(model, **greedy), sample(model, seed=1, **greedy))


def test_the_distribution_of_one_position():
    """One position, sampled in one categorical step, has the distribution of the model."""
    model = make(length=1, vocab=(3,))
    settings = MaskedSampling(steps=2, choice="categorical", noise=0.0)
    count = 4000
    noise = lambda step: StepNoise(
        uniform_on(torch.device("cpu"), Rng(1, "n", step), torch.arange(count), (1, 3)),
        torch.zeros(count, 1),
    )
    with torch.no_grad():
        found = model.unmasked(Condition(), count, noise, settings).indices.flatten().long()
        codes, mask = torch.zeros(1, 1, 1, dtype=torch.long), torch.ones(1, 1) > 0
        expected = model.logits(codes, mask, Condition())[0].softmax(-1)[0, 0]
    share = torch.bincount(found, minlength=3) / count
    assert (share - expected).abs().max() < 0.03  # +- 0.008


def test_known_codes_shape_the_rest():
    model = make(length=6)
    for table in model.embed:  # or the codes weigh too little to change a choice
        table.weight.data.mul_(20)
    known = tokens_of(model)
    mask = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]) > 0
    given = Condition(label=LABELS, known=known, known_mask=mask)
    settings = {"steps": 4, "noise": 3.0, "temperature": 4.0}
    found = [sample(model, given, seed, **settings) for seed in range(6)]
    assert all(torch.equal(one[mask], known.indices[mask]) for one in found)
    other = replace(given, known=replace(known, indices=(known.indices + 1) % 6))
    changed = [sample(model, other, seed, **settings) for seed in range(6)]
    assert all(torch.equal(one[2], two[2]) for one, two in zip(found, changed, strict=True))
    assert not torch.equal(torch.stack(found)[:, 1, 2:], torch.stack(changed)[:, 1, 2:])


def test_a_vocabulary_in_parts(fails):
    whole = TokenSpec(blocks=((3,),), vocab=(2**18,))
    tree = {"trunk": TRUNKS["bert"], "condition": {"classes": 2}}
    with fails(ValueError, "softmax over 262144 codes is too wide", "regroup"):
        Masked(validate(MaskedConfig, tree), whole)
    model = Masked(validate(MaskedConfig, tree | {"regroup": [64, 4096]}), whole)
    assert model.summary()["vocabulary"] == "64 x 4096"
    found = model.sample(index=torch.arange(2), sampling={"steps": 2})
    assert found.check().spec == whole and found.indices.max() > 4096


def test_texts_stand_in_front(trunk):
    model = make(trunk, condition={"classes": 2, "text": {"dim": 4, "length": 3}, "pooled": 5})
    assert model.condition.front == 4
    text, pooled = torch.randn(3, 3, 4), torch.randn(3, 5)
    condition = Condition(label=LABELS, text=text, pooled=pooled)
    codes, mask = tokens_of(model).indices.long(), torch.ones(3, 5) > 0
    logits = model.logits(codes, mask, condition)[0]
    assert logits.shape == (3, 5, 6)
    for change in ({"text": text + 1 + text**2}, {"pooled": -pooled}, {"label": 1 - LABELS}):
        other = model.logits(codes, mask, replace(condition, **change))[0]
        assert (other - logits).abs().amax((1, 2)).min() > 1e-3


def test_tied_logits_are_products_with_the_embeddings():
    model = make(tied=True, vocab=(6, 4))
    assert model.head is None
    codes, mask = tokens_of(model).indices.long(), torch.ones(3, 5) > 0
    logits = model.logits(codes, mask, Condition(label=LABELS))
    assert [part.shape for part in logits] == [(3, 5, 6), (3, 5, 4)]
    with torch.no_grad():
        model.embed[1].weight[2] = 0.0
        assert (model.logits(codes, mask, Condition(label=LABELS))[1][..., 2] == 0).all()


def test_wrong_settings_are_one_line(fails):
    model = make()
    with fails(ValueError, "noise: got -1"):
        sample(model, noise=-1)
    with fails(ValueError, "temperature: got 1e-05; expected 0 .greedy. or 0.0001 or more"):
        sample(model, temperature=1e-5)
    with fails(ValueError, "trunk.kind: unknown kind 'berd'; did you mean 'bert'"):
        validate(MaskedConfig, {"trunk": {"kind": "berd"}})
    for option, value in (("layers", 2), ("textless", "ignored")):
        text = {"dim": 4, "length": 3, option: value}
        with fails(ValueError, f"trunk=bert reads all texts.*leave out condition.text.{option}"):
            make(condition={"text": text})
    with fails(ValueError, "width=16 must be a multiple of heads=3"):
        validate(MaskedConfig, {"trunk": TRUNKS["uvit"] | {"heads": 3}})


def test_attention_in_fp32_whatever_the_rest_is(monkeypatch):
    model, seen, attend = make("uvit"), [], attention.attend
    spy = lambda *given: (seen.append(given[0].dtype), attend(*given))[1]
    monkeypatch.setattr(attention, "attend", spy)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for exact in (True, False):
            block = model.trunk.middle.attention
            block.fp32 = exact
            block(torch.randn(2, 5, 16))
    assert seen == [torch.float32, torch.bfloat16]
