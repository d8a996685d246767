"""Regularizers: distributions of the draws they sample, keyed by sample."""

import pytest
import torch

from vistok.config import ConfigError, load_plugins, validate
from vistok.config.registry import build
from vistok.core.draws import Draws
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.regularizers.latent_perturbation import LatentPerturbationConfig, perturbation_ranks
from vistok.regularizers.nested_dropout import NestedDropoutConfig, keep_lengths
from vistok.regularizers.tail_token_drop import TailTokenDropConfig
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import TokenSpec

# 0.999 quantiles of chi-square by degrees of freedom
LIMIT = {3: 16.3, 4: 18.5, 5: 20.5, 7: 24.3, 9: 27.9, 15: 37.7}


def spec(length: int = 16, **rest) -> TokenSpec:
    return TokenSpec(blocks=((length,),), vocab=(64,), prefix="token", **rest)


def filled(draws) -> set[str]:
    return {name for name, value in vars(draws).items() if value is not None} - {"parts"}


def keeps(config, length: int, count: int = 4000, step: int = 0) -> torch.Tensor:
    rng = Rng(0, config.kind, step)
    draws = build(config).draw(spec(length), torch.arange(count), rng, Progress(step, 10))
    assert filled(draws) == {"keep"} and not draws.parts
    assert draws.keep.dtype == torch.int64 and draws.keep.shape == (count,)
    return draws.keep


def follows(keep: torch.Tensor, shares: dict[int, float]) -> None:
    """Chi-square: only these lengths, and each with its share."""
    seen = dict(zip(*(t.tolist() for t in keep.unique(return_counts=True)), strict=True))
    assert set(seen) == set(shares)
    expected = {k: share * len(keep) for k, share in shares.items()}
    chi = sum((seen[k] - e) ** 2 / e for k, e in expected.items())
    assert chi < LIMIT[len(shares) - 1]


def test_uniform_lengths():
    config = NestedDropoutConfig(lengths="uniform")
    follows(keeps(config, 10), {k: 0.1 for k in range(1, 11)})


def test_powers_of_two_are_equally_likely():
    follows(keeps(NestedDropoutConfig(), 16), {2**i: 0.2 for i in range(5)})
    assert set(keeps(NestedDropoutConfig(), 1).tolist()) == {1}


def test_uniform_then_rounded_up_to_a_power_of_two():
    # of 16: 1, 2, 3-4, 5-8, 9-16; of 12 the last is 9-12, kept as 12
    config = NestedDropoutConfig(lengths="uniform_pow2")
    follows(keeps(config, 16), {1: 1 / 16, 2: 1 / 16, 4: 2 / 16, 8: 4 / 16, 16: 8 / 16})
    follows(keeps(config, 12), {1: 1 / 12, 2: 1 / 12, 4: 2 / 12, 8: 4 / 12, 12: 4 / 12})
    assert set(keeps(config, 1).tolist()) == {1}


def test_edges_of_the_numbers():
    u = torch.tensor([0.0, 1 - 2**-24])
    for lengths in ("uniform", "pow2", "uniform_pow2"):
        assert keep_lengths(u, 256, lengths).tolist() == [1, 256]


def test_pow2_needs_a_power_of_two(fails):
    with fails(ValueError, "the sequence has 12; use uniform_pow2"):
        keep_lengths(torch.zeros(1), 12, "pow2")


def test_full_share_keeps_everything():
    # 0.3 + 0.7 / 5 of them keep all 16
    shares = {2**i: 0.7 / 5 for i in range(5)}
    shares[16] += 0.3
    follows(keeps(NestedDropoutConfig(full=0.3), 16), shares)
    assert set(keeps(NestedDropoutConfig(full=1.0), 16).tolist()) == {16}


def test_per_batch_gives_one_length_a_step():
    config = NestedDropoutConfig(lengths="uniform", per="batch")
    lengths = [keeps(config, 10, 4, step) for step in range(400)]
    assert all(len(set(k.tolist())) == 1 for k in lengths)
    follows(torch.stack(lengths)[:, 0], {k: 0.1 for k in range(1, 11)})


def test_dice_belong_to_the_sample():
    config, rng = NestedDropoutConfig(lengths="uniform"), Rng(0, "nested_dropout", 3)
    draw = lambda index: build(config).draw(spec(), index, rng, Progress(3, 9)).keep
    whole = draw(torch.arange(100))
    picked = torch.tensor([99, 3, 50])
    assert torch.equal(draw(picked), whole[picked])


def test_blocks_are_dropped_as_blocks():
    blocks = TokenSpec(blocks=((1, 1), (2, 2), (4, 4)), vocab=(8,), prefix="block")
    config = NestedDropoutConfig(lengths="uniform")
    draws = build(config).draw(blocks, torch.arange(200), Rng(0), Progress(0, 1))
    assert set(draws.keep.tolist()) == {1, 2, 3}


def test_tail_token_drop_is_uniform_and_one_for_the_batch():
    config = TailTokenDropConfig()
    assert config.per == "batch"
    lengths = [keeps(config, 8, 3, step) for step in range(800)]
    assert all(len(set(k.tolist())) == 1 for k in lengths)
    follows(torch.stack(lengths)[:, 0], {k: 1 / 8 for k in range(1, 9)})
    follows(keeps(TailTokenDropConfig(per="sample"), 8), {k: 1 / 8 for k in range(1, 9)})


# -- latent perturbation ---------------------------------------------------------------------------


def ranks(batch: int = 400, epoch: float = 0.0, length: int = 30, seed: int = 0, **options):
    config = LatentPerturbationConfig(**options)
    draws = build(config).draw(
        spec(length), torch.arange(batch), Rng(seed, "p"), Progress(0, 1, epoch)
    )
    assert filled(draws) <= {"ranks", "top_rank"} and not draws.parts
    assert draws.ranks is None or draws.ranks.max() <= draws.top_rank
    return draws.ranks


def test_rates_and_neighbours():
    r = ranks(rate=0.6, proportion=1.0, neighbours=10)
    assert r.shape == (400, 30, 1) and r.dtype == torch.int64
    # A tenth of the drawn ranks is 0: 12,000 tokens change with 0.6 * 9 / 10, +- 0.0045.
    assert abs(float((r > 0).float().mean()) - 0.54) < 0.015
    counts = torch.bincount(r[r > 0], minlength=10)[1:].float()
    assert len(counts) == 9
    assert float(((counts - counts.mean()) ** 2 / counts.mean()).sum()) < 26.1  # 8 degrees


@pytest.mark.parametrize(
    ("batch", "proportion", "images"),
    [(10, 0.1, 1), (10, 0.25, 2), (10, 0.99, 9), (10, 1.0, 10), (8, 0.1, 0), (400, 0.5, 200)],
)
@pytest.mark.parametrize("choose", ["global", "first_local"])
def test_exactly_the_floor_of_the_share_is_perturbed(batch, proportion, images, choose):
    r = ranks(batch, proportion=proportion, neighbours=10**6, choose=choose)
    hit = (r > 0).any(1).flatten()
    assert int(hit.sum()) == images
    if choose == "first_local":
        assert hit[:images].all()


def test_global_choice_is_keyed_and_fair():
    hits = torch.stack(
        [(ranks(10, proportion=0.3, neighbours=10**6, seed=s) > 0).any(1)[:, 0] for s in range(300)]
    )
    # each of ten images in 90 of 300 draws, +- 8
    assert hits.sum(0).min() > 60 and hits.sum(0).max() < 120


def test_a_sample_that_is_twice_in_the_batch_does_not_add_an_image():
    part = build(LatentPerturbationConfig(proportion=0.5, neighbours=10**6))
    index = torch.tensor([3, 3, 3, 3])
    r = part.draw(spec(), index, Rng(0, "p"), Progress(0, 1)).ranks
    assert int((r > 0).any(1).sum()) == 2


def test_branches_draw_apart():
    two = TokenSpec(blocks=((30,),), vocab=(8, 8), branches=2)
    part = build(LatentPerturbationConfig(proportion=1.0, neighbours=1000))
    r = part.draw(two, torch.arange(3), Rng(0, "p"), Progress(0, 1)).ranks
    assert r.shape == (3, 30, 2) and not torch.equal(r[..., 0], r[..., 1])


@pytest.mark.parametrize(
    ("epoch", "alpha", "delta"),
    # 1 - (e - 40) / 80 * 0.5 of alpha 0.8 and delta 101, truncated; whole epochs only
    [
        (0, 0.8, 101),
        (39.9, 0.8, 101),
        (40.99, 0.8, 101),
        (41, 0.8 * 0.99375, 100),
        (80, 0.6, 75),
        (119.5, 0.8 * (1 - 79 / 160), 51),
        (120, 0.4, 50),
        (200, 0.4, 50),
    ],
)
def test_annealing(epoch, alpha, delta):
    part = build(LatentPerturbationConfig(rate=0.8, neighbours=101))
    rate, neighbours = part.strength(epoch)
    assert rate == pytest.approx(alpha) and neighbours == delta


def test_no_annealing():
    part = build(LatentPerturbationConfig(rate=0.7, neighbours=9, anneal=None))
    assert part.strength(1000) == (0.7, 9)


@pytest.mark.parametrize(
    "options",
    [{"rate": 0.0}, {"proportion": 0.0}, {"neighbours": 1, "anneal": (0, 1), "end_ratio": 0.5}],
)
def test_nothing_to_perturb_samples_nothing(options):
    assert ranks(epoch=5.0, **options) is None


def test_ranks_obey_the_recorded_numbers():
    u, r = torch.tensor([0.0, 0.5, 0.50001, 0.9]), torch.tensor([4, 5, 6, 7])
    assert perturbation_ranks(u, r, 0.5).tolist() == [4, 5, 0, 0]


# -- in a tokenizer --------------------------------------------------------------------------------

DROPOUT = {"kind": "nested_dropout", "lengths": "uniform"}
PERTURB = {"kind": "latent_perturbation", "proportion": 1.0, "neighbours": 8}


def test_draws_change_training_and_without_them_it_is_evaluation(make_tokenizer):
    tokenizer = make_tokenizer(regularizers=[DROPOUT, PERTURB])
    batch = Batch(index=torch.arange(6), pixels=torch.rand(6, 3, 8, 8))
    draws = tokenizer.draw(batch.index, 0, Progress(0, 10))
    assert draws.keep is not None and draws.ranks is not None
    plain = tokenizer(batch)
    assert torch.equal(tokenizer(batch, Draws()).pixels, plain.pixels)
    noisy = tokenizer(batch, draws)
    assert torch.equal(noisy.quantized.indices, plain.quantized.indices)
    assert ((noisy.pixels - plain.pixels).abs().amax(dim=(1, 2, 3)) > 0).any()
    # Evaluation samples nothing, in training mode neither.
    decoded = tokenizer.decode(tokenizer.train().encode(batch.pixels))
    assert torch.equal(decoded, plain.pixels.clamp(0, 1))


def test_the_draws_of_a_step_do_not_depend_on_the_split(make_tokenizer):
    tokenizer = make_tokenizer(regularizers=[DROPOUT, {**PERTURB, "proportion": 1.0}])
    whole = tokenizer.draw(torch.arange(8), 5, Progress(3, 10))
    half = tokenizer.draw(torch.arange(4, 8), 5, Progress(3, 10))
    assert torch.equal(whole.keep[4:], half.keep) and torch.equal(whole.ranks[4:], half.ranks)
    other = tokenizer.draw(torch.arange(8), 5, Progress(4, 10))
    assert not torch.equal(other.ranks, whole.ranks)


def test_two_that_claim_one_field(make_tokenizer, fails):
    with fails(ConfigError, "'nested_dropout' and 'tail_token_drop' both fill 'keep'"):
        make_tokenizer(regularizers=[DROPOUT, {"kind": "tail_token_drop"}])


def test_lengths_that_do_not_fit_are_found_before_training(make_tokenizer, fails):
    pow2 = {"kind": "nested_dropout", "lengths": "pow2"}
    make_tokenizer(regularizers=[pow2], latents={"count": 8})
    with fails(ConfigError, "'nested_dropout': .*the sequence has 6; use uniform_pow2"):
        make_tokenizer(regularizers=[pow2], latents={"count": 6})


def test_a_decoder_that_cannot_cut_is_a_config_error(make_tokenizer, fails):
    with fails(ConfigError, "'nested_dropout' shortens", "missing.*'mask_token' or 'drop'"):
        make_tokenizer(missing="refuse", regularizers=[DROPOUT])


def test_a_decoder_without_that_key_is_not_told_to_set_it(tree, fails):
    conv = {"channels": 4, "channel_mult": [1, 2], "blocks": 1, "mid_blocks": 1, "norm_groups": 2}
    config = tree(regularizers=[DROPOUT])
    config |= {name: {"kind": "cnn", "conv": conv} for name in ("encoder", "decoder")}
    with fails(ConfigError, "this decoder serves no prefix; where it has .*another decoder"):
        Tokenizer(validate(TokenizerConfig, config))


def test_only_codes_are_perturbed(tree, fails):
    config = tree(regularizers=[PERTURB]) | {"quantizer": {"kind": "kl", "dim": 3}}
    with fails(ConfigError, r"'latent_perturbation': .*none \(vocab=\(\)\)"):
        Tokenizer(validate(TokenizerConfig, config))


def test_latents_that_no_token_stores_stay_clean(tree):
    load_plugins(["tests.support.fake_parts"])
    config = tree(regularizers=[PERTURB], kind="padded", latents={"count": 5})
    tokenizer = Tokenizer(validate(TokenizerConfig, config)).train()
    batch = Batch(index=torch.arange(6), pixels=torch.rand(6, 3, 8, 8))
    draws = tokenizer.draw(batch.index, 0, Progress(0, 10))
    assert draws.ranks.shape == (6, 4, 1)
    quantized = tokenizer(batch, draws).quantized
    moved = (quantized.values - quantized.clean).abs().amax(-1) > 1e-3
    assert moved.shape == (6, 5) and not moved[:, 4].any()
    assert torch.equal(moved[:, :4].any(), (draws.ranks > 0).any())
