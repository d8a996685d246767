"""The autoregressive generator: likelihood, training, heads, vocabularies, files."""

import itertools
import math

import pytest
import torch

from tests.support.autoregressive import HEADS, LABELS, SMALL, lively, make, sample, tokens_of
from vistok.config import ConfigError, UserError
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.generators import load_generator
from vistok.generators.autoregressive import Autoregressive, AutoregressiveConfig
from vistok.generators.heads import choose_head, make_head
from vistok.tokens import Tokens, TokenSpec

# -- likelihood ------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_the_first_loss_is_log_v(head, positions):
    vocab = HEADS[head]
    model = make(vocab, head=head, positions=positions)
    tokens, condition = tokens_of(model), Condition(label=torch.tensor([0, 1, 0, 1, 1]))
    scalars = model(tokens, condition)
    nats = math.log(math.prod(vocab))
    assert scalars["loss"].item() == pytest.approx(nats, abs=1e-6)
    assert scalars["bits_per_image"].item() == pytest.approx(4 * nats / math.log(2), abs=1e-5)
    found = model.evaluate(tokens, condition)
    assert tuple(found) == model.metrics and model.judged_by == ("nll", -1)
    assert found["nll"] == (pytest.approx(20 * nats, abs=1e-5), 20)
    assert found["bits_per_image"] == (pytest.approx(20 * nats / math.log(2), abs=1e-4), 5)


@pytest.mark.parametrize("head", HEADS)
def test_probabilities_of_all_sequences_add_up_to_one(head):
    vocab = {"joint": (4,), "bernoulli": (2, 2)}.get(head, (2, 3))
    model = lively(make(vocab, length=2, head=head))
    digits = itertools.product(*(range(v) for _ in range(2) for v in vocab))
    indices = torch.tensor(list(digits)).view(-1, 2, len(vocab))
    for label in (0, 1):
        condition = Condition(label=torch.full((len(indices),), label))
        nats = model.nats(Tokens.of(model.spec, indices), condition).double().sum(-1)
        assert nats.neg().exp().sum().item() == pytest.approx(1, abs=1e-5)
        assert nats.std() > 0.1


@pytest.mark.parametrize("head", HEADS)
def test_a_position_sees_only_what_is_before_it(head):
    model = lively(make(HEADS[head], head=head))
    tokens = tokens_of(model)
    other = Tokens(model.spec, tokens.indices.clone())
    other.indices[:, 2] = 1 - other.indices[:, 2].clamp(max=1)
    condition = Condition(label=torch.zeros(5, dtype=torch.long))
    a, b = model.nats(tokens, condition), model.nats(other, condition)
    assert a.shape == (5, 4)
    assert torch.equal(a[:, :2], b[:, :2])
    assert not torch.allclose(a[:, 2], b[:, 2], atol=1e-4)
    assert not torch.allclose(a[:, 3], b[:, 3], atol=1e-4)


def test_the_condition_counts_and_null_is_no_class():
    model = lively(make())
    tokens = tokens_of(model)
    label = lambda value: Condition(label=torch.full((5,), value))
    zero, one = model.nats(tokens, label(0)), model.nats(tokens, label(1))
    assert not torch.allclose(zero, one, atol=1e-3)
    nothing = model.nats(tokens, Condition())
    draws = model.draw(torch.arange(5), Rng(0), Progress(0, 1))
    for null in (True, False):
        some = type(draws)(null=torch.full((5,), null))
        assert torch.equal(model.nats(tokens, label(1), some), nothing if null else one)


def test_class_dropout_is_keyed_and_has_its_share():
    model = make(condition={"dropout": 0.25})
    index = torch.arange(2000)
    null = model.draw(index, Rng(0, "generator", 3), Progress(3, 9)).null
    assert null.dtype == torch.bool
    assert abs(float(null.float().mean()) - 0.25) < 0.035  # +- 0.01
    some = torch.tensor([7, 1999])
    assert torch.equal(model.draw(some, Rng(0, "generator", 3), Progress(3, 9)).null, null[some])


def test_two_dimensional_tokens_turn_with_row_and_column():
    flat, grid = make(), make(blocks=((2, 2),))
    assert flat.rotary_cos.shape == grid.rotary_cos.shape == (5, 4)
    assert not torch.equal(flat.rotary_cos, grid.rotary_cos)
    assert flat.rotary_cos[0].eq(1).all() and grid.rotary_cos[0].eq(1).all()
    assert len(grid.rotary_cos.unique(dim=0)) == 5  # no two places are alike


def test_numbers_of_a_training_do_not_move():
    # Recorded when the model was called gpt: the order of draws at initialization, keys and
    # arithmetic of a step, and keys of sampling.
    model = make(classes=3, transformer={**SMALL, "depth": 2}).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator, losses = torch.Generator().manual_seed(0), []
    for step in range(20):
        index = torch.arange(step * 8, step * 8 + 8)
        codes = torch.randint(5, (8, 4, 1), generator=generator)
        draws = model.draw(index, Rng(0, "generator", step), Progress(step, 20))
        tokens, condition = Tokens.of(model.spec, codes), Condition(label=index % 3)
        loss = model(tokens, condition, draws)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(1.7917594909667969, rel=1e-6)
    assert losses[-1] == pytest.approx(1.5820156335830688, rel=1e-4)
    sampled = sample(
        model.eval(), torch.tensor([0, 1, 2, 0, 1]), seed=7, index=torch.arange(5) + 3, guidance=2.5
    )
    assert sampled.indices[..., 0].tolist() == [
        [3, 2, 3, 2],
        [2, 0, 3, 0],
        [0, 3, 1, 2],
        [2, 2, 2, 3],
        [1, 2, 3, 0],
    ]


# -- training --------------------------------------------------------------------------------------


def walk(start: torch.Tensor, length: int, share: float, generator) -> torch.Tensor:
    """t -> t + 1 mod 6 with probability `share`, else t stays."""
    steps = [start]
    for _ in range(length - 1):
        moves = (torch.rand(len(start), generator=generator) < share).long()
        steps.append((steps[-1] + moves) % 6)
    return torch.stack(steps, 1)


def factors(t: torch.Tensor, vocab) -> torch.Tensor:
    digits = []
    for size in vocab:
        digits.append(t % size)
        t = t // size
    return torch.stack(digits, -1)


@pytest.mark.parametrize(
    ("head", "share"),
    [("joint", 0.8), ("causal", 0.8), ("intra", 0.8), ("independent", 1.0), ("bernoulli", 1.0)],
)
def test_every_head_learns_a_toy_distribution(head, share):
    # Class c starts at 1 or 4. Independent factors cannot share a choice: theirs is certain.
    vocab = HEADS[head]
    model = make(vocab, head=head).train()
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(120):
        label = torch.randint(2, (64,), generator=generator)
        t = walk(1 + 3 * label, 4, share, generator)
        tokens = Tokens.of(model.spec, factors(t, vocab))
        draws = model.draw(torch.arange(64), Rng(0, "g", step), Progress(step, 120))
        loss = model(tokens, Condition(label=label), draws)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    label = torch.arange(400) % 2
    sampled = sample(model, label, seed=1).check()
    radix = [math.prod(vocab[:i]) for i in range(len(vocab))]
    t = (sampled.indices.long() * torch.tensor(radix)).sum(-1)
    assert float((t[:, 0] == 1 + 3 * label).float().mean()) > 0.97
    moves = (t.diff(dim=1) % 6 == 1).float()
    stays = (t.diff(dim=1) == 0).float()
    assert float((moves + stays).mean()) > 0.95
    assert abs(float(moves.mean()) - share) < 0.07
    # Without a class both starts come up.
    free = sample(model, 200, seed=2)
    t = (free.indices.long() * torch.tensor(radix)).sum(-1)[:, 0]
    shares = [float((t == start).float().mean()) for start in (1, 4)]
    assert min(shares) > 0.1 or head in ("independent", "bernoulli")


# -- vocabularies ----------------------------------------------------------------------------------


def test_heads_suit_their_vocabulary(fails):
    assert choose_head((4096,)) == "joint"
    assert choose_head((2,) * 64) == "bernoulli"
    assert choose_head((64, 4096)) == "causal"
    with fails(ValueError, r"head=joint cannot model vocab=\(3, 2\); expected head=causal"):
        make_head("joint", 8, (3, 2))
    with fails(ValueError, r"head=bernoulli cannot model vocab=\(3,\); expected head=joint"):
        make_head("bernoulli", 8, (3,))
    with fails(ValueError, "262144 codes is too wide.*regroup"):
        make_head("joint", 8, (2**18,))
    with fails(ValueError, "continuous"):
        Autoregressive(AutoregressiveConfig(), TokenSpec(blocks=((4,),), vocab=(), dim=3))


def test_large_vocabularies_are_regrouped():
    model = make((2**18,), regroup=(64, 4096))
    assert model.head_kind == "causal" and model.inner.vocab == (64, 4096)
    tokens = tokens_of(model)
    assert model(tokens, Condition())["loss"].item() == pytest.approx(18 * math.log(2), 1e-6)
    # Both writings of the same codes have the same likelihood.
    lively(model)
    assert torch.equal(
        model.nats(tokens, Condition()), model.nats(tokens.regroup((64, 4096)), Condition())
    )
    sampled = sample(model, 4)
    assert sampled.spec == model.spec and sampled.indices.dtype == torch.int32
    assert int(sampled.check().indices.max()) > 4096
    bits = make((2,) * 12, regroup=(16, 16, 16))
    assert sample(bits, 2).check().spec.vocab == (2,) * 12


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_saved_and_loaded_samples_are_equal(tmp_path, head):
    model = lively(make(HEADS[head], head=head, prefix="token"))
    model.classes, model.tokenizer = ("cat", "dog"), {"name": "t", "sha256": "ab"}
    model.save_pretrained(tmp_path)
    for loaded in (load_generator(tmp_path), Autoregressive.from_pretrained(tmp_path)):
        assert type(loaded) is Autoregressive and not loaded.training
        assert (loaded.spec, loaded.config) == (model.spec, model.config)
        assert (loaded.classes, loaded.tokenizer) == (model.classes, model.tokenizer)
        assert torch.equal(
            sample(loaded, LABELS, seed=3).indices, sample(model, LABELS, seed=3).indices
        )


def test_a_regrouped_model_without_names_is_loaded_too(tmp_path):
    model = lively(make((2**18,), regroup=(64, 4096), classes=3))
    model.save_pretrained(tmp_path)
    loaded = load_generator(tmp_path)
    assert loaded.classes == () and loaded.num_classes == 3
    assert torch.equal(sample(loaded, LABELS).indices, sample(model, LABELS).indices)


def test_folders_that_hold_something_else(tmp_path, fails, make_tokenizer):
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    with fails(UserError, "not a generator"):
        load_generator(tmp_path / "tokenizer")
    with fails(UserError, "no such file or folder"):
        load_generator(tmp_path / "none")
    make().save_pretrained(tmp_path / "autoregressive")
    path = tmp_path / "autoregressive" / "config.json"
    path.write_text(path.read_text().replace('"regroup"', '"regruop"'))
    with fails(ConfigError, "regruop: unknown key.*'regroup'"):
        load_generator(tmp_path / "autoregressive")
