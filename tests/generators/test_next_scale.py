"""Next-scale prediction: what a scale sees, which quantizers it reads, text, positions left out."""

from __future__ import annotations

import pytest
import torch

from tests.support.generators import codes_of, lively, tokens_of
from vistok.config import ConfigError, validate, validate_part
from vistok.config.registry import build
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.generators.base import Generator, SavedCodes
from vistok.generators.next_scale import NextScale, NextScaleConfig
from vistok.generators.sampling import narrowed
from vistok.tokens import Tokens, TokenSpec

SPEC = TokenSpec(blocks=((1, 1), (2, 2), (3, 3)), vocab=(16,), dim=4, prefix="block")
TRUNK = {"width": 16, "depth": 2, "heads": 2}
TEXT = {
    "transformer": {**TRUNK, "modulation": "none"},
    "positions": "rope",
    "condition": {
        "classes": 0,
        "text": {"dim": 6, "length": 5, "layers": 1},
        "pooled": 6,
        "pooled_norm": False,
    },
}
INDEX = torch.arange(3)
LABEL = Condition(label=torch.tensor([0, 1, 1]))


def made(spec: TokenSpec = SPEC, codes=None, **changes) -> NextScale:
    torch.manual_seed(0)
    tree = {"transformer": TRUNK, "condition": {"classes": 2}, **changes}
    config = validate(NextScaleConfig, tree)
    return lively(build(config, spec, codes or codes_of(spec))).eval()


def text(samples: int = 3, words: int = 3) -> Condition:
    generator = torch.Generator().manual_seed(4)
    return Condition(
        text=torch.randn(samples, 1, 5, 6, generator=generator),
        text_mask=torch.arange(5).expand(samples, -1) < words,
        pooled=torch.randn(samples, 6, generator=generator),
    )


# -- what a scale sees -----------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, TEXT], ids=["class", "text"])
def test_a_scale_sees_all_of_the_earlier_ones_and_nothing_later(changes):
    model, tokens = made(**changes), tokens_of(SPEC)
    given = text() if changes else LABEL
    before = model.nats(tokens, given)
    for scale, (start, stop) in enumerate(((0, 1), (1, 5), (5, 14))):
        codes = tokens.indices.clone()
        codes[:, stop - 1] = (codes[:, stop - 1] + 5) % 16
        after = model.nats(Tokens(SPEC, indices=codes), given)
        same = (before - after).abs().amax(0) < 1e-6
        # The code itself is another; the others of its scale do not know it, and all later ones do.
        assert same[: stop - 1].all() and not same[stop - 1], scale
        assert not same[stop:].any() and not (start and not same[start : stop - 1].all())


@pytest.mark.parametrize("changes", [{}, TEXT], ids=["class", "text"])
def test_the_cache_gives_what_whole_sequences_give(changes):
    model, given = made(**changes), text() if changes else LABEL
    settings = {"guidance": 3.0, "top_k": 8, "top_p": 0.9}
    one, two = (
        model.sample(given, index=INDEX, seed=2, sampling={**settings, "cache": cache})
        for cache in (True, False)
    )
    assert torch.equal(one.indices, two.indices)


def test_guidance_grows_from_scale_to_scale(monkeypatch):
    """Scale 1 at the first, the setting at the last: t = cfg s / (S - 1) of VAR plus 1."""
    seen = []
    monkeypatch.setattr(
        "vistok.generators.next_scale.guide",
        lambda logits, push, rows: seen.append(push) or logits[:rows],
    )
    made().sample(LABEL, index=INDEX, sampling={"guidance": 2.5})
    assert seen == [1.0, 1.75, 2.5]


def test_top_p_leaves_out_what_vars_rule_leaves_out():
    """VAR drops codes, from the least likely on, while their probabilities add up to 1 - p at most,
    but never the most likely one."""
    logits = torch.randn(64, 40, generator=torch.Generator().manual_seed(3)) * 2
    ordered, order = logits.sort(dim=-1)
    drop = ordered.softmax(-1).cumsum(-1) <= 1 - 0.8
    drop[:, -1] = False
    dropped = torch.zeros_like(drop).scatter(-1, order, drop)
    settings = validate(NextScaleConfig, {"sampling": {"top_p": 0.8}}).sampling
    assert torch.equal(narrowed(logits, settings).isinf(), dropped) and dropped.any()


# -- quantizers ------------------------------------------------------------------------------------


def test_the_quantizer_is_copied_and_saved_and_never_trained(tmp_path):
    codes = codes_of(SPEC)
    model = made(codes=codes)
    held = {name for name, _ in model.named_parameters() if name.startswith("sums.")}
    assert not held and model.config.quantizer == codes.config
    tokens = tokens_of(SPEC)
    read = model.inputs(tokens.indices)
    with torch.no_grad():
        codes.atoms[0].codebook.add_(1.0)  # of the tokenizer, which goes on training
    assert torch.equal(model.inputs(tokens.indices), read)
    model.save_pretrained(tmp_path)
    again = Generator.from_pretrained(str(tmp_path))
    assert torch.equal(again.inputs(tokens.indices), read)
    assert torch.equal(model.untrained().inputs(tokens.indices), read)


@pytest.mark.parametrize("split", ["channels", "grids"])
def test_products_and_bits_of_scales(split):
    """ImageFolder's branches, whose values lie side by side, and scales of bits."""
    scales = {"kind": "multi_scale", "scales": [1, 1, 2], "phi": {"count": 2}}
    atom = {"kind": "lfq", "bits": 4, "factor_bits": 1, "sphere": True}
    if split == "grids":
        atom = {"kind": "vq", "codebook_size": 16, "dim": 4, "l2_norm": False}
    tree = {"kind": "product", "split": split, "quantizer": {**scales, "quantizer": atom}}
    codes = build(validate_part("quantizer", tree))
    vocab = codes.vocab
    blocks = ((1, 1), (1, 1), (2, 2))
    spec = TokenSpec(blocks=blocks, vocab=vocab, dim=codes.value_dim, branches=codes.branches)
    model = made(spec, codes)
    assert model.head_kind == ("bernoulli" if split == "channels" else "causal")
    assert model.inputs(tokens_of(spec).indices).shape == (3, 5, codes.value_dim)
    assert model.sample(LABEL, index=INDEX).check().spec == spec and not model.can_stop


@pytest.mark.parametrize(
    "blocks", [((2, 2),), ((2, 2), (2, 2)), ((4,), (9,)), ((2, 2), (1, 1)), ((1, 2), (2, 1))]
)
def test_tokens_without_growing_scales_are_refused(fails, blocks):
    spec = TokenSpec(blocks=blocks, vocab=(16,))
    with fails(InputError, "kind=next_scale models scales: .*grow", "use autoregressive"):
        build(NextScaleConfig.tiny(), spec, SavedCodes())


def test_wrong_quantizers_are_one_line(fails):
    config = NextScaleConfig.tiny()
    with fails(InputError, "give codes=tokenizer.quantizer"):
        build(config, SPEC)
    with fails(ConfigError, "quantizer=null: a saved next_scale .*save it again"):
        build(config, SPEC, SavedCodes())
    with fails(InputError, r"vocab=\(12,\); expected \(16,\)"):
        build(config, SPEC, codes_of(SPEC.model_copy(update={"vocab": (12,)})))
    with fails(InputError, "has no scales"):
        plain = {"kind": "vq", "codebook_size": 16, "dim": 4}
        build(config, SPEC, build(validate_part("quantizer", plain)))
    with fails(InputError, "14 positions; expected 5"):
        small = TokenSpec(blocks=((1, 1), (2, 2)), vocab=(16,))
        build(config, SPEC, codes_of(small))


def test_a_dry_run_needs_no_quantizer():
    with torch.device("meta"):
        model = build(NextScaleConfig.tiny(), SPEC, SavedCodes())
    assert model.embed.in_features == SPEC.dim and model.config.quantizer is None


# -- STAR ------------------------------------------------------------------------------------------


def test_the_text_form_learns_what_the_text_says():
    """Codes that the first word of a text names: nats fall far below those of the codes' share."""
    torch.manual_seed(0)
    config = validate(NextScaleConfig, TEXT | {"max_length": 11, "drop_from": 2})
    model = build(config, SPEC, codes_of(SPEC)).train()
    which = torch.arange(32) % 4
    given = text(32)
    given = Condition(text=given.text * 0.1, text_mask=given.text_mask, pooled=given.pooled)
    given.text[:, 0, 0, :4] = torch.eye(4)[which] * 3
    codes = (which * 4).to(torch.uint8)[:, None, None].expand(-1, SPEC.length, 1).contiguous()
    tokens = Tokens(SPEC, indices=codes)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(40):
        draws = model.draw(torch.arange(32), Rng(0, "generator", step), Progress(step, 40))
        loss = model(tokens, given, draws)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing
    total, count = model.eval().evaluate(tokens, given)["nll"]
    assert total / count < 0.5  # log 4 = 1.39 nats is what the frequencies of codes tell
    sampled = model.sample(given, index=torch.arange(32), sampling={"temperature": 0.0})
    assert (sampled.indices == codes).float().mean() > 0.9


@torch.no_grad()
def test_padding_is_not_read_and_samples_without_text_are_finite():
    model, tokens, given = made(**TEXT), tokens_of(SPEC), text()
    before = model.nats(tokens, given)
    given.text[:, :, 3:] += 9.0
    assert torch.equal(model.nats(tokens, given), before)
    given.text[:, :, :3] += 9.0
    assert not torch.allclose(model.nats(tokens, given), before)
    nothing = Condition(text=given.text, text_mask=given.text_mask & False, pooled=given.pooled)
    assert model.nats(tokens, nothing).isfinite().all()
    assert model.nats(tokens, Condition()).isfinite().all()


def test_a_place_has_the_same_angles_in_all_scales():
    model = made(**TEXT, rope_extent=6.0)
    cos, sin = (table[SPEC.block_lengths[0] :] for table in model.rotary(slice(None)))
    corners = {1: [0, 1, 2, 3], 2: [4, 6, 10, 12]}  # of the grids of 2 and 3
    for table in (cos, sin):
        assert torch.equal(table[corners[1]], table[corners[2]])
    columns = model.rotary_cos.shape[1] // 2
    assert torch.equal(cos[0, columns:], cos[1, columns:])  # columns come first
    assert not torch.equal(cos[0, :columns], cos[1, :columns])


@torch.no_grad()
def test_positions_left_out_are_neither_read_nor_counted(fails):
    whole = made(**TEXT)
    cut = made(**TEXT, max_length=9, drop_from=2)
    cut.load_state_dict(whole.state_dict())
    tokens, given = tokens_of(SPEC), text()
    draws = cut.draw(INDEX, Rng(0), Progress(0, 1))
    mask = draws.part("generator").mask
    assert mask[:, :5].all() and mask.sum(1).tolist() == [9] * 3
    assert len({tuple(row.tolist()) for row in mask}) > 1  # each sample has its own
    nats, all_nats = cut.nats(tokens, given, draws), whole.nats(tokens, given, draws)
    assert (nats[~mask] == 0).all() and (nats[mask] > 0).all()
    assert torch.allclose(nats[:, :5], all_nats[:, :5], atol=1e-5)
    found = cut(tokens, given, draws)
    assert torch.allclose(found["loss"], nats[mask].mean(), atol=1e-5)
    assert torch.equal(cut.nats(tokens, given), whole.nats(tokens, given))  # outside of training
    with fails(InputError, "max_length=5, drop_from=2.*expected drop_from < 3"):
        made(max_length=5, drop_from=2)


def test_wrong_texts_are_one_line(fails):
    for layers in (None, 3):
        wrong = {**TEXT, "condition": {"text": {"dim": 6, "length": 5, "layers": layers}}}
        with fails(ValueError, f"condition.text.layers={layers}: .*expected 1, or 2"):
            validate(NextScaleConfig, wrong)
    with fails(ValueError, "positions=rope .*multiple of 4"):
        validate(NextScaleConfig, {**TEXT, "transformer": {"width": 12, "heads": 2, "depth": 2}})
