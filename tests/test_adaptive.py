"""Length as a dial: mixed lengths, and lengths that are searched for each image."""

import warnings

import pytest
import torch

from vistok.adaptive import Goal, UnmetTargetWarning, allowed_lengths, choose, psnr_of_each
from vistok.config import load_plugins, validate
from vistok.core.errors import InputError
from vistok.data.batch import to_uint8
from vistok.frozen import perceptual_network
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import Tokens, TokenSpec
from vistok.tokens.codec import Codec

COUNT = 8


def pixels(batch: int = 6) -> torch.Tensor:
    """Noise on a gray level, stronger from image to image: each needs another length."""
    noise = torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return (0.5 + (noise - 0.5) * torch.linspace(0.1, 1, batch)[:, None, None, None]).clamp(0, 1)


@pytest.fixture
def flexible(make_tokenizer):
    """flexible(missing) -> a tokenizer of 8 latents; untrained, so quality jumps with length."""
    return lambda missing="drop", **rest: make_tokenizer(
        missing=missing, latents={"count": COUNT}, **rest
    )


def measured(tokenizer, x) -> torch.Tensor:
    """[B, lengths] PSNR of every prefix, one length at a time."""
    tokens = tokenizer.encode(x)
    rows = [
        psnr_of_each(to_uint8(tokenizer.decode(tokens.prefix(length))), to_uint8(x))
        for length in allowed_lengths(tokenizer.spec())
    ]
    return torch.stack(rows, 1)


# -- lengths that are given ------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["mask_token", "drop"])
def test_a_mixed_batch_equals_one_by_one(flexible, missing):
    tokenizer, x, lengths = flexible(missing), pixels(), [1, 8, 3, 3, 5, 2]
    for given in (lengths, torch.tensor(lengths)):
        tokens = tokenizer.encode(x, length=given)
        assert tokens.keep.tolist() == lengths
        decoded = tokenizer.decode(tokens)
        for row, length in enumerate(lengths):
            one = tokenizer.encode(x[row : row + 1], length=length)
            assert torch.equal(one.indices, tokens.indices[row : row + 1])
            alone = tokenizer.decode(one)
            assert torch.allclose(decoded[row : row + 1], alone, atol=1e-5)
            # And a decoder without the others' positions gives the same.
            if missing == "drop":
                table = tokenizer.decoder.latent_positions
                tokenizer.decoder.latent_positions = torch.nn.Parameter(table[:length])
                values = tokenizer.values(one)[:, :length]
                short = tokenizer.reconstruct(values).estimate
                tokenizer.decoder.latent_positions = table
                short = tokenizer.output_space.inverse(short).clamp(0, 1)
                assert torch.allclose(short, decoded[row : row + 1], atol=1e-5)


def test_blocks_and_blocks_insides(make_tokenizer, tree, fails):
    x = pixels(3)
    scales = make_tokenizer("scales", missing="refuse")
    assert scales.spec().prefix == "block"
    mixed = scales.decode(scales.encode(x, length=[1, 2, 1]))
    for row, length in enumerate((1, 2, 1)):
        alone = scales.decode(scales.encode(x[row : row + 1], length=length))
        assert torch.allclose(mixed[row : row + 1], alone, atol=1e-5)
    with fails(InputError, "length=3: expected 1..2 blocks"):
        scales.encode(x, length=[1, 3, 1])


def test_positions_of_each_block(tree):
    """per_block: one dial for all blocks, or a length for each."""
    load_plugins(["tests.support.fake_parts"])
    config = tree(missing="drop") | {"encoder": {"kind": "two_maps"}}
    config["decoder"]["patches"] = {"size": 4}
    tokenizer, x = Tokenizer(validate(TokenizerConfig, config)).eval(), pixels(3)
    spec = tokenizer.spec()
    assert spec.prefix == "per_block" and allowed_lengths(spec) == list(
        range(1, spec.max_prefix + 1)
    )
    mixed = tokenizer.decode(tokenizer.encode(x, length=[1, 3, 2]))
    for row, length in enumerate((1, 3, 2)):
        alone = tokenizer.decode(tokenizer.encode(x[row : row + 1], length=length))
        assert torch.allclose(mixed[row : row + 1], alone, atol=1e-5)
    table = measured(tokenizer, x)
    target = float(table.quantile(0.5))
    found = choose(tokenizer, x, Goal(target_psnr=target, max_bytes=200))
    assert found.tokens.keep.shape == (3, len(spec.blocks))
    codec = Codec(spec, "0" * 8)
    assert [len(data) for data in codec.write(found.tokens)] == found.bytes.tolist()
    assert bool(((found.psnr >= target) == found.met).all())
    assert same_tokens(codec.read(codec.write(found.tokens)[1]), found.tokens.select([1]))


def same_tokens(one: Tokens, other: Tokens) -> bool:
    return torch.equal(one.indices, other.indices) and torch.equal(one.keep, other.keep)


@pytest.mark.parametrize("quantizer", ["fsq", "lfq"])
def test_a_decoder_that_reads_a_memory(tree, quantizer):
    """Q-Former: every prefix of a mixed batch equals the one alone."""
    from vistok.config.registry import entries

    parts = {
        name: entries(name)["qformer"].config.tiny().model_dump(mode="json")
        for name in ("encoder", "decoder")
    }
    tokenizer = Tokenizer(validate(TokenizerConfig, tree(quantizer) | parts)).eval()
    x, lengths = pixels(4), [4, 1, 3, 2]
    decoded = tokenizer.decode(tokenizer.encode(x, length=lengths))
    for row, length in enumerate(lengths):
        alone = tokenizer.decode(tokenizer.encode(x[row : row + 1], length=length))
        assert torch.allclose(decoded[row : row + 1], alone, atol=1e-5)


def test_given_lengths_that_cannot_be(flexible, fails):
    tokenizer = flexible()
    with fails(InputError, "length=9: expected 1..8"):
        tokenizer.encode(pixels(), length=[1, 2, 3, 4, 5, 9])
    with fails(InputError, "length has shape"):
        tokenizer.encode(pixels(), length=[1, 2])
    with fails(InputError, "length=3 and target_psnr"):
        tokenizer.encode(pixels(), length=3, target_psnr=10)


# -- lengths that are searched for -----------------------------------------------------------------


@pytest.mark.parametrize("missing", ["mask_token", "drop"])
def test_target_psnr_is_reached_by_no_shorter_neighbor(flexible, missing):
    tokenizer, x = flexible(missing), pixels()
    table = measured(tokenizer, x)
    for target in table.quantile(torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)).tolist():
        found = choose(tokenizer, x, Goal(target_psnr=target))
        assert found.steps <= 4 + 4  # a bisection of 8, and lengths tried where the whole misses
        for row in range(len(x)):
            length = int(found.lengths[row])
            assert float(found.psnr[row]) == pytest.approx(float(table[row, length - 1]), abs=1e-6)
            if found.met[row]:
                assert found.psnr[row] >= target
                assert length == 1 or table[row, length - 2] < target
            else:
                assert length == COUNT and table[row, COUNT - 1] < target
                assert not (table[row, [0, 1, 3, 7]] >= target).any()  # lengths that were tried
        assert torch.equal(found.tokens.keep, found.lengths)
        again = psnr_of_each(to_uint8(tokenizer.decode(found.tokens)), to_uint8(x))
        assert torch.allclose(again, found.psnr, atol=1e-6)


def test_a_target_out_of_reach_is_said(flexible, fails):
    tokenizer = flexible()
    with pytest.warns(UnmetTargetWarning, match=r"target_psnr=60: not met by image 0 \(") as said:
        tokens = tokenizer.encode(pixels(), target_psnr=60)
    assert tokens.keep.tolist() == [COUNT] * 6
    assert "and 1 more" in str(said[0].message) and "\n" not in str(said[0].message)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokenizer.encode(pixels(), target_psnr=1).keep.tolist() == [1] * 6


def test_max_bytes_is_never_exceeded_and_filled(flexible, fails):
    tokenizer = flexible(quantizer="vq")
    spec, x = tokenizer.spec(), pixels(3)
    codec = Codec(spec, tokenizer.codes_sha256())
    sizes = [len(codec.write(tokenizer.encode(x[:1], length=n))[0]) for n in range(1, 9)]
    for cap in range(sizes[0], sizes[-1] + 3):
        found = choose(tokenizer, x, Goal(max_bytes=cap))
        files = codec.write(found.tokens)
        assert list(map(len, files)) == found.bytes.tolist() and max(map(len, files)) <= cap
        longest = max(n for n, size in enumerate(sizes, 1) if size <= cap)
        assert found.lengths.tolist() == [longest] * 3 and found.steps == 0
    with fails(InputError, f"image 0: max_bytes=5: even the shortest .* {sizes[0]} bytes"):
        tokenizer.encode(x, max_bytes=5)


def test_bytes_of_a_range_coder_count(tree):
    pytest.importorskip("constriction")
    from vistok.tokens.frequency_table import FrequencyTable

    config = tree(missing="drop", latents={"count": COUNT})
    config |= {"quantizer": {"kind": "fsq", "levels": [8, 8, 8, 8]}}
    tokenizer = Tokenizer(validate(TokenizerConfig, config)).eval()
    x, made_by = pixels(6), tokenizer.codes_sha256()
    known = FrequencyTable.count(tokenizer.spec(), made_by, [tokenizer.encode(x).indices] * 40)
    codec = Codec(tokenizer.spec(), made_by, known)
    longer = 0
    for cap in range(22, 32, 3):
        found = choose(tokenizer, x, Goal(max_bytes=cap, codec=codec))
        files = codec.write(found.tokens)
        assert max(map(len, files)) <= cap
        assert torch.cat([codec.read(one).keep for one in files]).equal(found.lengths)
        longer += int((found.lengths > choose(tokenizer, x, Goal(max_bytes=cap)).lengths).sum())
    assert longer > 0  # what the coder saves becomes length


def test_the_cap_wins_over_quality(flexible):
    tokenizer, x = flexible(quantizer="vq"), pixels()
    table = measured(tokenizer, x)
    target = float(table.quantile(0.5))
    free = choose(tokenizer, x, Goal(target_psnr=target))
    codec = Codec(tokenizer.spec(), "0" * 8)
    cap = len(codec.write(tokenizer.encode(x[:1], length=4))[0])
    found = choose(tokenizer, x, Goal(target_psnr=target, max_bytes=cap))
    assert (found.bytes <= cap).all() and (found.lengths <= 5).all()
    for row in range(len(x)):
        if found.met[row]:
            assert found.psnr[row] >= target
        elif free.met[row]:
            assert free.lengths[row] > found.lengths[row] or not found.met[row]
    with pytest.warns(UnmetTargetWarning, match=rf"target_psnr=60 within max_bytes={cap}: not met"):
        assert (tokenizer.encode(x, target_psnr=60, max_bytes=cap).keep <= 5).all()


def test_perceptual_distance_and_both(flexible):
    tokenizer, x = flexible("mask_token"), pixels(4)
    network = perceptual_network("vistok-cnn")
    tokens = tokenizer.encode(x)
    real = to_uint8(x).float() / 255
    with torch.no_grad():
        rows = [
            network(to_uint8(tokenizer.decode(tokens.prefix(n))).float() / 255, real)
            for n in range(1, 9)
        ]
    table = torch.stack(rows, 1).double()
    limit = float(table.quantile(0.4))
    found = choose(tokenizer, x, Goal(max_perceptual=limit, perceptual=network))
    assert torch.allclose(found.perceptual, table.gather(1, found.lengths[:, None] - 1)[:, 0])
    assert torch.equal(found.met, found.perceptual <= limit) and found.psnr is None
    both = Goal(max_perceptual=limit, target_psnr=float(measured(tokenizer, x).quantile(0.4)))
    found = choose(tokenizer, x, both)
    good = (found.perceptual <= limit) & (found.psnr >= both.target_psnr)
    assert torch.equal(found.met, good)


def test_only_undecided_images_are_decoded(flexible, monkeypatch):
    tokenizer, x = flexible(), pixels()
    target = float(measured(tokenizer, x).quantile(0.5))
    seen, decode = [], Tokenizer.decode

    def counted(self, tokens, *rest, **more):
        seen.append(len(tokens))
        return decode(self, tokens, *rest, **more)

    monkeypatch.setattr(Tokenizer, "decode", counted)
    found = choose(tokenizer, x, Goal(target_psnr=target))
    assert len(seen) == found.steps and seen[0] == 6 and sum(seen) < 6 * len(seen)


def test_lengths_that_were_trained_are_the_only_ones():
    spec = TokenSpec(blocks=((16,),), vocab=(4,), prefix="token", lengths=(2, 8))
    assert allowed_lengths(spec) == [2, 8, 16]
    assert allowed_lengths(spec.model_copy(update={"lengths": None})) == list(range(1, 17))
    assert allowed_lengths(spec.model_copy(update={"prefix": "none"})) == [16]


def test_a_decoder_that_samples_uses_keyed_noise(tree):
    """The same lengths for any split of the batch, and other ones for another seed."""
    load_plugins(["tests.support.fake_parts"])
    config = tree(latents={"count": COUNT}) | {"decoder": {"kind": "fake_flow"}}
    torch.manual_seed(0)
    tokenizer = Tokenizer(validate(TokenizerConfig, config)).eval()
    x = pixels(4)
    goal = lambda **rest: Goal(target_psnr=9.0, **rest)
    whole = choose(tokenizer, x, goal())
    parts = [
        choose(tokenizer, x[rows], goal(index=rows))
        for rows in (torch.tensor([0]), torch.tensor([1, 2, 3]))
    ]
    assert torch.equal(whole.lengths, torch.cat([one.lengths for one in parts]))
    assert torch.allclose(whole.psnr, torch.cat([one.psnr for one in parts]), atol=1e-4)
    other = choose(tokenizer, x, goal(seed=1))
    assert not torch.allclose(whole.psnr, other.psnr, atol=1e-4)


@pytest.mark.parametrize(
    ("goal", "word"),
    [
        ({"target_psnr": -1.0}, "target_psnr=-1.0: expected a number above 0"),
        ({"max_bytes": 0}, "max_bytes=0"),
        ({"max_perceptual": float("nan")}, "max_perceptual=nan"),
        ({"seed": 3}, "no goal"),
    ],
)
def test_goals_without_a_meaning(flexible, fails, goal, word):
    with fails(InputError, word):
        flexible().encode(pixels(), **goal)


def test_tokenizers_without_a_dial(make_tokenizer, tree, fails):
    with fails(InputError, "target_psnr=9: this tokenizer decodes only whole sequences"):
        make_tokenizer(missing="refuse").encode(pixels(), target_psnr=9)
    kl = tree(missing="drop") | {"quantizer": {"kind": "kl", "dim": 3}}
    continuous = Tokenizer(validate(TokenizerConfig, kl)).eval()
    with fails(InputError, "max_bytes=90: continuous tokens have no bytes"):
        continuous.encode(pixels(), max_bytes=90)
    assert isinstance(continuous.encode(pixels(), target_psnr=1), Tokens)
