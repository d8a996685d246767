"""Autoregressive over tokens: likelihood, heads, sampling, guidance, prefixes, files."""

import itertools
import math

import pytest
import torch

from vistok.config import ConfigError, validate
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.generators import load_generator
from vistok.generators.autoregressive import Autoregressive, AutoregressiveConfig
from vistok.generators.heads import choose_head, make_head
from vistok.generators.sampling import SamplingConfig, choose, guide
from vistok.tokens import Tokens, TokenSpec

SMALL = {"width": 16, "depth": 1, "heads": 2, "norm": "rmsnorm", "mlp": "swiglu", "bias": False}
HEADS = {"joint": (6,), "independent": (3, 2), "causal": (3, 2), "bernoulli": (2, 2, 2)}


def make(
    vocab=(6,), length: int = 4, classes: int = 2, prefix="none", blocks=None, **options
) -> Autoregressive:
    torch.manual_seed(2)
    spec = TokenSpec(blocks=blocks or ((length,),), vocab=vocab, prefix=prefix)
    data = {"transformer": SMALL, "classes": classes, **options}
    return Autoregressive(validate(AutoregressiveConfig, data), spec)


def lively(model: Autoregressive) -> Autoregressive:
    """Heads away from zero, so that everything has an influence."""
    torch.manual_seed(3)
    for parameter in model.head.out.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    torch.nn.init.normal_(model.condition.weight)
    return model.eval()


def tokens_of(model: Autoregressive, batch: int = 5, seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    spec = model.spec
    columns = [torch.randint(v, (batch, spec.length), generator=generator) for v in spec.vocab]
    return Tokens.of(spec, torch.stack(columns, -1))


# -- likelihood ------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_the_first_loss_is_log_v(head, positions):
    vocab = HEADS[head]
    model = make(vocab, head=head, positions=positions)
    loss = model.loss(tokens_of(model), Condition(label=torch.tensor([0, 1, 0, 1, 1])))
    assert loss["nll"].item() == pytest.approx(math.log(math.prod(vocab)), abs=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_probabilities_of_all_sequences_add_up_to_one(head):
    vocab = {"joint": (4,), "bernoulli": (2, 2)}.get(head, (2, 3))
    model = lively(make(vocab, length=2, head=head))
    digits = itertools.product(*(range(v) for _ in range(2) for v in vocab))
    indices = torch.tensor(list(digits)).view(-1, 2, len(vocab))
    for label in (0, 1):
        condition = Condition(label=torch.full((len(indices),), label))
        nats = model(Tokens.of(model.spec, indices), condition).double().sum(-1)
        assert nats.neg().exp().sum().item() == pytest.approx(1, abs=1e-5)
        assert nats.std() > 0.1


@pytest.mark.parametrize("head", HEADS)
def test_a_position_sees_only_what_is_before_it(head):
    model = lively(make(HEADS[head], head=head))
    tokens = tokens_of(model)
    other = Tokens(model.spec, tokens.indices.clone())
    other.indices[:, 2] = 1 - other.indices[:, 2].clamp(max=1)
    condition = Condition(label=torch.zeros(5, dtype=torch.long))
    a, b = model(tokens, condition), model(other, condition)
    assert a.shape == (5, 4)
    assert torch.equal(a[:, :2], b[:, :2])
    assert not torch.allclose(a[:, 2], b[:, 2], atol=1e-4)
    assert not torch.allclose(a[:, 3], b[:, 3], atol=1e-4)


def test_the_condition_counts_and_null_is_no_class():
    model = lively(make())
    tokens = tokens_of(model)
    label = lambda value: Condition(label=torch.full((5,), value))
    zero, one = model(tokens, label(0)), model(tokens, label(1))
    assert not torch.allclose(zero, one, atol=1e-3)
    nothing = model(tokens, Condition())
    draws = model.draw(torch.arange(5), Rng(0), Progress(0, 1))
    for null in (True, False):
        some = type(draws)(null=torch.full((5,), null))
        assert torch.equal(model(tokens, label(1), some), nothing if null else one)


def test_class_dropout_is_keyed_and_has_its_share():
    model = make(class_dropout=0.25)
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
    [("joint", 0.8), ("causal", 0.8), ("independent", 1.0), ("bernoulli", 1.0)],
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
        loss = model.loss(tokens, Condition(label=label), draws)["nll"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    label = torch.arange(400) % 2
    sampled = model.sample(label, seed=1).check()
    radix = [math.prod(vocab[:i]) for i in range(len(vocab))]
    t = (sampled.indices.long() * torch.tensor(radix)).sum(-1)
    assert float((t[:, 0] == 1 + 3 * label).float().mean()) > 0.97
    moves = (t.diff(dim=1) % 6 == 1).float()
    stays = (t.diff(dim=1) == 0).float()
    assert float((moves + stays).mean()) > 0.95
    assert abs(float(moves.mean()) - share) < 0.07
    # Without a class both starts come up.
    free = model.sample(batch=200, seed=2)
    t = (free.indices.long() * torch.tensor(radix)).sum(-1)[:, 0]
    shares = [float((t == start).float().mean()) for start in (1, 4)]
    assert min(shares) > 0.1 or head in ("independent", "bernoulli")


# -- sampling --------------------------------------------------------------------------------------

LABELS = torch.tensor([0, 1, 1, 0, 0, 1])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("positions", ["rope", "learned"])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_the_cache_changes_nothing(head, positions, guidance):
    model = lively(make(HEADS[head], head=head, positions=positions))
    run = lambda cache: model.sample(LABELS, seed=4, guidance=guidance, cache=cache).indices
    assert torch.equal(run(True), run(False))
    assert len(run(True).unique()) > 1


@pytest.mark.parametrize("head", HEADS)
def test_samples_belong_to_their_index(head):
    model = lively(make(HEADS[head], head=head))
    whole = model.sample(LABELS, seed=4, guidance=1.5).indices
    parts = [
        model.sample(LABELS[rows], seed=4, guidance=1.5, index=torch.arange(6)[rows]).indices
        for rows in (slice(0, 2), slice(2, 6))
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(model.sample(LABELS, seed=5, guidance=1.5).indices, whole)
    again = model.sample(LABELS[:2], seed=4, guidance=1.5, index=torch.tensor([6, 7])).indices
    assert not torch.equal(again, whole[:2])


def test_samples_follow_the_model():
    # Frequencies of 3000 samples against the likelihood of each pair.
    model = lively(make((3,), length=2))
    label = torch.ones(3000, dtype=torch.long)
    seen = model.sample(label, seed=0).indices[..., 0].long()
    counts = torch.bincount(seen[:, 0] * 3 + seen[:, 1], minlength=9).double()
    pairs = torch.tensor(list(itertools.product(range(3), repeat=2)))[..., None]
    with torch.no_grad():
        nats = model(Tokens.of(model.spec, pairs), Condition(label=label[:9]))
    expected = nats.double().sum(-1).neg().exp() * 3000
    assert float(((counts - expected) ** 2 / expected).sum()) < 26.1  # 8 degrees, p = 0.001


@pytest.mark.parametrize("head", HEADS)
def test_guidance(head):
    c, u = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 3.0]])
    assert guide(torch.cat([c, u]), 3.0).tolist() == [[3.0, 0.0]]
    assert torch.equal(guide(c, 1.0), c)
    model = lively(make(HEADS[head], head=head))
    none = model.sample(LABELS, seed=0).indices
    assert torch.equal(model.sample(LABELS, seed=0, guidance=1 + 1e-9).indices, none)
    assert not torch.equal(model.sample(LABELS, seed=0, guidance=4.0).indices, none)
    # Scale 0 is the model without a class.
    free = model.sample(batch=6, seed=0).indices
    assert torch.equal(model.sample(LABELS, seed=0, guidance=0.0).indices, free)
    assert not torch.equal(none, free)


@pytest.mark.parametrize("head", ["joint", "independent", "causal"])
def test_the_best_code_alone_is_greedy(head):
    model = lively(make(HEADS[head], head=head))
    greedy = model.sample(LABELS, temperature=0, seed=0).indices
    assert torch.equal(model.sample(LABELS, top_k=1, seed=5).indices, greedy)
    assert torch.equal(model.sample(LABELS, top_p=1e-6, seed=5).indices, greedy)
    assert torch.equal(model.sample(LABELS, temperature=1e-4, seed=5).indices, greedy)
    # Greedy takes the likeliest next code at each position.
    first = model.sample(LABELS[:1], temperature=0).indices[0, 0].tolist()
    if head == "joint":
        options = torch.zeros(6, 4, 1, dtype=torch.long)
        options[:, 0, 0] = torch.arange(6)
        nats = model(Tokens.of(model.spec, options), Condition(label=LABELS[:1].expand(6)))
        assert first == [int(nats[:, 0].argmin())]


LOG = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log()


def picks(us, **settings) -> list[int]:
    config = SamplingConfig(**settings)
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


def test_temperature_by_hand():
    # squares of the probabilities: 0.0225, 0.25, 0.0025, 0.09 of 0.365
    assert picks([0.06, 0.063, 0.745, 0.748, 0.754], temperature=0.5) == [0, 1, 1, 2, 3]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -1}, "temperature=-1"),
        ({"top_k": -2}, "top_k=-2"),
        ({"top_p": 0}, "top_p=0"),
        ({"top_p": 1.5}, "top_p=1.5"),
    ],
)
def test_wrong_settings(fails, settings, words):
    with fails(ValueError, words):
        SamplingConfig(**settings)


def test_stopping_at_a_prefix_gives_the_prefix_of_the_whole():
    model = lively(make(prefix="token"))
    whole = model.sample(LABELS, seed=1, guidance=1.5)
    for length in (1, 3):
        part = model.sample(LABELS, length=length, seed=1, guidance=1.5)
        assert torch.equal(part.indices, whole.prefix(length).indices)
        assert part.keep.tolist() == [length] * 6
    assert whole.keep is None
    blocks = lively(make(prefix="block", blocks=((1,), (3,), (2,))))
    whole, part = blocks.sample(LABELS, seed=1), blocks.sample(LABELS, length=2, seed=1)
    assert torch.equal(part.indices, whole.prefix(2).indices) and not part.indices[:, 4:].any()
    inside = lively(make(prefix="per_block", blocks=((3,), (3,))))
    whole, part = inside.sample(LABELS, seed=1), inside.sample(LABELS, length=2, seed=1)
    assert torch.equal(part.indices, whole.prefix(2).indices)


def test_wrong_requests_are_one_line(fails):
    model = make()
    with fails(ValueError, "length=2.*whole sequences"):
        model.sample(LABELS, length=2)
    with fails(ValueError, r"labels lie in 0..2; expected 0..1"):
        model.sample(torch.tensor([0, 2]))
    with fails(ValueError, "name no numbers of samples"):
        model.sample()
    with fails(ValueError, r"name \[2, 3\] numbers of samples"):
        model.sample(torch.tensor([0, 1]), batch=3)
    with fails(ValueError, "trained without classes"):
        make(classes=0).sample(LABELS)
    with fails(ValueError, "no meaning for independent bits"):
        make((2, 2), head="bernoulli").sample(LABELS, top_k=1)


def test_sampling_leaves_the_mode_alone_and_works_in_bf16():
    model = lively(make()).train()
    model.sample(LABELS)
    assert model.training
    model.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for cache in (True, False):
            model.sample(LABELS, guidance=2.0, cache=cache).check()


def test_unconditional_models():
    model = lively(make(classes=0))
    tokens = model.sample(batch=3, seed=0)
    assert torch.equal(tokens.indices, model.sample(index=torch.arange(3), seed=0).indices)
    assert model.loss(tokens, Condition(label=torch.tensor([0, 5, 9])))["nll"].isfinite()


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
    assert model.loss(tokens, Condition())["nll"].item() == pytest.approx(18 * math.log(2), 1e-6)
    # Both writings of the same codes have the same likelihood.
    lively(model)
    assert torch.equal(model(tokens, Condition()), model(tokens.regroup((64, 4096)), Condition()))
    sampled = model.sample(batch=4)
    assert sampled.spec == model.spec and sampled.indices.dtype == torch.int32
    assert int(sampled.check().indices.max()) > 4096
    bits = make((2,) * 12, regroup=(16, 16, 16))
    assert bits.sample(batch=2).check().spec.vocab == (2,) * 12


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
            loaded.sample(LABELS, seed=3).indices, model.sample(LABELS, seed=3).indices
        )


def test_a_regrouped_model_without_names_is_loaded_too(tmp_path):
    model = lively(make((2**18,), regroup=(64, 4096), classes=3))
    model.save_pretrained(tmp_path)
    loaded = load_generator(tmp_path)
    assert loaded.classes == () and loaded.config.classes == 3
    assert torch.equal(loaded.sample(LABELS).indices, model.sample(LABELS).indices)


def test_folders_that_hold_something_else(tmp_path, fails, make_tokenizer):
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    with fails(ConfigError, "not a generator"):
        load_generator(tmp_path / "tokenizer")
    with fails(ConfigError, "neither a local folder"):
        load_generator(tmp_path / "none")
    make().save_pretrained(tmp_path / "autoregressive")
    path = tmp_path / "autoregressive" / "config.json"
    path.write_text(path.read_text().replace('"class_dropout"', '"class_drop"'))
    with fails(ConfigError, "class_drop: unknown key.*'class_dropout'"):
        load_generator(tmp_path / "autoregressive")
