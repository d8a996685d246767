"""The near-to-far generator: planes, masks, heads, exact likelihood, cache, guidance, captions."""

import itertools
import math

import pytest
import torch

from vistok.config import validate
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.generators.neighbouring import Neighbouring, NeighbouringConfig
from vistok.generators.orders import cells_before, near_to_far
from vistok.tokens import Tokens, TokenSpec

SMALL = {"width": 16, "depth": 2, "heads": 2}
LABELS = Condition(label=torch.tensor([0, 1, -1]))
INDEX = torch.arange(3)
CLIP = ((2, 3), (2, 3))  # two frames


def make(blocks=((3, 2),), vocab=(6,), **options) -> Neighbouring:
    """A generator whose weights all have an influence."""
    torch.manual_seed(2)
    data = {"transformer": SMALL, "condition": {"classes": 2}, **options}
    model = Neighbouring(validate(NeighbouringConfig, data), TokenSpec(blocks=blocks, vocab=vocab))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def tokens_of(model: Neighbouring, count: int = 3) -> Tokens:
    generator = torch.Generator().manual_seed(1)
    size = (count, model.spec.length)
    codes = [torch.randint(v, size, generator=generator) for v in model.spec.vocab]
    return Tokens.of(model.spec, torch.stack(codes, -1))


def test_planes_and_neighbours():
    assert near_to_far((2, 3)) == [[0], [1, 3], [2, 4], [5]]
    assert cells_before((2, 3)).tolist() == [[-1, -1, -1, 0, 1, 2], [-1, 0, 1, -1, 3, 4]]
    assert [len(near_to_far((g, g))) for g in (4, 16, 24)] == [7, 31, 47]
    assert len(near_to_far((4, 16, 16))) == 34
    assert sorted(itertools.chain(*near_to_far((2, 3, 4)))) == list(range(24))


@pytest.mark.parametrize(
    ("blocks", "options", "grid"),
    [
        (((3, 2),), {}, (3, 2)),
        (((2, 2, 3),), {}, (2, 2, 3)),
        (CLIP, {}, (2, 2, 3)),
        (((1, 2, 2), (3, 2, 2)), {}, (4, 2, 2)),
        (((12,),), {"grid": (2, 2, 3)}, (2, 2, 3)),
        (((12,),), {"grid": (12,)}, (12,)),
    ],
)
def test_grids_of_specs(blocks, options, grid):
    model = make(blocks, **options)
    assert model.grid == grid and len(model.head) == len(grid)
    assert model.depths == tuple(range(len(grid) + 1, 1, -1))  # the last axis after 2 blocks
    assert model.summary()["passes/sample"] == sum(grid) - len(grid) + 1


@pytest.mark.parametrize(
    ("blocks", "options", "words"),
    [
        (((6,),), {}, "kind=neighbouring models tokens on a grid .* use autoregressive"),
        (((1, 1), (2, 2)), {}, "no neighbours unless grid= gives their sides"),
        (((6,),), {"grid": (2, 2)}, r"a grid of \(2, 2\), 4 cells, not 6 tokens"),
        (((3, 2),), {"extra_blocks": (1, 1)}, r"extra_blocks=\(1, 1\), and a grid .* takes 1"),
        (((3, 2),), {"head": "bit_rounds"}, "head=bit_rounds.*expected one of joint"),
        (((3, 2),), {"grid": (0, 2)}, r"grid=\(0, 2\): expected sides"),
        (((3, 2),), {"extra_blocks": (-1,)}, r"extra_blocks=\(-1,\)"),
    ],
)
def test_what_it_cannot_model_is_one_line(fails, blocks, options, words):
    with fails(ValueError, words):
        make(blocks, **options)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"positions": "learned", "extra_blocks": (3,)}], ids=str)
def test_a_cell_depends_on_nearer_cells_alone(options):
    """Changing a cell changes the prediction of farther cells, and of no others."""
    model = make(((3, 3),), **options)
    tokens = tokens_of(model, 1)
    whole = model.logits(tokens.indices.long(), Condition())
    distance = torch.tensor([sum(place) for place in itertools.product(range(3), range(3))])
    for cell in range(9):
        changed = tokens.indices.long().clone()
        changed[0, cell] = (changed[0, cell] + 1) % 6
        moved = (model.logits(changed, Condition()) - whole).abs().amax(-1)[0] > 1e-6
        assert torch.equal(moved, distance > distance[cell]), cell


@torch.no_grad()
@pytest.mark.parametrize("options", [{"regroup": (2, 3), "head": "causal"}, {}], ids=str)
def test_the_likelihood_is_exact(options):
    """Over all sequences the probabilities add up to 1."""
    model = make(((2, 2),), (6,), **options)
    codes = torch.tensor(list(itertools.product(range(6), repeat=4)))[..., None]
    nats = model.nats(Tokens.of(model.spec, codes), Condition(label=torch.zeros(6**4).long()))
    assert nats.sum(-1).neg().exp().sum().item() == pytest.approx(1, abs=1e-4)
    # Cut tokens: those of a prefix alone, whatever lies behind it.
    spec = model.spec.model_copy(update={"prefix": "token"})
    twin = type(model)(model.config, spec).eval()
    twin.load_state_dict(model.state_dict())
    some = Tokens.of(spec, codes[::6]).prefix(3)
    nats = twin.nats(some, Condition(label=torch.zeros(6**3).long()))
    assert nats[:, 3].eq(0).all()
    assert nats.sum(-1).neg().exp().sum().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize(
    ("blocks", "vocab", "options"),
    [
        (((3, 4),), (6,), {}),
        (((3, 4),), (4, 3), {}),
        (((3, 4),), (4, 3), {"head": "independent", "condition_positions": "before"}),
        (CLIP, (2,) * 5, {"positions": "sincos"}),
        (((12,),), (6,), {"grid": (2, 2, 3), "positions": "learned", "extra_blocks": (0, 2)}),
    ],
    ids=str,
)
def test_the_cache_samples_as_the_full_forward(scale, blocks, vocab, options):
    model = make(blocks, vocab, **options)
    settings = {"guidance": scale, "temperature": 0.8}
    draw = lambda **changes: model.sample(LABELS, index=INDEX, seed=5, sampling=settings | changes)
    cached = draw()
    assert torch.equal(cached.indices, draw(cache=False).indices)
    alone = model.sample(LABELS.select([1]), index=INDEX[[1]], seed=5, sampling=settings)
    assert torch.equal(alone.indices[0], cached.indices[1])


@torch.no_grad()
def test_what_is_sampled_at_once_follows_the_full_forward(monkeypatch):
    """The logits that the sampler chooses from are those of the training pass (1e-5), and a code is
    drawn by the uniform number of its own cell."""
    import vistok.generators.neighbouring as module

    model, seen = make(((3, 4),)), []
    choose = module.choose
    monkeypatch.setattr(module, "choose", lambda *args: (seen.append(args[:2]), choose(*args))[1])
    sampled = model.sample(LABELS, index=INDEX, seed=3).indices.long()
    expected = model.logits(sampled, LABELS)
    u = Rng(3, "sampling").uniform(INDEX, (12, 1))[..., 0]
    for cells, (logits, uniform) in zip(near_to_far(model.grid), seen, strict=True):
        torch.testing.assert_close(logits.view(3, -1, 6), expected[:, cells], atol=1e-5, rtol=0)
        assert torch.equal(uniform.view(3, -1), u[:, cells])


def test_guidance_follows_the_share_of_passes():
    """[0, 0.5] of 5 passes guides three of them, that is, planes 0, 1 and 2."""
    model = make(((3, 3),))
    known = tokens_of(model)
    mask = torch.zeros(3, 9, dtype=torch.bool)
    mask[:, list(itertools.chain(*near_to_far((3, 3))[:3]))] = True
    given = Condition(label=LABELS.label, known=known, known_mask=mask)
    draw = lambda **changes: model.sample(given, index=INDEX, seed=1, sampling=changes).indices
    assert torch.equal(draw(guidance=9.0, guidance_interval=(0.0, 0.5)), draw())
    assert not torch.equal(draw(guidance=9.0), draw())


def test_texts_in_front(fails):
    """Captions as LlamaGen reads them: padding is hidden in training and in sampling."""
    text = {"dim": 5, "length": 4, "projection": "mlp", "empty": "stored", "mask": True}
    text |= {"align": "end", "class_token": False}
    model = make(((2, 3),), condition={"classes": 0, "text": text})
    features = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]) > 0
    condition = Condition(text=features, text_mask=mask)
    draw = lambda given, **changes: model.sample(given, index=INDEX[:2], sampling=changes).indices
    for settings in ({"guidance": 1.0}, {"guidance": 3.0}):
        found = draw(condition, **settings)
        assert torch.equal(found, draw(condition, cache=False, **settings))
        noisy = Condition(text=features.masked_fill(~mask[..., None], 7.0), text_mask=mask)
        assert torch.equal(found, draw(noisy, **settings))
    codes = tokens_of(model, 2).indices.long()
    first = model.logits(codes, condition)
    assert torch.allclose(first, model.logits(codes, noisy), atol=1e-6)
    assert not torch.allclose(first, model.logits(codes, Condition(text=features)), atol=1e-3)
    assert math.isfinite(model(tokens_of(model, 2), condition)["loss"].item())
    layers = {"classes": 0, "text": {"dim": 5, "length": 4, "layers": 2}}
    with fails(ValueError, "reads text in front of its tokens alone"):
        make(((2, 3),), condition=layers)
