"""Speculative Jacobi decoding: the distribution of samples stays, and fewer passes are taken.

Distributions are those of all sequences of a tiny generator, by enumeration.
"""

from dataclasses import replace
from itertools import product

import pytest
import torch
from scipy.stats import chi2

from vistok.config import validate
from vistok.config.registry import build, entries
from vistok.core.records import Condition
from vistok.generators.coupling import behind_change, keeps, residual
from vistok.generators.guidance import guide
from vistok.generators.sampling import narrowed
from vistok.tokens import Tokens, TokenSpec

COUPLINGS = ["maximal", "gumbel", "quantile", "none"]
INITS = ["repeat", "sample", "random"]
KINDS = ["autoregressive", "random_order"]
CFG = {"guidance": 2.0, "guidance_schedule": "linear", "temperature": 1.5}
LAYERS = {"condition": {"text": {"dim": 3, "length": 4, "layers": 1}}}


def make(kind: str, vocab=(4,), length: int = 3, **changes):
    """A generator of two classes whose predictions are far from uniform."""
    spec = TokenSpec(blocks=((length,),), vocab=vocab, prefix="token")
    tree = {"transformer": {"width": 16, "depth": 1, "heads": 2}, "condition": {"classes": 2}}
    config = validate(entries("generator")[kind].config, {"kind": kind, **tree, **changes})
    torch.manual_seed(0)
    model = build(config, spec).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.45)
    return model


def sample(model, count: int, given: Condition | None = None, first: int = 0, **options):
    """Codes [B, L, F] of samples first.. of class 1, by settings, a seed, a length."""
    known = {name: options.pop(name) for name in ("seed", "length") if name in options}
    given = given or Condition(label=torch.ones(count, dtype=torch.long))
    index = torch.arange(first, first + count)
    return model.sample(given, index=index, sampling=options, **known).indices.long()


def enumerated(model, settings) -> tuple[torch.Tensor, torch.Tensor]:
    """All sequences [K, L, F] of class 1, and their probabilities [K]."""
    vocab, length = model.inner.vocab, model.spec.length
    codes = torch.tensor(list(product(*(range(size) for size in vocab * length))))
    codes = codes.view(-1, length, len(vocab))
    count, total = len(codes), torch.zeros(len(codes), dtype=torch.double)
    start = model.start(Condition(label=torch.ones(count, dtype=torch.long)), count)
    x = model.embed(codes)
    if settings.guided:
        start, x = torch.cat([start, model.start(Condition(), count)]), torch.cat([x, x])
    hidden = model.run(torch.cat([start, x], dim=1), 0, start)[:, start.shape[1] - 1 :]
    for i in range(length):

        def pick(logits, f, i=i):
            logits = guide(logits, settings.scale_at(i / length), count)
            nats = narrowed(logits, settings).double().log_softmax(-1)
            total.add_(nats.gather(-1, codes[:, i, f, None])[:, 0])
            return codes[:, i, f]

        model.head.sample(hidden[:, i], pick)
    return codes, total.exp()


def chance(model, codes: torch.Tensor, settings) -> float:
    """Probability of a chi-square as large as that of codes [B, L, F] over all sequences, if they
    are distributed as the generator says."""
    every, probability = enumerated(model, settings)
    assert probability.sum().item() == pytest.approx(1, abs=1e-6)
    assert probability.max() < 0.7  # there is something to be seen
    found = torch.zeros_like(probability)
    sequences, counts = codes.flatten(1).unique(dim=0, return_counts=True)
    same = (every.flatten(1)[:, None] == sequences).all(-1)
    found = (same * counts).sum(-1).double()
    expected = probability * len(codes)
    assert not found[probability == 0].any()
    common = expected >= 5  # the others are taken together
    found, expected = (
        torch.cat([one[common], one[~common].sum()[None]]) for one in (found, expected)
    )
    held = expected > 0
    statistic = ((found - expected)[held] ** 2 / expected[held]).sum()
    return float(chi2.sf(statistic, int(held.sum()) - 1))


# -- the distribution ------------------------------------------------------------------------------

SETTINGS = {
    "plain": {"temperature": 1.5},
    "guided": CFG,
    "top_k": {**CFG, "top_k": 3},
    "top_p": {"temperature": 1.5, "top_p": 0.8, "min_p": 0.05},
}
WINDOWS = {"maximal": (16, "sample"), "gumbel": (2, "random"), "none": (3, "repeat")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_samples_are_distributed_as_the_generator_says(kind, setting):
    """Over all sequences of three positions, for each coupling in a window of its own."""
    model = make(kind)
    for coupling, (window, init) in WINDOWS.items():
        jacobi = {"coupling": coupling, "window": window, "init": init}
        settings = {**SETTINGS[setting], "jacobi": jacobi}
        found = chance(model, sample(model, 4000, **settings), model.settings(settings))
        assert found > 1e-3, coupling
        if window > 2:
            assert model.passes.double().mean() < 2.7


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("coupling", ["maximal", "none"])
def test_every_first_draft_is_accounted_for(init, coupling):
    model = make("autoregressive", vocab=(3,), length=5)  # so that windows move on
    settings = {**CFG, "jacobi": {"coupling": coupling, "window": 3, "init": init}}
    assert chance(model, sample(model, 4000, **settings), model.settings(settings)) > 1e-3


HEADS = {
    "causal": {"head": "causal"},
    "independent": {"head": "independent"},
    "intra": {"head": "intra"},
    "bernoulli": {"head": "bernoulli"},
    "bit_rounds": {"head": "bit_rounds", "head_rounds": 2},
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("coupling", ["maximal", "none"])
def test_positions_of_several_factors(head, coupling):
    model = make("autoregressive", vocab=(2, 2), length=4, **HEADS[head])
    jacobi = {"coupling": coupling, "init": "sample", "window": 2}
    settings = {**CFG, "temperature": 3.0, "jacobi": jacobi}
    assert chance(model, sample(model, 4000, **settings), model.settings(settings)) > 1e-3


# -- what else must hold ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_fixed_noise_gives_the_same_codes_in_any_window(kind):
    """quantile: those of plain decoding; greedy decoding is a case of it."""
    model = make(kind, vocab=(5,), length=8)
    plain = sample(model, 6, **CFG)
    greedy = sample(model, 6, temperature=0)
    seen = []
    for window, init in zip((1, 3, 16), INITS, strict=True):
        jacobi = {"window": window, "init": init}
        assert torch.equal(
            plain, sample(model, 6, **CFG, jacobi={**jacobi, "coupling": "quantile"})
        )
        assert (model.passes <= 8).all() and (window > 1 or (model.passes == 8).all())
        seen.append(sample(model, 6, **CFG, jacobi={**jacobi, "coupling": "gumbel"}))
        assert torch.equal(greedy, sample(model, 6, temperature=0, jacobi=jacobi))
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_samples_do_not_know_their_batch(coupling):
    model = make("random_order", vocab=(4, 3), length=12)
    settings = {**CFG, "jacobi": {"coupling": coupling, "window": 4, "init": "sample"}}
    whole, passes = sample(model, 4, **settings), model.passes
    for i in range(4):
        assert torch.equal(sample(model, 1, first=i, **settings), whole[i : i + 1])
        assert model.passes.item() == passes[i]
    if coupling == "maximal":  # they advance each on its own
        assert len(set(passes.tolist())) > 1
    assert torch.equal(sample(model, 4, **settings, cache=False), whole)
    assert not torch.equal(sample(model, 4, seed=1, **settings), whole)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_known_codes_and_cut_lengths(coupling):
    model = make("autoregressive", vocab=(6,), length=6, regroup=[2, 3])
    settings = {"guidance": 2.0, "jacobi": {"coupling": coupling, "window": 3}}
    codes = torch.randint(6, (3, 6, 1), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 0, 0, 1, 1, 0], [0] * 6, [1] * 6]) > 0
    given = Condition(label=torch.ones(3, dtype=torch.long))
    free = sample(model, 3, given, **settings)
    known = replace(given, known=Tokens.of(model.spec, codes), known_mask=mask)
    found = sample(model, 3, known, **settings)
    assert torch.equal(found[mask], codes[mask]) and torch.equal(found[1], free[1])
    assert model.passes[2] == 2 + (6 - 3 + 1) // 3 - 1  # nothing to draw: a window in each pass
    if coupling in ("gumbel", "quantile"):  # windows that end elsewhere draw other numbers
        assert torch.equal(sample(model, 3, given, length=4, **settings)[:, :4], free[:, :4])
    assert not sample(model, 3, given, length=1, **settings)[:, 1:].any()


def test_text_in_the_blocks():
    model = make("autoregressive", vocab=(5,), length=6, **LAYERS)
    text = torch.randn(2, 1, 4, 3, generator=torch.Generator().manual_seed(0))
    given = Condition(text=text, text_mask=torch.tensor([[True] * 4, [True, True, False, False]]))
    plain = sample(model, 2, given, **CFG)
    jacobi = {"coupling": "quantile", "window": 3}
    assert torch.equal(plain, sample(model, 2, given, **CFG, jacobi=jacobi))


def test_the_arithmetic_by_hand():
    p, q = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.25, 0.25, 0.5]])
    assert torch.equal(residual(p, q), torch.tensor([[0.5, 0.5, 0.0]]))
    assert torch.equal(residual(p, p), p)  # nothing left over
    u = torch.tensor([0.0, 0.49, 0.5, 0.99])
    assert keeps(torch.full((4,), 0.2), torch.full((4,), 0.4), u).tolist() == [1, 1, 0, 0]
    kept = torch.tensor([[True, False, True], [True, True, True]])
    assert behind_change(kept).tolist() == [[False, False, True], [False] * 3]
    assert behind_change(kept, exact=False).tolist() == [[False, True, True], [False] * 3]


def test_settings_are_typed(fails):
    model = make("autoregressive")
    with fails(ValueError, "jacobi.window: got 0"):
        model.settings({"jacobi": {"window": 0}})
    with fails(ValueError, "jacobi.coupling"):
        model.settings({"jacobi": {"coupling": "minimal"}})
    assert model.settings({"jacobi": {"window": 4}}).jacobi.coupling == "maximal"
    assert model.settings({"jacobi": None}).jacobi is None
