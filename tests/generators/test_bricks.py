"""Guidance, orders, masks and embeddings against numbers worked out by hand."""

import math

import pytest
import torch

from vistok.config import ConfigError, validate
from vistok.core.rng import Rng
from vistok.generators import load_generator
from vistok.generators.autoregressive import Autoregressive, AutoregressiveConfig
from vistok.generators.embedding import BitEmbedding, CodeEmbedding, FactorEmbedding
from vistok.generators.guidance import GuidanceConfig, guide
from vistok.generators.orders import mask_ratio, random_mask, random_order, raster

# -- guidance --------------------------------------------------------------------------------------


def test_schedules_of_guidance_by_hand():
    scales = lambda **options: [
        GuidanceConfig(guidance=5.0, **options).scale_at(t) for t in (0.0, 0.5, 1.0)
    ]
    assert scales() == [5, 5, 5]
    assert scales(guidance_schedule="linear") == [1, 3, 5]
    assert scales(guidance_schedule="cosine") == pytest.approx([1, 3, 5])
    # 0.5**2 = 0.25: (1 - cos(pi / 4)) / 2 = 0.146447
    squared = scales(guidance_schedule="cosine", guidance_power=2.0)
    assert squared == pytest.approx([1, 1 + 4 * 0.1464466, 5])
    assert scales(guidance_schedule="power", guidance_power=2.0) == [1, 2, 5]
    # MaskGen: conditional + g (c - u), g from 1 on: the scale grows from 2.
    assert scales(guidance_schedule="linear", guidance_start=2.0) == [2, 3.5, 5]
    assert not GuidanceConfig().guided and GuidanceConfig(guidance=0.0).guided
    assert not GuidanceConfig(guidance_start=2.0).guided  # a constant scale has no start
    assert GuidanceConfig(guidance_start=2.0, guidance_schedule="linear").guided


def test_guidance_within_an_interval_alone(fails):
    at = lambda interval, *shares: [
        GuidanceConfig(guidance=3.0, guidance_interval=interval).scale_at(t) for t in shares
    ]
    assert at((0.18, 1.0), 0.0, 0.17, 0.18, 0.9, 1.0) == [1, 1, 3, 3, 3]
    assert at((0.2, 0.5), 0.1, 0.2, 0.4, 0.5, 1.0) == [1, 3, 3, 1, 1]
    rows = torch.randn(6, 4)
    assert torch.equal(guide(rows, 1.0, 3), rows[:3])
    assert torch.allclose(guide(rows, 3.0, 3), rows[3:] + 3 * (rows[:3] - rows[3:]))
    for wrong in ([0.5, 0.5], [0.6, 0.2], [-0.1, 1], [0, 1.1]):
        with fails(ConfigError, "guidance_interval.*two shares of the steps"):
            validate(GuidanceConfig, {"guidance_interval": wrong})


# -- orders ----------------------------------------------------------------------------------------


def test_orders_are_permutations_keyed_by_the_sample():
    index = torch.arange(400)
    order = random_order(index, Rng(0, "g", 3), 6)
    assert torch.equal(order.sort(dim=1).values, raster(400, 6))
    some = torch.tensor([7, 399])
    assert torch.equal(random_order(some, Rng(0, "g", 3), 6), order[some])
    assert not torch.equal(random_order(index, Rng(0, "g", 4), 6), order)
    first = torch.bincount(order[:, 0], minlength=6)
    assert first.min() > 40 and first.max() < 95  # 67 +- 7.5
    kept = random_order(index, Rng(0, "g", 3), 6, share=0.25)
    permuted = (kept != raster(400, 6)).any(1)
    assert 70 < int(permuted.sum()) < 130  # 100 +- 8.7
    assert torch.equal(kept[permuted], order[permuted])
    assert torch.equal(random_order(index, Rng(0, "g", 3), 6, share=0.0), raster(400, 6))


def test_mask_ratios_by_hand():
    u = torch.tensor([0.0, 0.5, 1.0])
    assert mask_ratio(u, "arccos").tolist() == pytest.approx([1, 2 / 3, 0], abs=1e-6)
    assert mask_ratio(u, "cosine").tolist() == pytest.approx([1, math.sqrt(0.5), 0], abs=1e-6)
    assert mask_ratio(u, "linear").tolist() == [1, 0.5, 0]


@pytest.mark.parametrize(
    ("schedule", "mean"), [("arccos", 2 / math.pi), ("cosine", 2 / math.pi), ("linear", 0.5)]
)
def test_masks_are_keyed_and_have_their_share(schedule, mean):
    index = torch.arange(2000)
    mask = random_mask(index, Rng(1, "g", 2), 10, schedule)
    assert mask.dtype == torch.bool and mask.shape == (2000, 10)
    assert int(mask.sum(1).min()) >= 1
    assert float(mask.float().mean()) == pytest.approx(mean, abs=0.03)
    assert float(mask.float().mean(0).std()) < 0.02  # no position is preferred
    some = torch.tensor([3, 1500])
    assert torch.equal(random_mask(some, Rng(1, "g", 2), 10, schedule), mask[some])


# -- embeddings ------------------------------------------------------------------------------------


def test_factors_and_bits_by_hand():
    factors = FactorEmbedding((3, 2), 4)
    indices = torch.tensor([[[2, 0], [1, 1]]])
    expected = factors[0].weight[[2, 1]] + factors[1].weight[[0, 1]]
    assert torch.equal(factors(indices)[0], expected)
    bits = BitEmbedding(2, 4)
    signs = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    assert torch.allclose(
        bits(torch.tensor([[[1, 0], [1, 1]]]))[0], signs @ bits.weight.T + bits.bias
    )


def test_code_vectors_are_the_tokenizers(make_tokenizer, fails):
    for kind in ("fsq", "vq", "bsq"):
        tokenizer = make_tokenizer(kind)
        spec = tokenizer.spec()
        embed = CodeEmbedding(spec.vocab, spec.dim, 8, frozen=True)
        embed.fill(tokenizer.quantizer, spec.vocab)
        columns = [torch.randint(v, (2, spec.length)) for v in spec.vocab]
        indices = torch.stack(columns, -1)
        vectors = tokenizer.quantizer.lookup(indices)
        assert torch.allclose(embed(indices), embed.project(vectors), atol=1e-6)
        assert not dict(embed.named_parameters()).keys() & {"table"}
    with fails(ValueError, "a table of code vectors for vocab=.*use embed=learned"):
        CodeEmbedding((2,) * 64, 64, 8, frozen=True)


@pytest.mark.parametrize("embed", ["codes", "codes_init"])
def test_a_generator_embeds_from_codes(make_tokenizer, tmp_path, fails, embed):
    tokenizer = make_tokenizer("vq")
    spec = tokenizer.spec()
    transformer = {"width": 16, "depth": 1, "heads": 2}
    config = validate(AutoregressiveConfig, {"transformer": transformer, "embed": embed})
    with fails(ValueError, f"embed={embed} needs the tokenizer's code vectors"):
        Autoregressive(config, spec)
    model = Autoregressive(config, spec, tokenizer.quantizer)
    codes = tokenizer.quantizer.lookup(torch.arange(spec.codebook_size)[None, :, None])[0]
    assert torch.equal(model.embed.table, codes)
    assert ("embed.table" in dict(model.named_parameters())) == (embed == "codes_init")
    model.save_pretrained(tmp_path)  # what is saved needs no tokenizer
    loaded = load_generator(tmp_path)
    assert torch.equal(loaded.embed.table, codes)
    index = torch.arange(3)
    assert torch.equal(loaded.sample(index=index).indices, model.sample(index=index).indices)
    twin = model.untrained()
    assert torch.equal(twin.embed.table, codes)
    assert not torch.equal(twin.embed.project.weight, model.embed.project.weight)


def test_codes_of_another_width_are_refused(make_tokenizer, fails):
    embed = CodeEmbedding((16,), 3, 8, frozen=True)
    tokenizer = make_tokenizer("vq")
    with fails(ValueError, "no code vector per position; use embed=learned"):
        embed.fill(tokenizer.quantizer, tokenizer.spec().vocab)


def test_regrouped_codes_have_the_same_vectors(make_tokenizer):
    tokenizer = make_tokenizer("fsq")
    spec = tokenizer.spec()
    size = spec.codebook_size
    embed = CodeEmbedding((size,), spec.dim, 8, frozen=True)
    embed.fill(tokenizer.quantizer, spec.vocab)
    digits, rest = [], torch.arange(size)
    for base in spec.vocab:
        digits.append(rest % base)
        rest = rest // base
    apart = CodeEmbedding(spec.vocab, spec.dim, 8, frozen=True)
    apart.load_state_dict(embed.state_dict())
    whole = embed(torch.arange(size)[None, :, None])
    assert torch.equal(apart(torch.stack(digits, -1)[None]), whole)


def test_bit_rounds_are_an_exact_likelihood_and_their_own_sampler():
    from vistok.generators.heads import make_head

    torch.manual_seed(0)
    head = make_head("bit_rounds", 8, (2,) * 5, rounds=3)
    for parameter in head.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    every = torch.arange(32)[:, None] >> torch.arange(5) & 1
    hidden = torch.randn(1, 8)
    nats = head(hidden.expand(32, 8), every)
    assert (-nats.double()).exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    # What the sampler chooses from, given the bits it chose, has the same likelihood.
    seen = []

    def pick(logits, f):
        seen.append((f, logits))
        return every[:, f]

    assert torch.equal(head.sample(hidden.expand(64, 8), pick), every)
    again = sum(
        torch.nn.functional.cross_entropy(logits[:32], every[:, f], reduction="none")
        for f, logits in seen
    )
    torch.testing.assert_close(again, nats, atol=1e-5, rtol=1e-5)
