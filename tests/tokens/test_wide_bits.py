"""128 tokens of 128 bits each, from the quantizer to bytes: no index may pass 64 bits."""

from __future__ import annotations

import pytest
import torch

from vistok.config import validate
from vistok.core.draws import Draws
from vistok.core.records import Condition, Latents
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.data import TokenCache, TokenCacheWriter
from vistok.eval.protocols.pfid import plan
from vistok.eval.protocols.robust import flip_bits
from vistok.generators.autoregressive import Autoregressive, AutoregressiveConfig
from vistok.generators.bit_diffusion import BitDiffusion, BitDiffusionConfig
from vistok.metrics.codebook import CodebookStats
from vistok.quantizers.atoms.binary import Binary, BinaryConfig
from vistok.quantizers.atoms.lfq import LFQ, LFQConfig
from vistok.tokens import Tokens, TokenSpec
from vistok.tokens.entropy_coding import Frequencies, ImageCoder, decode_set, encode_set

BITS = LENGTH = 128
COUNT = 3
SPEC = TokenSpec(blocks=((LENGTH,),), vocab=(2,) * BITS, dim=8)


def quantizers() -> dict:
    torch.manual_seed(0)
    lfq = {"bits": BITS, "factor_bits": 1}
    return {
        "binary": Binary(BinaryConfig(bits=BITS, dim=8)),
        "lfq": LFQ(LFQConfig(**lfq)),
        "bsq": LFQ(LFQConfig(**lfq, sphere=True)),
    }


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    generator = torch.Generator().manual_seed(0)
    bits = torch.rand(COUNT, LENGTH, BITS, generator=generator) < torch.linspace(0.1, 0.9, BITS)
    return Tokens.of(SPEC, bits.long())


@pytest.mark.parametrize("kind", ["binary", "lfq", "bsq"])
def test_quantizers_and_their_neighbours(kind):
    quantizer = quantizers()[kind]
    latents = Latents(torch.randn(2, LENGTH, quantizer.latent_dim), ((LENGTH,),))
    found = quantizer.quantize(latents, Draws())
    assert quantizer.vocab == SPEC.vocab and found.indices.shape == (2, LENGTH, BITS)
    assert set(found.indices.unique().tolist()) == {0, 1}
    assert all(value.isfinite() for value in found.losses.values())
    again = quantizer.lookup(found.indices)
    torch.testing.assert_close(again, found.values, atol=1e-5, rtol=0)
    ranks = torch.arange(LENGTH).remainder(6).expand(2, -1)[..., None]
    moved = quantizer.perturb(found.queries, ranks)
    changed = (moved != found.indices).sum(-1)
    assert (changed[:, ::6] == 0).all() and (changed[ranks[..., 0] > 0] > 0).all()


def test_cache_bytes_and_range_coder(tokens, tmp_path):
    options = {"source": {}, "tokenizer": "t", "sha256": "0", "classes": ()}
    with TokenCacheWriter(tmp_path, SPEC, COUNT, **options) as writer:
        writer.write(tokens, None)
    cache = TokenCache(tmp_path)
    assert torch.equal(cache.row(2)[0], tokens.indices[2])
    packed = tokens.to_bytes()
    assert len(packed[0]) == 3 + LENGTH * BITS // 8
    assert torch.equal(Tokens.from_bytes(packed, SPEC).indices, tokens.indices)
    pytest.importorskip("constriction")
    places = range(4)
    coded = encode_set(SPEC, tokens.indices, places)
    decoded = torch.from_numpy(decode_set(SPEC, coded, COUNT, places))
    assert torch.equal(decoded, tokens.indices[:, :4].long())
    coder = ImageCoder(Frequencies.of(SPEC, tokens.indices), places)
    again = torch.from_numpy(coder.decode(coder.encode(tokens.indices)))
    assert torch.equal(again, tokens.indices[:, :4].long())


def test_pfid_plans_neighbourhoods_that_exist():
    cells = [cell for number in plan(SPEC, "both", False) for _, cell in number.cells]
    assert cells and all(1 <= cell.delta <= 2**14 for cell in cells)


def test_usage_and_flips(tokens):
    stats = CodebookStats(SPEC)
    stats.update(tokens.indices)
    use = stats.compute()
    assert use.usage is None and len(use.factor_entropy) == BITS
    assert 0 < min(use.factor_entropy) and max(use.factor_entropy) <= 1
    flipped, counts = flip_bits(SPEC, tokens.indices, torch.arange(COUNT), 0.1, 0)
    assert int((flipped != tokens.indices).sum()) == int(counts[0]) > 0


@pytest.mark.parametrize(
    ("part", "config"),
    [
        (Autoregressive, AutoregressiveConfig.tiny()),
        (Autoregressive, AutoregressiveConfig.tiny().model_copy(update={"head": "bit_rounds"})),
        (BitDiffusion, BitDiffusionConfig.tiny()),
    ],
    ids=["bernoulli", "bit_rounds", "bit_diffusion"],
)
def test_generators(part, config, tokens):
    torch.manual_seed(0)
    model = part(config, SPEC)
    draws = model.draw(torch.arange(COUNT), Rng(0), Progress(0, 1))
    loss = model(tokens, Condition(), draws)["loss"]
    loss.backward()
    bits = 1 if part is BitDiffusion else BITS  # nats per bit, or per position
    assert loss.item() == pytest.approx(bits * torch.tensor(2.0).log().item(), rel=1e-4)
    sampled = model.sample(index=torch.arange(2)).check()
    alone = model.sample(index=torch.arange(1, 2))
    assert torch.equal(sampled.indices[1:], alone.indices)
    assert len(sampled.to_bytes()[0]) == 3 + LENGTH * BITS // 8


def test_memory_of_the_entropy_is_that_of_its_groups(fails):
    """128 bits as sixteen groups of eight: their entropies add up to at most 128 log 2."""
    quantizer = LFQ(LFQConfig(bits=BITS, factor_bits=1, entropy_group=8))
    found = quantizer.entropies(torch.randn(4, 16, BITS))
    assert 0 < found["entropy_batch"] <= BITS * torch.tensor(2.0).log() + 1e-3
    with fails(ValueError, "bits=128: an index of 128 bits.*factor_bits=1"):
        validate(LFQConfig, {"bits": BITS})
