"""Product, multi-scale and residual quantizers: sums, draws, losses and upkeep."""

import math

import pytest
import torch
import torch.nn.functional as F

from vistok.config import ConfigError, validate_part
from vistok.config.registry import build
from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Latents
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import cells
from vistok.quantizers.compose.phi import nearest_ticks

VQ = {"kind": "vq", "codebook_size": 12, "dim": 4, "l2_norm": False, "init": "normal"}
COSINE = VQ | {"search": "cosine"}
BSQ = {"kind": "lfq", "bits": 4, "sphere": True}
SCALES = {"kind": "multi_scale", "scales": [1, 2, 3]}
CONFIGS = {
    "multi_scale": SCALES | {"quantizer": VQ, "phi": None},
    "cosine_phi": SCALES | {"quantizer": COSINE, "phi": {"count": 2}},
    "bsq": SCALES | {"quantizer": BSQ, "normalize": True, "magnitude": 0.5, "phi": {"count": None}},
    "residual": {"kind": "residual", "levels": 3, "quantizer": VQ},
    "residual_own": {"kind": "residual", "levels": 3, "quantizer": VQ, "shared": False},
    "product": {"kind": "product", "quantizer": VQ},
    "folded": {
        "kind": "product",
        "split": "grids",
        "branches": 3,
        "quantizer": SCALES | {"quantizer": COSINE},
    },
    "folded_bsq": {
        "kind": "product",
        "split": "grids",
        "quantizer": SCALES | {"quantizer": BSQ, "normalize": True},
    },
    "entropies": SCALES
    | {
        "quantizer": VQ
        | {
            "entropy_temperature": 1.0,
            "loss_weights": {
                "codebook": 1.0,
                "commitment": 0.25,
                "entropy_sample": 0.1,
                "entropy_batch": -0.1,
            },
        }
    },
    "scales_of_signs": SCALES | {"quantizer": {"kind": "product", "quantizer": BSQ}},
    "scales_of_products": SCALES | {"quantizer": {"kind": "product", "quantizer": VQ | {"dim": 3}}},
}
every = pytest.mark.parametrize("name", CONFIGS)
leveled = pytest.mark.parametrize("name", [n for n in CONFIGS if n != "product"])


def make(tree):
    torch.manual_seed(3)
    quantizer = build(validate_part("quantizer", tree))
    quantizer.made = quantizer.layout(grids(quantizer))
    return quantizer


def grids(quantizer):
    folded = getattr(quantizer.config, "split", None) == "grids"
    return ((3, 3),) * (quantizer.config.branches if folded else 1)


def latents(quantizer, batch=4, seed=0):
    own = grids(quantizer)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, 9 * len(own), quantizer.latent_dim, generator=generator)
    return Latents(values, own)


def atoms(quantizer):
    return [m for m in quantizer.modules() if type(m).__name__ in ("VQ", "LFQ")]


# -- what holds for all ----------------------------------------------------------------------------


@every
def test_lookup_gives_what_forward_gives(name):
    quantizer = make(CONFIGS[name]).eval()
    spec, layout = quantizer.made.spec, quantizer.made
    result = quantizer(latents(quantizer))
    assert result.indices.shape == (4, spec.length, len(spec.vocab))
    assert result.queries.shape[:3] == (4, spec.length, spec.branches)
    assert result.values.shape == (4, layout.count, layout.dim) and layout.values == ((3, 3),)
    assert torch.equal(result.values, quantizer.lookup(result.indices))
    assert torch.equal(result.clean, result.values)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = quantizer(latents(quantizer))
        assert torch.equal(quantizer.lookup(cast.indices), result.values)
    assert torch.equal(cast.values, result.values) and cast.values.dtype == torch.float32


@every
def test_perturbation_replaces_codes_of_one_branch_at_one_position(name):
    quantizer = make(CONFIGS[name]).train()
    z = latents(quantizer)
    clean = quantizer(z)
    spec = quantizer.made.spec
    ranks = torch.zeros(4, spec.length, spec.branches, dtype=torch.long)
    assert torch.equal(quantizer.perturb(clean.queries, ranks), clean.indices)
    assert torch.equal(quantizer(z, Draws(ranks=ranks)).values, clean.values)
    ranks[2, spec.length - 1, spec.branches - 1] = 2
    moved = quantizer.perturb(clean.queries, ranks)
    assert (moved != clean.indices).nonzero()[:, 0].unique().tolist() == [2]
    share = len(spec.vocab) // spec.branches
    assert torch.equal(moved[..., :-share], clean.indices[..., :-share])
    result = quantizer(z, Draws(ranks=ranks))
    assert torch.equal(result.values, quantizer.lookup(moved))
    assert torch.equal(result.indices, clean.indices) and torch.equal(result.clean, clean.clean)
    near = quantizer.neighbours(clean.queries, 10**6)
    assert near.shape[3] == math.prod(spec.vocab[:share])


@every
def test_every_used_parameter_learns(name):
    quantizer = make(CONFIGS[name]).train()
    z = latents(quantizer)
    z.values.requires_grad_()
    result = quantizer(z)
    total = sum(quantizer.loss_weights[n] * loss for n, loss in result.losses.items())
    assert set(result.losses) == set(quantizer.loss_weights)
    (total + result.values.square().sum()).backward()
    assert z.values.grad.abs().sum() > 0
    for key, parameter in quantizer.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key


# -- levels ----------------------------------------------------------------------------------------


@leveled
def test_levels_and_prefixes_leave_values_out_and_codes_as_they_are(name):
    quantizer = make(CONFIGS[name]).eval()
    z, spec = latents(quantizer), quantizer.made.spec
    assert spec.prefix == "block" and spec.max_prefix == 3
    clean = quantizer(z)
    keep = torch.tensor([1, 2, 3, 2])
    levels = torch.arange(3) < keep[:, None]
    dropped = quantizer(z, Draws(levels=levels))
    assert torch.equal(dropped.indices, clean.indices)
    assert torch.equal(dropped.queries, clean.queries)
    assert torch.equal(dropped.clean, clean.values)
    assert torch.equal(dropped.values, quantizer.lookup(clean.indices, keep))
    assert torch.equal(dropped.values, quantizer(z, Draws(keep=keep)).values)
    for row, kept in enumerate(keep.tolist()):
        partial = quantizer.partial(clean.indices, kept, (3, 3))
        assert torch.equal(dropped.values[row], partial[row])
    # Perturbed images keep their dropped levels out.
    ranks = torch.ones(4, spec.length, spec.branches, dtype=torch.long)
    both = quantizer(z, Draws(levels=levels, ranks=ranks))
    moved = quantizer.perturb(clean.queries, ranks)
    assert torch.equal(both.values, quantizer.lookup(moved, keep))


@leveled
def test_losses_of_a_level_are_those_of_the_images_that_keep_it(name):
    quantizer = make(CONFIGS[name])
    z = latents(quantizer)
    only_first = torch.tensor([[True, False, False]])
    some = lambda rows, levels=None: (
        quantizer(Latents(z.values[rows], z.grids), Draws(levels=levels)).losses
    )
    levels = torch.tensor([[True, False, False], *[[True] * 3] * 3])
    mixed, whole = some(slice(0, 4), levels), some(slice(1, 4))
    lone, others = some(slice(0, 1), only_first), some(slice(1, 4), only_first.expand(3, 3))
    for loss in set(mixed) - {"entropy_batch"}:  # means over images
        expected = whole[loss] - others[loss] + (lone[loss] + 3 * others[loss]) / 4
        assert torch.allclose(mixed[loss], expected, atol=1e-6)
    everyone = quantizer(z, Draws(levels=torch.ones(4, 3, dtype=torch.bool))).losses
    for loss, value in some(slice(0, 4)).items():
        assert torch.allclose(everyone[loss], value, atol=1e-6)


def test_two_scales_by_hand():
    quantizer = make(
        {
            "kind": "multi_scale",
            "scales": [1, 3],
            "phi": None,
            "quantizer": {"kind": "vq", "codebook_size": 3, "dim": 1, "l2_norm": False},
        }
    )
    with torch.no_grad():
        quantizer.atom(0).codebook.copy_(torch.tensor([[4.0], [1.0], [-2.0]]))
    z = torch.full((1, 9, 1), 5.0)
    z[0, 0, 0] = 1.4  # mean 4.6: code 4, which leaves 1 and -2.6
    z.requires_grad_()
    result = quantizer(Latents(z, ((3, 3),)))
    assert result.indices.flatten().tolist() == [0, 2, *[1] * 8]
    assert torch.allclose(result.queries.flatten(), torch.tensor([4.6, -2.6, *[1.0] * 8]))
    assert torch.allclose(result.values.flatten(), torch.tensor([2.0, *[5.0] * 8]))
    # After one scale (2.6^2 + 8) / 9, after two 0.6^2 / 9.
    expected = ((2.6**2 + 8) / 9 + 0.6**2 / 9) / 2
    assert result.losses["codebook"].item() == pytest.approx(expected, abs=1e-5)
    assert result.losses["commitment"].item() == pytest.approx(expected, abs=1e-5)
    result.losses["codebook"].backward(retain_graph=True)
    # Code 4 is in both sums: 2 (4 - z) and 2 (sum - z), over 9 values and 2 scales.
    both = 2 * (2.6 - 8) / 18 + 2 * 0.6 / 18
    rows = [both, 0.0, 2 * 0.6 / 18]
    assert quantizer.atom(0).codebook.grad.flatten().tolist() == pytest.approx(rows, abs=1e-5)
    assert z.grad is None
    result.values.sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z))


def test_scales_are_averaged_down_and_interpolated_up():
    tree = SCALES | {"scales": [2, 4], "quantizer": VQ, "phi": {"count": 1}}
    quantizer = build(validate_part("quantizer", tree))
    maps = torch.randn(2, 4, 4, 4)
    flat = lambda m: m.flatten(2).transpose(1, 2)
    assert torch.allclose(quantizer.down(flat(maps), 0), flat(F.avg_pool2d(maps, 2)))
    small = F.avg_pool2d(maps, 2)
    phi = quantizer.phis.of(0)
    smooth = lambda h: 0.5 * h + 0.5 * F.conv2d(h, phi.weight, phi.bias, padding=1)
    up = F.interpolate(small, (4, 4), mode="bicubic", align_corners=False)
    assert torch.allclose(quantizer.up(flat(small), 0), flat(smooth(up)), atol=1e-6)
    assert torch.allclose(quantizer.up(flat(maps), 1), flat(smooth(maps)), atol=1e-6)
    assert torch.equal(quantizer.down(flat(maps), 1), flat(maps))


def test_convolutions_are_shared_by_the_nearest_tick():
    assert nearest_ticks(1, 5) == [0] * 5 and nearest_ticks(5, 5) == [0, 1, 2, 3, 4]
    assert nearest_ticks(4, 1) == [0] and nearest_ticks(2, 3) == [0, 0, 1]  # a tie: the lower
    # VAR's ten scales: ticks at 1/12, 13/36, 23/36 and 11/12; scales 2 and 7 are ties, which
    # rounding decides as in the original.
    assert nearest_ticks(4, 10) == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    phis = make(SCALES | {"quantizer": VQ, "scales": [1, 3]}).phis
    assert [p.weight.requires_grad for p in phis] == [True, False, False, True]


def test_cosine_search_adds_rows_as_they_are_stored():
    quantizer = make({"kind": "residual", "levels": 1, "quantizer": COSINE | {"dim": 2}}).eval()
    with torch.no_grad():
        quantizer.atom(0).codebook[:] = torch.tensor([[0.0, 9.0]])
        quantizer.atom(0).codebook[0] = torch.tensor([0.1, 0.01])
    z = torch.tensor([[[5.0, 4.0]] * 9])  # nearer to (0, 9), but the direction is that of (1, 0.1)
    result = quantizer(Latents(z, ((3, 3),)))
    assert result.indices[0, 0].item() == 0
    assert torch.allclose(result.values[0, 0], torch.tensor([0.1, 0.01]))


def test_magnitudes_of_bsq_levels():
    quantizer = make(CONFIGS["bsq"] | {"phi": None}).eval()
    result = quantizer(latents(quantizer))
    codes = quantizer.partial(result.indices, 1, (3, 3))
    assert torch.allclose(codes.abs(), torch.tensor(0.5))  # 1 / sqrt(4)
    both = quantizer.partial(result.indices, 3, (3, 3)) - quantizer.partial(
        result.indices, 2, (3, 3)
    )
    assert torch.allclose(both.abs(), torch.tensor(0.125))


@pytest.mark.parametrize("shared", [True, False])
def test_residual_levels_start_from_what_earlier_ones_miss(shared):
    atom = VQ | {"codebook_size": 3, "dim": 1, "init": "data"}
    quantizer = make({"kind": "residual", "levels": 2, "quantizer": atom, "shared": shared})
    assert quantizer.wants_data
    z = torch.tensor([[[1.0], [2.0], [3.0]]])
    quantizer.layout(((3,),))
    quantizer.initialize(Latents(z, ((3,),)), Rng(0))
    assert not quantizer.wants_data
    rows = torch.cat([a.codebook.flatten() for a in quantizer.atoms]).tolist()
    # Level 1 of an exact code for everything searches for zeros.
    assert set(rows) <= {0.0, 1.0, 2.0, 3.0} and (shared or rows[3:] == [0.0] * 3)


def test_shapes_are_known_without_numbers():
    """A dry run passes tensors of the meta device, which autocast does not know."""
    with torch.device("meta"):
        quantizer = make(CONFIGS["folded"])
        own = grids(quantizer)
        result = quantizer(Latents(torch.empty(2, 27, 4), own))
        found = quantizer.perturb(result.queries, torch.zeros(2, 14, 3, dtype=torch.long), 3)
    assert result.values.shape == (2, 9, 12) and found.shape == (2, 14, 3)


@pytest.mark.slow
def test_branches_of_scales_are_one_graph():
    quantizer = make(CONFIGS["folded"] | {"branches": 2}).train()
    z, draws = latents(quantizer), Draws(levels=torch.tensor([[True, True, False]] * 4))
    eager = quantizer(z, draws)
    traced = torch.compile(quantizer, backend="aot_eager", fullgraph=True)(z, draws)
    assert torch.equal(eager.indices, traced.indices)
    assert torch.allclose(eager.values, traced.values, atol=1e-6)
    for name, loss in eager.losses.items():
        assert torch.allclose(loss, traced.losses[name], atol=1e-6)


# -- branches --------------------------------------------------------------------------------------


def test_a_product_is_its_parts_side_by_side():
    quantizer = make(CONFIGS["folded"]).eval()
    z, spec = latents(quantizer), quantizer.made.spec
    result = quantizer(z)
    assert (spec.vocab, spec.branches, spec.dim) == ((12,) * 3, 3, 12)
    assert spec.blocks == ((1, 1), (2, 2), (3, 3)) and quantizer.latent_dim == 4
    losses = []
    for p, part in enumerate(quantizer.parts):
        own = part(Latents(z.values[:, 9 * p : 9 * p + 9], ((3, 3),)))
        assert torch.equal(own.values, result.values[..., 4 * p : 4 * p + 4])
        assert torch.equal(own.indices[..., 0], result.indices[..., p])
        assert torch.equal(own.queries[:, :, 0], result.queries[:, :, p])
        losses.append(own.losses["commitment"])
    assert torch.allclose(result.losses["commitment"], torch.stack(losses).mean())
    books = [atom.codebook for atom in atoms(quantizer)]
    assert not torch.equal(books[0], books[1])


def test_channels_are_shared_out_in_order():
    quantizer = make(CONFIGS["product"]).eval()
    z = latents(quantizer)
    result = quantizer(z)
    assert quantizer.latent_dim == 8
    for p, part in enumerate(quantizer.parts):
        own = part(Latents(z.values[..., 4 * p : 4 * p + 4], z.grids))
        assert torch.equal(own.indices[..., 0], result.indices[..., p])


def test_stochastic_branches_draw_apart():
    quantizer = make(
        {"kind": "product", "quantizer": {"kind": "binary", "bits": 3, "dim": 3}}
    ).train()
    drawn = quantizer.draw(quantizer.made, torch.arange(4), Rng(0, "q"), Progress(0, 1))
    assert drawn.uniform.shape == (4, 2, 9, 3)
    assert not torch.equal(drawn.uniform[:, 0], drawn.uniform[:, 1])
    low = PartDraws(uniform=torch.stack([torch.zeros(4, 9, 3), torch.ones(4, 9, 3)], dim=1))
    indices = quantizer(latents(quantizer), Draws(parts={"quantizer": low})).indices
    assert indices[..., :3].all() and not indices[..., 3:].any()


def test_dependent_branches_cost():
    tree = {"kind": "product", "dependency": 0.3, "quantizer": VQ | {"dim": 2}}
    quantizer = make(tree)
    with torch.no_grad():
        for atom, row in zip(atoms(quantizer), ([1.0, 0.0], [1.0, 1.0]), strict=True):
            atom.codebook[:] = torch.tensor(row)
    losses = quantizer(latents(quantizer)).losses
    assert losses["dependency"].item() == pytest.approx(math.sqrt(0.5))
    assert quantizer.loss_weights["dependency"] == 0.3
    assert "dependency" not in make(CONFIGS["product"]).loss_weights


# -- upkeep ----------------------------------------------------------------------------------------


@every
def test_usage_ema_and_revival_reach_every_codebook(name):
    tree = CONFIGS[name]
    if "lfq" in str(tree):
        return
    atom = {"update": "ema", "revive_below": 0.5, "init": "kmeans"}
    change = lambda t: t | atom if t["kind"] == "vq" else t | {"quantizer": change(t["quantizer"])}
    quantizer = make(change(tree)).train()
    assert quantizer.wants_data
    z = latents(quantizer)
    quantizer.initialize(z, Rng(0))
    assert not quantizer.wants_data
    before = [a.codebook.clone() for a in atoms(quantizer)]
    first = quantizer(z)
    quantizer.remember(first)
    events = quantizer.after_step(Rng(0, "codebook", 1))
    assert events["revived_codes"].ndim == 0
    for book, found in zip(before, atoms(quantizer), strict=True):
        assert not torch.equal(book, found.codebook) and torch.isfinite(found.codebook).all()
        assert found.usage.sum().item() == pytest.approx(1.0, abs=0.2)
    quantizer.remember(quantizer(z))
    quantizer.forget()
    assert all(not found._hits.any() and not found._recent for found in atoms(quantizer))


# -- errors ----------------------------------------------------------------------------------------


def test_what_does_not_fit_is_said_in_one_line(fails):
    with fails(ConfigError, "'multi_scale'", "codes of 'binary'", "expected vq, lfq"):
        make(SCALES | {"quantizer": {"kind": "binary"}})
    with fails(ConfigError, "'kl' has no codes", "such as vq"):
        make({"kind": "product", "quantizer": {"kind": "kl", "dim": 4}})
    with fails(ValueError, "quantizer.scales end with 4x4", "lie on 3x3"):
        make(SCALES | {"scales": [1, 4]})
    with fails(ValueError, "scale 5x5 is larger than the last, 3x3"):
        make(SCALES | {"scales": [5, 3]})
    with fails(ValueError, "one grid", "2 grids", "split: grids"):
        make(CONFIGS["multi_scale"]).layout(((3, 3), (3, 3)))
    with fails(ValueError, "one grid", "2 are stored"):
        make(CONFIGS["residual"]).layout(((3,),), stored=2)
    with fails(ValueError, "reads 3 equal maps", "as many branches"):
        make(CONFIGS["folded"]).layout(((3, 3),))
    with fails(ValueError, "blocks=4", "1..3"):
        quantizer = make(CONFIGS["residual"])
        indices = torch.zeros(1, quantizer.made.spec.length, 1, dtype=torch.long)
        quantizer.partial(indices, 4, (3, 3))
    listed = make(CONFIGS["multi_scale"]).layout(((9,),))  # row by row
    assert listed.values == ((3, 3),) and cells(listed.values[0]) == 9
