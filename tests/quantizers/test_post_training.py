"""Post-training quantization: values in the autoencoder's own units; residual codes as factors."""

import pytest
import torch

from vistok.config import ConfigError, validate_part
from vistok.config.registry import build
from vistok.core.draws import Draws, PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Latents
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.quantizers.atoms.fsq import FSQConfig
from vistok.quantizers.compose.residual import ResidualConfig


def made(kind: str = "post_training", **options):
    torch.manual_seed(0)
    return build(validate_part("quantizer", {"kind": kind, **options})).eval()


def lat(z, grids=None) -> Latents:
    return Latents(z, grids or ((z.shape[1],),))


SCALAR = {"kind": "scalar", "dim": 3, "levels": 16}


def test_what_is_given_back_is_in_the_units_of_the_latents():
    wide = 40 * torch.randn(4, 50, 3) + torch.tensor([100.0, -5.0, 0.0])
    quantizer = made(reads={"kind": "none", "dim": 3}, quantizer={**SCALAR, "range": 3.0})
    assert quantizer.wants_data
    quantizer.initialize(lat(wide), Rng(0))
    assert not quantizer.wants_data
    result = quantizer(lat(wide))
    u = (wide - quantizer.shift) * quantizer.scale
    torch.testing.assert_close(u.mean((0, 1)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(u.std((0, 1), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    assert torch.equal(result.indices, quantizer.quantizer(lat(u)).indices)
    assert ((result.values - wide).square().mean((0, 1)).sqrt() < 40 / 4).all()
    again = made(reads={"kind": "none", "dim": 3}, quantizer={**SCALAR, "range": 3.0})
    again.load_state_dict(quantizer.state_dict())
    assert torch.equal(again(lat(wide)).values, result.values) and not again.wants_data


def test_a_posterior_is_read_by_its_mean_and_sampled_in_training_on_request():
    given = {"reads": {"kind": "kl", "dim": 3}, "normalize": "given", "scale": 0.2325}
    z = torch.cat([5 * torch.randn(2, 6, 3), torch.zeros(2, 6, 3)], -1)
    for sample in (False, True):
        quantizer = made(**given, quantizer=SCALAR, sample=sample)
        layout, index = quantizer.layout(((6,),)), torch.arange(2)
        drawn = quantizer.draw(layout, index, Rng(0), Progress(0, 1))
        assert (drawn is not None) == sample
        assert torch.equal(
            quantizer(lat(z)).queries, quantizer.quantizer(lat(z[..., :3] * 0.2325)).queries
        )
    noise = torch.randn(2, 6, 3)
    result = quantizer(lat(z), Draws(parts={"quantizer": PartDraws(noise=noise)}))
    expected = quantizer.quantizer(lat((z[..., :3] + noise) * 0.2325))
    assert torch.equal(result.indices, expected.indices)
    assert torch.equal(result.values, expected.values / 0.2325)
    assert set(result.losses) == {"kl"} and quantizer.loss_weights == {"kl": 1e-6}


@pytest.mark.parametrize("bound", ["tanh", "ifsq"])
def test_fsq_gives_the_middle_of_each_level_before_its_bound(bound):
    quantizer = build(FSQConfig(levels=(8, 5, 2, 3), bound=bound))
    z = torch.randn(3, 200, 4)
    result = quantizer(lat(z))
    restored = quantizer.restored(result.values)
    assert torch.isfinite(restored).all()
    assert torch.equal(quantizer(lat(restored)).indices, result.indices)
    through = quantizer.bound(restored) / quantizer.middle
    torch.testing.assert_close(through, result.values, atol=1e-4, rtol=0)
    fine = build(FSQConfig(levels=(255,), bound=bound))
    z = torch.linspace(-2, 2, 401)[None, :, None]
    assert (fine.restored(fine(lat(z)).values) - z).abs().max() < 0.15


VQ = {"kind": "vq", "codebook_size": 8, "dim": 4, "l2_norm": False, "init": "kmeans"}


@pytest.mark.parametrize("shared", [False, True])
def test_residual_codes_as_factors_are_those_of_blocks(shared):
    both = {
        arrange: made("residual", levels=3, shared=shared, arrange=arrange, quantizer=VQ)
        for arrange in ("blocks", "factors")
    }
    z = torch.randn(2, 30, 4)
    for quantizer in both.values():
        quantizer.initialize(lat(z), Rng(1))
        quantizer.layout(((30,),))
    blocks, factors = (one(lat(z)) for one in both.values())
    assert torch.equal(blocks.values, factors.values)
    assert torch.equal(torch.stack(blocks.indices.chunk(3, 1), -1)[:, :, 0], factors.indices)
    spec = both["factors"].layout(((2, 3), (4,))).spec  # any grids
    assert spec.blocks == ((2, 3), (4,)) and spec.vocab == (8,) * 3 and spec.branches == 3
    spec = both["factors"].layout(((30,),), stored=20).spec
    assert spec.blocks == ((20,),) and spec.prefix == "none"
    ranks = torch.zeros(2, 30, 3, dtype=torch.long)
    ranks[1, 4, 2] = 1
    moved = both["factors"](lat(z), Draws(ranks=ranks, top_rank=1))
    changed = (moved.values != factors.values).any(-1)
    assert changed.nonzero().tolist() == [[1, 4]]


def test_each_level_is_made_of_what_the_earlier_ones_miss():
    z = torch.randn(1, 4000, 4)
    errors = []
    for levels in (1, 2, 3):
        quantizer = made("residual", levels=levels, shared=False, quantizer=VQ)
        quantizer.layout(((4000,),))
        quantizer.initialize(lat(z), Rng(1))
        for atom in quantizer.atoms:
            assert len(atom.codebook.unique(dim=0)) == 8
        errors.append((quantizer(lat(z)).values - z).square().mean().item())
    assert errors[1] < 0.75 * errors[0] and errors[2] < 0.75 * errors[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quantizer": {**SCALAR, "dim": 4}}, "quantizes 4 channels, and 'none' gives 3"),
        ({"quantizer": {"kind": "none", "dim": 3}}, "expected a continuous one .none, kl."),
        ({"reads": SCALAR, "quantizer": SCALAR}, "expected a continuous one"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_named(fails, options, said):
    with fails(ConfigError, said):
        made(**{"reads": {"kind": "none", "dim": 3}, **options})


FSQ = {"kind": "fsq", "levels": [5, 5, 5, 5]}
HALVES = {"kind": "product", "branches": 2, "quantizer": {"kind": "fsq", "levels": [5, 5]}}


@pytest.mark.parametrize("atom", [FSQ, HALVES], ids=["fsq", "product"])
def test_residual_levels_behind_a_bound_sum_up_to_the_latents(atom):
    torch.manual_seed(0)
    z = 3 * torch.randn(16, 40, 4) + 1
    levels = {"kind": "residual", "levels": 4, "shared": False, "quantizer": atom}
    quantizer = made(reads={"kind": "none", "dim": 4}, quantizer=levels)
    quantizer.layout(((40,),))
    quantizer.initialize(lat(z), Rng(0))
    result = quantizer(lat(z))
    assert torch.equal(quantizer.lookup(result.indices), result.values)
    assert (result.values - z).square().mean() < 0.05 * z.var()


def test_residual_levels_of_a_product_of_bounds_learn_as_those_of_one():
    whole, halves = (
        made("residual", levels=3, shared=False, quantizer=atom).train() for atom in (FSQ, HALVES)
    )
    gradients = []
    for quantizer in (whole, halves):
        torch.manual_seed(0)
        z = torch.randn(2, 6, 4, requires_grad=True)
        quantizer.layout(((6,),))
        result = quantizer(lat(z))
        assert result.losses == {} and quantizer.loss_weights == {}
        result.values.square().sum().backward()
        gradients.append(z.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("quantizer", "said"),
    [
        ({"kind": "lfq", "bits": 4, "sphere": True}, "sphere=true .* set sphere=false"),
        ({**VQ, "search": "cosine"}, "search=cosine .* set search=euclidean"),
        (
            {"kind": "multi_scale", "scales": [1, 2], "quantizer": VQ},
            "'multi_scale' with phi .* set phi=null",
        ),
    ],
    ids=["sphere", "cosine", "phi"],
)
def test_codes_that_no_trained_decoder_can_read_are_refused(fails, quantizer, said):
    with fails(InputError, said):
        made(reads={"kind": "none", "dim": 4}, quantizer=quantizer)


def test_a_prefix_of_factors_is_the_decoders():
    config = ResidualConfig(
        levels=2, arrange="factors", shared=False, quantizer=VQ | {"init": "normal"}
    )
    quantizer = build(config).eval()
    z = torch.randn(3, 5, 4)
    quantizer.layout(((5,),))
    keep = torch.tensor([1, 3, 5])
    whole, cut = quantizer(lat(z)), quantizer(lat(z), Draws(keep=keep))
    assert torch.equal(whole.values, cut.values)
    assert torch.equal(quantizer.lookup(whole.indices, keep), whole.values)
