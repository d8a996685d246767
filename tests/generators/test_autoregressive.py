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
from vistok.generators.guidance import guide
from vistok.generators.heads import choose_head, make_head
from vistok.generators.sampling import ChoiceConfig, choose
from vistok.tokens import Tokens, TokenSpec

SMALL = {"width": 16, "depth": 1, "heads": 2, "norm": "rmsnorm", "mlp": "swiglu", "bias": False}
HEADS = {"joint": (6,), "independent": (3, 2), "causal": (3, 2), "bernoulli": (2, 2, 2)}


def make(
    vocab=(6,), length: int = 4, classes: int = 2, prefix="none", blocks=None, **options
) -> Autoregressive:
    torch.manual_seed(2)
    spec = TokenSpec(blocks=blocks or ((length,),), vocab=vocab, prefix=prefix)
    condition = {"classes": classes, **options.pop("condition", {})}
    data = {"transformer": SMALL, "condition": condition, **options}
    return Autoregressive(validate(AutoregressiveConfig, data), spec)


def lively(model: Autoregressive) -> Autoregressive:
    """Heads away from zero, so that everything has an influence."""
    torch.manual_seed(3)
    for parameter in model.head.out.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    torch.nn.init.normal_(model.condition.label.weight)
    return model.eval()


def tokens_of(model: Autoregressive, batch: int = 5, seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    spec = model.spec
    columns = [torch.randint(v, (batch, spec.length), generator=generator) for v in spec.vocab]
    return Tokens.of(spec, torch.stack(columns, -1))


def sample(
    model: Autoregressive, given: torch.Tensor | int, *, seed=0, index=None, length=None, **changes
) -> Tokens:
    """Samples of classes, or of a number without a class, under changed settings."""
    label = given if isinstance(given, torch.Tensor) else None
    index = torch.arange(given if label is None else len(label)) if index is None else index
    condition = Condition(label=label)
    return model.sample(condition, index=index, seed=seed, length=length, sampling=changes)


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


# -- sampling --------------------------------------------------------------------------------------

LABELS = torch.tensor([0, 1, 1, 0, 0, 1])


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
    with fails(ConfigError, "not a generator"):
        load_generator(tmp_path / "tokenizer")
    with fails(ConfigError, "neither a local folder"):
        load_generator(tmp_path / "none")
    make().save_pretrained(tmp_path / "autoregressive")
    path = tmp_path / "autoregressive" / "config.json"
    path.write_text(path.read_text().replace('"regroup"', '"regruop"'))
    with fails(ConfigError, "regruop: unknown key.*'regroup'"):
        load_generator(tmp_path / "autoregressive")
