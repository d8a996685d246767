"""The causal Q-Former: BLIP-2's blocks as HuggingFace builds them, and queries in order."""

import pytest
import torch

from vistok.core.shapes import Shape
from vistok.encoders.causal_qformer import CausalQFormerConfig, CausalQFormerEncoder
from vistok.layers.bert_queries import BertQueries, BertQueriesConfig

SMALL = BertQueriesConfig(width=16, depth=3, heads=2, cross_every=2, causal=False)


def theirs_and_ours():
    hf = pytest.importorskip("transformers")
    from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = hf.Blip2QFormerConfig(
        **sizes, intermediate_size=64, encoder_hidden_size=6, cross_attention_frequency=2
    )
    torch.manual_seed(0)
    theirs, ours = Blip2QFormerModel(config).eval(), BertQueries(SMALL, 5, 6).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    give(theirs, ours)
    return theirs, ours


@torch.no_grad()
def give(theirs, ours):
    """Their weights, to our blocks."""
    copy = lambda mine, them: mine.load_state_dict(them.state_dict())
    copy(ours.norm, theirs.layernorm)
    for mine, them in zip(ours.blocks, theirs.encoder.layer, strict=True):
        own, out = them.attention.attention, them.attention.output
        for name in ("weight", "bias"):
            parts = [getattr(getattr(own, part), name) for part in ("query", "key", "value")]
            getattr(mine.attention.qkv, name).copy_(torch.cat(parts))
        copy(mine.attention.out, out.dense)
        copy(mine.norm_attention, out.LayerNorm)
        if mine.cross is not None:
            read, out = them.crossattention.attention, them.crossattention.output
            copy(mine.cross.q, read.query)
            for name in ("weight", "bias"):
                parts = [getattr(getattr(read, part), name) for part in ("key", "value")]
                getattr(mine.cross.kv, name).copy_(torch.cat(parts))
            copy(mine.cross.out, out.dense)
            copy(mine.norm_cross, out.LayerNorm)
        copy(mine.mlp.up, them.intermediate_query.dense)
        copy(mine.mlp.out, them.output_query.dense)
        copy(mine.norm_mlp, them.output_query.LayerNorm)


@torch.no_grad()
def test_its_blocks_are_those_of_blip_2():
    theirs, ours = theirs_and_ours()
    memory = torch.randn(2, 7, 6)
    found = theirs(ours.queries[None].expand(2, -1, -1), encoder_hidden_states=memory)
    torch.testing.assert_close(ours(memory), found.last_hidden_state, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_latent_depends_on_the_queries_before_it_alone():
    config = CausalQFormerConfig(count=4, queries=BertQueriesConfig(width=16, depth=2, heads=2))
    torch.manual_seed(0)
    encoder, x = CausalQFormerEncoder(config, Shape(5, (2, 3)), 3).eval(), torch.randn(2, 5, 2, 3)
    before = encoder(x)
    encoder.queries.queries[2] += torch.randn(16)
    after = encoder(x)
    assert torch.equal(before.values[:, :2], after.values[:, :2])
    assert (before.values - after.values)[:, 2:].abs().amax(-1).min() > 0
    assert before.features["queries"].shape == (2, 4, 16) and before.values.shape == (2, 4, 3)
