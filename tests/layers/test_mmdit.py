"""MM-DiT: the same numbers as diffusers' joint blocks, masks, starts."""

import pytest
import torch

from vistok.layers.mmdit import JointBlock, MMDiT, MMDiTConfig

WIDTH, HEADS = 12, 3


def copy_stream(stream, block, norm, kind: str) -> None:
    """Weights of a joint block of diffusers -> our layers of one stream."""
    names = {
        "image": ("to_{}", "to_out.0", "ff"),
        "text": ("add_{}_proj", "to_add_out", "ff_context"),
    }
    qkv, out, mlp = names[kind]
    theirs, own = block.state_dict(), {}
    for part in ("weight", "bias"):
        linear = theirs[f"{norm}.linear.{part}"]
        if stream.gives_only:  # scale comes first there
            linear = torch.cat(linear.chunk(2)[::-1])
        own[f"modulation.proj.{part}"] = linear
        letters = "kv" if stream.gives_only else "qkv"
        own[f"{letters}.{part}"] = torch.cat(
            [theirs[f"attn.{qkv.format(letter)}.{part}"] for letter in letters]
        )
        if not stream.gives_only:
            own[f"out.{part}"] = theirs[f"attn.{out}.{part}"]
            own[f"mlp.up.{part}"] = theirs[f"{mlp}.net.0.proj.{part}"]
            own[f"mlp.out.{part}"] = theirs[f"{mlp}.net.2.{part}"]
    stream.load_state_dict(own)


@pytest.mark.parametrize("last", [False, True])
@torch.no_grad()
def test_a_block_is_that_of_diffusers(last):
    attention = pytest.importorskip("diffusers.models.attention")
    theirs = attention.JointTransformerBlock(WIDTH, HEADS, WIDTH // HEADS, context_pre_only=last)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = JointBlock(MMDiTConfig(width=WIDTH, heads=HEADS), last)
    copy_stream(ours.image, theirs, "norm1", "image")
    copy_stream(ours.text, theirs, "norm1_context", "text")
    x, text, vector = torch.randn(2, 5, WIDTH), torch.randn(2, 7, WIDTH), torch.randn(2, WIDTH)
    expected_text, expected = theirs(x, text, vector)
    found, found_text = ours(x, text, vector, None)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    if last:
        assert found_text is None and expected_text is None
    else:
        torch.testing.assert_close(found_text, expected_text, atol=1e-6, rtol=1e-5)


def network(length=4, **changes) -> MMDiT:
    made = MMDiT(MMDiTConfig.tiny().model_copy(update=changes), 0, length)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


@torch.no_grad()
def test_the_final_norm_is_that_of_diffusers():
    normalization = pytest.importorskip("diffusers.models.normalization")
    ours = network(length=5)
    width = ours.config.width
    theirs = normalization.AdaLayerNormContinuous(width, width, elementwise_affine=False, eps=1e-6)
    for name in ("weight", "bias"):
        swapped = torch.cat(getattr(ours.modulation.proj, name).chunk(2)[::-1])
        getattr(theirs.linear, name).copy_(swapped)
    x, text, vector = torch.randn(2, 5, width), torch.randn(2, 3, width), torch.randn(2, width)
    inner, read = x + ours.positions, text
    for block in ours.blocks:
        inner, read = block(inner, read, vector, None)
    torch.testing.assert_close(ours(x, text, vector), theirs(inner, vector), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_is_attended_or_hidden():
    width = MMDiTConfig.tiny().width
    x, text, vector = torch.randn(2, 4, width), torch.randn(2, 6, width), torch.randn(2, width)
    mask = torch.arange(6) < torch.tensor([[2], [6]])
    seen, hidden = network(), network(text_padding="masked")
    hidden.load_state_dict(seen.state_dict())
    assert torch.equal(seen(x, text, vector, mask), seen(x, text, vector))
    short = seen(x[:1], text[:1, :2], vector[:1])
    torch.testing.assert_close(hidden(x, text, vector, mask)[:1], short, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(hidden(x, text, vector, mask)[1:], seen(x, text, vector)[1:])
    there = torch.tensor([[True, True, False, False]] * 2)  # a prefix of the tokens
    changed = torch.where(there[..., None], x, 0.0)
    prefix = [seen(one, text, vector, seen=there)[:, :2] for one in (x, changed)]
    assert torch.equal(*prefix)


def test_it_starts_as_the_config_says():
    tiny = MMDiTConfig.tiny()
    changes = {"init": "trunc_normal", "modulation_init": "normal"}
    zero, normal = (MMDiT(one, 0, 4) for one in (tiny, tiny.model_copy(update=changes)))
    gated = lambda made: made.blocks[0].text.modulation.proj.weight
    assert not gated(zero).any() and 0.01 < gated(normal).std() < 0.03
    for made in (zero, normal):  # those without gates start at zero in any case
        assert not made.blocks[-1].text.modulation.proj.weight.any()
        assert not made.modulation.proj.weight.any()
    with pytest.raises(ValueError, match="width=16 must be a multiple of heads=3"):
        MMDiTConfig(width=16, heads=3)
