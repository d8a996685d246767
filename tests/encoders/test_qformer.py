"""Q-Former encoder and decoder: starts of the queries, redundant latents, prefixes, refusals."""

import pytest
import torch

from vistok.config import validate
from vistok.core.draws import Draws
from vistok.core.records import Batch
from vistok.core.shapes import Shape
from vistok.decoders.qformer import QFormerDecoder, QFormerDecoderConfig
from vistok.encoders.qformer import QFormerEncoder, QFormerEncoderConfig, pooled
from vistok.tokenizer import Tokenizer, TokenizerConfig

CONV = {"channels": 8, "channel_mult": (1, 1, 2), "blocks": 1, "mid_blocks": 1, "norm_groups": 4}
QFORMER = {"width": 16, "depth": 1, "heads": 2}
ENCODER = {
    "kind": "qformer",
    "cnn": {"conv": CONV},
    "z_channels": 8,
    "qformer": QFORMER,
    "count": 4,
}
DECODER = {"kind": "qformer", "cnn": {"conv": CONV}, "z_channels": 8, "qformer": QFORMER}
SHAPE = Shape(3, (16, 32))


def encoder(shape: Shape = SHAPE, **options) -> QFormerEncoder:
    torch.manual_seed(0)
    return QFormerEncoder(QFormerEncoderConfig(**{**ENCODER, **options}), shape, 3)


def decoder(values: int = 4, **options) -> QFormerDecoder:
    torch.manual_seed(0)
    config = QFormerDecoderConfig(**{**DECODER, **options})
    return QFormerDecoder(config, SHAPE, ((values,),), 3)


def tokenizer(encoder=None, decoder=None, **options) -> Tokenizer:
    torch.manual_seed(0)
    tree = {
        "image_size": 16,
        "encoder": {**ENCODER, "redundant": 3, **(encoder or {})},
        "quantizer": {"kind": "vq", "codebook_size": 8, "dim": 3},
        "decoder": {**DECODER, **(decoder or {})},
    }
    return Tokenizer(validate(TokenizerConfig, tree | options)).eval()


def test_queries_are_means_over_ever_smaller_blocks():
    rows = torch.arange(8.0).view(1, 8, 1)  # a map of 2 x 4
    found = pooled(rows, (2, 4), 8).flatten().tolist()
    # 1x1 twice, 1x2, then 2x2 blocks of one row and two columns, each group row-major.
    assert found == [3.5, 3.5, 2.5, 4.5, 0.5, 2.5, 4.5, 6.5]


@pytest.mark.parametrize("queries", ["mean", "pooled", "learned"])
def test_every_start_of_the_queries(queries):
    net = encoder(queries=queries, redundant=2)
    latents = net(torch.rand(2, 3, 16, 32))
    assert latents.grids == net.grids == ((6,),) and latents.values.shape == (2, 6, 3)
    assert net.stored == 4 and latents.features["z"].shape == (2, 32, 8)
    torch.testing.assert_close(net.proj(latents.features["tokens"]), latents.values)
    start = net._start(torch.randn(2, 32, 16))
    assert torch.equal(start[:, 4:], start[:, 2:4])  # copies of the last two
    latents.values.square().sum().backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None]
    assert not missing


def test_redundant_latents_change_the_stored_ones():
    """All attend to each other: without them the codes are others."""
    one, other = encoder(redundant=2, queries="pooled"), encoder(queries="pooled")
    state = {k: v[:4] if k == "latent_positions" else v for k, v in one.state_dict().items()}
    other.load_state_dict(state)
    x = torch.rand(2, 3, 16, 32)
    assert other.stored is None
    assert not torch.allclose(one(x).values[:, :4], other(x).values, atol=1e-6, rtol=0)


def test_what_does_not_fit_is_refused(fails):
    cases = {
        "redundant=5 latents are copies": {"redundant": 5},
        "stored=7: there are count": {"redundant": 2, "stored": 7},
        "queries=pooled needs a power of two, and count=6": {"queries": "pooled", "count": 6},
        r"cnn.z_channels=4": {"cnn": {"conv": CONV, "z_channels": 4}},
    }
    for words, change in cases.items():
        with fails(ValueError, words):
            validate(QFormerEncoderConfig, {**ENCODER, **change})
    with fails(ValueError, r"a map of \(4, 8\) into \(8, 8\) blocks", "count=128"):
        encoder(queries="pooled", count=128)
    for words, change in (
        ("distill.depth=2", {"distill": {"depth": 2}}),
        ("cnn.z_channels=4", {"cnn": {"conv": CONV, "z_channels": 4}}),
    ):
        with fails(ValueError, words):
            validate(QFormerDecoderConfig, {**DECODER, **change})


@pytest.mark.parametrize("queries", ["first", "learned"])
def test_a_prefix_is_decoded_as_it_is(queries):
    net, values = decoder(6, queries=queries, distill={"depth": 1, "dim": 5}), torch.randn(2, 6, 3)
    assert net.prefix == "token" and net.last_layer is net.cnn.conv_out.weight
    for length in (1, 4, 6):
        hidden = net(values, (torch.arange(6) < length).expand(2, -1))
        cut = net(values[:, :length])
        torch.testing.assert_close(hidden.estimate, cut.estimate, atol=1e-5, rtol=1e-5)
        assert cut.features["z"].shape == (2, 32, 8) and cut.features["distill"].shape == (2, 32, 5)
    changed = values.clone()
    changed[:, 4:] += 1
    assert torch.equal(net(changed[:, :4]).estimate, net(values[:, :4]).estimate)


def test_whole_sequences_only(fails):
    net, values = decoder(missing="refuse"), torch.randn(1, 4, 3)
    assert net.prefix == "none" and net(values).estimate.shape == (1, 3, 16, 32)
    for given in ((values[:, :3],), (values, torch.ones(1, 4, dtype=torch.bool))):
        with fails(ValueError, "cannot leave values out"):
            net(*given)


def test_what_is_stored_is_what_evaluation_sees():
    model, pixels = tokenizer(), torch.rand(2, 3, 16, 16)
    assert model.spec().length == 4 and model.layout.count == 7
    tokens = model.encode(pixels)
    batch = Batch(torch.arange(2), pixels)
    with torch.no_grad():
        seen = model(batch).pixels.clamp(0, 1)
        all_of_them = model(batch, Draws(keep=torch.tensor([7, 4]))).pixels.clamp(0, 1)
    torch.testing.assert_close(model.decode(tokens), seen, atol=1e-5, rtol=0)
    torch.testing.assert_close(all_of_them[1], seen[1], atol=1e-5, rtol=0)
    assert not torch.equal(all_of_them[0], seen[0])


def test_redundant_latents_may_be_stored_too():
    """Then every length up to all of them is a prefix."""
    model, pixels = tokenizer(encoder={"stored": 7}), torch.rand(2, 3, 16, 16)
    same = tokenizer()
    tokens = model.encode(pixels)
    assert model.spec().length == 7 and model.spec().eval_lengths == (1, 2, 4, 7)
    assert torch.equal(tokens.indices[:, :4], same.encode(pixels).indices)
    torch.testing.assert_close(model.decode(tokens.prefix(4)), same.decode(same.encode(pixels)))


def test_a_decoder_must_be_able_to_leave_them_out(fails):
    with fails(ValueError, "stores 4 of 7 latents"):
        tokenizer(decoder={"missing": "refuse"})
    with fails(ValueError, "'redundant_padding' has padding=2, and the encoder emits 3"):
        tokenizer(regularizers=[{"kind": "redundant_padding", "padding": 2, "floor": 2}])
