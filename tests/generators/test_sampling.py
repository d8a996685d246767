"""Sampling from the autoregressive generator: cache, guidance, settings, choice, prefixes."""

import itertools

import pytest
import torch

from tests.support.autoregressive import HEADS, LABELS, lively, make, sample, tokens_of
from vistok.config import validate_part
from vistok.core.records import Condition
from vistok.generators import load_generator
from vistok.generators.guidance import guide
from vistok.generators.sampling import ChoiceConfig, choose
from vistok.tokens import Tokens


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("positions", ["rope", "learned"])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_the_cache_changes_nothing(head, positions, guidance):
    model = lively(make(HEADS[head], head=head, positions=positions))
    run = lambda cache: sample(model, LABELS, seed=4, guidance=guidance, cache=cache).indices
    assert torch.equal(run(True), run(False))
    assert len(run(True).unique()) > 1


@pytest.mark.parametrize("head", HEADS)
def test_samples_belong_to_their_index(head):
    model = lively(make(HEADS[head], head=head))
    whole = sample(model, LABELS, seed=4, guidance=1.5).indices
    parts = [
        sample(model, LABELS[rows], seed=4, guidance=1.5, index=torch.arange(6)[rows]).indices
        for rows in (slice(0, 2), slice(2, 6))
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(sample(model, LABELS, seed=5, guidance=1.5).indices, whole)
    again = sample(model, LABELS[:2], seed=4, guidance=1.5, index=torch.tensor([6, 7])).indices
    assert not torch.equal(again, whole[:2])


def test_samples_follow_the_model():
    # Frequencies of 3000 samples against the likelihood of each pair.
    model = lively(make((3,), length=2))
    label = torch.ones(3000, dtype=torch.long)
    seen = sample(model, label, seed=0).indices[..., 0].long()
    counts = torch.bincount(seen[:, 0] * 3 + seen[:, 1], minlength=9).double()
    pairs = torch.tensor(list(itertools.product(range(3), repeat=2)))[..., None]
    with torch.no_grad():
        nats = model.nats(Tokens.of(model.spec, pairs), Condition(label=label[:9]))
    expected = nats.double().sum(-1).neg().exp() * 3000
    assert float(((counts - expected) ** 2 / expected).sum()) < 26.1  # 8 degrees, p = 0.001


@pytest.mark.parametrize("head", HEADS)
def test_guidance(head):
    c, u = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 3.0]])
    assert guide(torch.cat([c, u]), 3.0, 1).tolist() == [[3.0, 0.0]]
    assert torch.equal(guide(c, 3.0, 1), c)
    model = lively(make(HEADS[head], head=head))
    none = sample(model, LABELS, seed=0).indices
    assert torch.equal(sample(model, LABELS, seed=0, guidance=1 + 1e-9).indices, none)
    assert not torch.equal(sample(model, LABELS, seed=0, guidance=4.0).indices, none)
    # Scale 0 is the model without a class.
    free = sample(model, 6, seed=0).indices
    assert torch.equal(sample(model, LABELS, seed=0, guidance=0.0).indices, free)
    assert not torch.equal(none, free)


@pytest.mark.parametrize("head", ["joint", "independent", "causal"])
def test_the_best_code_alone_is_greedy(head):
    model = lively(make(HEADS[head], head=head))
    greedy = sample(model, LABELS, temperature=0, seed=0).indices
    assert torch.equal(sample(model, LABELS, top_k=1, seed=5).indices, greedy)
    assert torch.equal(sample(model, LABELS, top_p=1e-6, seed=5).indices, greedy)
    assert torch.equal(sample(model, LABELS, temperature=1e-4, seed=5).indices, greedy)
    # Greedy takes the likeliest next code at each position.
    first = sample(model, LABELS[:1], temperature=0).indices[0, 0].tolist()
    if head == "joint":
        options = torch.zeros(6, 4, 1, dtype=torch.long)
        options[:, 0, 0] = torch.arange(6)
        nats = model.nats(Tokens.of(model.spec, options), Condition(label=LABELS[:1].expand(6)))
        assert first == [int(nats[:, 0].argmin())]


LOG = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log()


def picks(us, **settings) -> list[int]:
    config = ChoiceConfig(**settings)
    return [int(choose(LOG, torch.tensor([u]), config)) for u in us]


def test_choice_inverts_the_distribution():
    assert picks([0.0, 0.149, 0.151, 0.649, 0.651, 0.699, 0.701, 1 - 2**-24]) == [
        0, 0, 1, 1, 2, 2, 3, 3,
    ]  # fmt: skip


def test_top_k_and_top_p_by_hand():
    # two best: 0.5 and 0.3 -> 0.625 and 0.375, in the order of the codes
    for settings in ({"top_k": 2}, {"top_p": 0.7}, {"top_p": 0.51}, {"top_p": 0.8 - 1e-6}):
        assert picks([0.0, 0.62, 0.63, 0.999], **settings) == [1, 1, 3, 3]
    assert picks([0.0, 0.999], top_p=0.5) == [1, 1]  # 0.5 is reached by the first alone
    # three: 0.15, 0.5, 0.3 of 0.95
    for settings in ({"top_k": 3}, {"top_p": 0.9}):
        assert picks([0.15, 0.16, 0.68, 0.69, 0.999], **settings) == [0, 1, 1, 3, 3]
    # top_p works on what top_k left: of (0.625, 0.375) 0.6 keeps the first
    assert picks([0.99], top_k=2, top_p=0.6) == [1]
    assert picks([0.99], top_k=100) == [3]


def test_min_p_by_hand():
    # at least 0.3 of the best's 0.5 = 0.15: 0.15, 0.5 and 0.3 of 0.95 are left
    assert picks([0.15, 0.16, 0.68, 0.69, 0.999], min_p=0.299) == [0, 1, 1, 3, 3]
    assert picks([0.0, 0.999], min_p=1.0) == [1, 1]
    # after the temperature: squares over the best's 1, 0.36, 0.09, 0.01
    assert picks([0.0, 0.73, 0.74, 0.999], temperature=0.5, min_p=0.35) == [1, 1, 3, 3]
    assert picks([0.0, 0.999], min_p=0.61) == [1, 1]


def test_presets_name_changes_of_the_settings(fails):
    model = make((6,))
    changes = {"sampling": model.settings({"guidance": 3.0, "top_k": 2})}
    model.config = model.config.model_copy(update=changes | {"presets": {"warm": {"top_k": 5}}})
    assert list(model.presets) == ["guided", "unguided", "warm"]
    assert model.settings("guided") == model.sampling
    assert (model.settings("unguided").guided, model.settings("unguided").top_k) == (False, 2)
    found = model.settings({"preset": "warm", "temperature": 0.5})
    assert (found.top_k, found.temperature, found.guidance) == (5, 0.5, 3.0)
    with fails(ValueError, "sampling.preset=cold: expected one of guided, unguided, warm"):
        model.settings("cold")
    words = "presets.warm: top_q: unknown key, value 5; did you mean"
    with fails(ValueError, words):
        validate_part("generator", {"kind": "autoregressive", "presets": {"warm": {"top_q": 5}}})


def test_temperature_by_hand():
    # squares of the probabilities: 0.0225, 0.25, 0.0025, 0.09 of 0.365
    assert picks([0.06, 0.063, 0.745, 0.748, 0.754], temperature=0.5) == [0, 1, 1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temperature": -1}, "temperature: got -1"),
        ({"temperature": float("nan")}, "temperature: got nan"),
        ({"temperature": float("inf")}, "temperature: got inf"),
        ({"guidance": -0.5}, "guidance: got -0.5"),
        ({"guidance": float("nan")}, "guidance: got nan"),
        ({"guidance_schedule": "square"}, "guidance_schedule: got 'square'"),
        ({"top_k": -2}, "top_k: got -2"),
        ({"top_p": 0}, "top_p: got 0"),
        ({"min_p": 1.5}, "min_p: got 1.5"),
        ({"top_p": 1.5}, "top_p: got 1.5"),
        ({"top_p": float("nan")}, "top_p: got nan"),
        ({"temprature": 1.0}, "temprature: unknown key.*'temperature'"),
    ],
)
def test_wrong_settings(fails, changes, words):
    with fails(ValueError, words):
        make().sample(index=torch.arange(1), sampling=changes)


def test_settings_are_the_models_own_with_changes(tmp_path, fails):
    model = lively(make(sampling={"temperature": 0, "guidance": 2.0}))
    assert (model.sampling.temperature, model.sampling.guidance) == (0, 2.0)
    greedy = sample(model, LABELS, seed=0).indices
    assert torch.equal(sample(model, LABELS, seed=9).indices, greedy)  # nothing is left to chance
    changed = sample(model, LABELS, seed=0, temperature=1.0).indices
    assert not torch.equal(changed, greedy)
    given = model.sampling.model_copy(update={"temperature": 1.0})
    index, condition = torch.arange(6), Condition(label=LABELS)
    assert torch.equal(model.sample(condition, index=index, sampling=given).indices, changed)
    model.save_pretrained(tmp_path)
    loaded = load_generator(tmp_path)
    assert loaded.sampling == model.sampling
    assert torch.equal(sample(loaded, LABELS, seed=5).indices, greedy)
    with fails(ValueError, "sampling=3: expected AutoregressiveSampling or a dict", "top_k"):
        model.sample(index=index, sampling=3)


def test_a_schedule_of_guidance_starts_without_it():
    model = lively(make())
    plain, full = (sample(model, LABELS, guidance=g).indices for g in (1.0, 6.0))
    for schedule in ("linear", "cosine"):
        run = lambda cache, s=schedule: (
            sample(model, LABELS, guidance=6.0, guidance_schedule=s, cache=cache).indices
        )
        assert torch.equal(run(True), run(False))
        assert torch.equal(run(True)[:, 0], plain[:, 0])  # scale 1 at the first position
        assert not torch.equal(run(True), plain) and not torch.equal(run(True), full)


def test_stopping_at_a_prefix_gives_the_prefix_of_the_whole():
    model = lively(make(prefix="token"))
    whole = sample(model, LABELS, seed=1, guidance=1.5)
    for length in (1, 3):
        part = sample(model, LABELS, length=length, seed=1, guidance=1.5)
        assert torch.equal(part.indices, whole.prefix(length).indices)
        assert part.keep.tolist() == [length] * 6
    assert whole.keep is None
    blocks = lively(make(prefix="block", blocks=((1,), (3,), (2,))))
    whole, part = sample(blocks, LABELS, seed=1), sample(blocks, LABELS, length=2, seed=1)
    assert torch.equal(part.indices, whole.prefix(2).indices) and not part.indices[:, 4:].any()
    inside = lively(make(prefix="per_block", blocks=((3,), (3,))))
    whole, part = sample(inside, LABELS, seed=1), sample(inside, LABELS, length=2, seed=1)
    assert torch.equal(part.indices, whole.prefix(2).indices)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_what_follows_known_codes_is_sampled_with_them(head, guidance):
    model = lively(make(HEADS[head], head=head))
    known = tokens_of(model, 6, seed=8)
    mask = torch.tensor([0, 1, 1, 0]).expand(6, -1) > 0
    given = Condition(label=LABELS, known=known, known_mask=mask)
    run = lambda cache, condition: (
        model.sample(
            condition,
            index=torch.arange(6),
            seed=4,
            sampling={"guidance": guidance, "cache": cache},
        ).indices
    )
    free, mixed = run(True, Condition(label=LABELS)), run(True, given)
    assert torch.equal(run(False, given), mixed)
    assert torch.equal(mixed[:, 0], free[:, 0])  # before the first known code nothing differs
    assert torch.equal(mixed[:, 1:3], known.indices[:, 1:3])
    assert not torch.equal(mixed[:, 3], free[:, 3])
    # Position 3 is sampled as if the three before it had come from the model: known or sampled,
    # a code is a code.
    before = Tokens.of(model.spec, torch.cat([mixed[:, :3], known.indices[:, 3:]], 1))
    mask = torch.tensor([1, 1, 1, 0]).expand(6, -1) > 0
    assert torch.equal(run(True, Condition(label=LABELS, known=before, known_mask=mask)), mixed)


def test_known_codes_may_be_a_prefix(fails):
    model = lively(make(prefix="token"))
    whole = tokens_of(model, 6)
    mask = torch.arange(4).expand(6, -1) < 2
    given = Condition(known=whole.prefix(2), known_mask=mask)
    sampled = model.sample(given, index=torch.arange(6), seed=1)
    assert torch.equal(sampled.indices[:, :2], whole.indices[:, :2]) and sampled.keep is None
    cut = model.sample(given, index=torch.arange(6), seed=1, length=3)
    assert torch.equal(cut.indices, sampled.prefix(3).indices)
    with fails(ValueError, "known_mask is true behind the prefix of condition.known"):
        model.sample(Condition(known=whole.prefix(1), known_mask=mask), index=torch.arange(6))


def test_wrong_requests_are_one_line(fails):
    model = make()
    with fails(ValueError, "length=2.*whole sequences"):
        sample(model, LABELS, length=2)
    with fails(ValueError, r"labels lie in 0..2; expected 0..1"):
        sample(model, torch.tensor([0, 2]))
    with fails(ValueError, "condition.label is of 2 samples, index of 3"):
        sample(model, torch.tensor([0, 1]), index=torch.arange(3))
    text = Condition(text=torch.zeros(2, 3, 4))
    with fails(ValueError, "trained without condition.text; leave it out"):
        model.sample(text, index=torch.arange(2))
    with fails(ValueError, "trained without classes"):
        sample(make(classes=0), LABELS)
    with fails(ValueError, "no meaning for independent bits"):
        sample(make((2, 2), head="bernoulli"), LABELS, top_k=1)


def test_sampling_leaves_the_mode_alone_and_works_in_bf16():
    model = lively(make()).train()
    sample(model, LABELS)
    assert model.training
    model.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for cache in (True, False):
            sample(model, LABELS, guidance=2.0, cache=cache).check()


def test_unconditional_models():
    model = lively(make(classes=0))
    tokens = sample(model, 3, seed=0)
    assert torch.equal(tokens.indices, model.sample(index=torch.arange(3), seed=0).indices)
    assert model(tokens, Condition(label=torch.tensor([0, 5, 9])))["loss"].isfinite()
