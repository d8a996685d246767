"""Conditions of a generator: class, text, pooled features, and the learned null in their place."""

from dataclasses import replace

import pytest
import torch

from vistok.config import ConfigError, validate
from vistok.core.draws import Draws
from vistok.core.records import Batch, Condition
from vistok.generators import load_generator
from vistok.generators.autoregressive import Autoregressive, AutoregressiveConfig
from vistok.generators.captions import weighted_mean, with_text
from vistok.generators.conditioning import (
    ConditionConfig,
    ConditionTokens,
    check_condition,
    read_condition,
)
from vistok.tokens import Tokens, TokenSpec

BOTH = {"classes": 3, "text": {"dim": 5, "length": 2}, "pooled": 6}
FALSE, TRUE = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)


def condition(**changes) -> Condition:
    generator = torch.Generator().manual_seed(1)
    given = {
        "label": torch.tensor([0, 2, 1, 0]),
        "text": torch.randn(4, 2, 5, generator=generator),
        "text_mask": torch.tensor([[True, True], [True, False], [True, True], [True, True]]),
        "pooled": torch.randn(4, 6, generator=generator),
    }
    return Condition(**given | changes)


def tokens_of(config: dict, width: int = 8) -> ConditionTokens:
    torch.manual_seed(0)
    return ConditionTokens(validate(ConditionConfig, config), width)


def test_a_class_is_one_token_and_null_the_last_row():
    module = tokens_of({"classes": 3})
    rows = module.label.weight
    label = Condition(label=torch.tensor([0, 2, 1, 0]))
    assert module.count == 1
    assert torch.equal(module(label, 4)[:, 0], rows[[0, 2, 1, 0]])
    assert torch.equal(module(Condition(), 4)[:, 0], rows[[3, 3, 3, 3]])
    unlabeled = Condition(label=torch.tensor([0, -1, 1, -1]), null=torch.tensor([0, 1, 0, 1]) > 0)
    assert torch.equal(module(unlabeled, 4)[:, 0], rows[[0, 3, 1, 3]])
    dropped = torch.tensor([True, False, False, False])  # joins those without a class
    assert torch.equal(module(unlabeled, 4, dropped)[:, 0], rows[[3, 3, 1, 3]])
    assert tokens_of({"classes": 0})(label, 4).unique(dim=0).shape == (1, 1, 8)


def test_text_and_pooled_features_stand_before_the_sequence():
    module = tokens_of(BOTH)
    out = module(condition(), 4)
    assert module.count == 3 and out.shape == (4, 3, 8)
    assert torch.equal(out[:, 2], module(condition(text=None), 4)[:, 2])
    assert torch.equal(out[1, 1], module.no_text[1])  # a position without text
    assert torch.allclose(out[1, 0], module.text(condition().text[1, 0]))
    pooled = module.label.weight[[0, 2, 1, 0]] + module.pooled(condition().pooled)
    assert torch.allclose(out[:, 2], pooled)
    nothing = module(Condition(), 4)
    assert torch.equal(nothing[0], torch.cat([module.no_text, module.label.weight[3:]]))
    assert torch.equal(module(condition(null=TRUE), 4), nothing)
    assert torch.equal(module(condition(), 4, TRUE), nothing)
    assert torch.equal(module(condition(null=FALSE), 4, FALSE), out)


@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_an_autoregressive_generator_reads_text(tmp_path, positions):
    torch.manual_seed(0)
    spec = TokenSpec(blocks=((2, 2),), vocab=(6,))
    transformer = {"width": 16, "depth": 1, "heads": 2}
    tree = {"transformer": transformer, "condition": BOTH, "positions": positions}
    model = Autoregressive(validate(AutoregressiveConfig, tree), spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    tokens = Tokens.of(spec, torch.randint(6, (4, 4, 1)))
    given = condition()
    nats = model.nats(tokens, given)
    assert nats.shape == (4, 4)
    for name in ("text", "pooled"):  # each has an influence on every sample
        other = model.nats(tokens, condition(**{name: getattr(given, name).flip(0)}))
        assert (other - nats).abs().amax(dim=1).min() > 1e-4
    nothing = model.nats(tokens, Condition())
    assert torch.allclose(model.nats(tokens, given, Draws(null=TRUE)), nothing, atol=1e-6)
    model(tokens, given, Draws(null=torch.tensor([True, False, False, True])))["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    model.save_pretrained(tmp_path)
    index, guided = torch.arange(4), {"guidance": 2.0}
    sampled = [
        one.sample(given, index=index, sampling=guided | {"cache": cache}).indices
        for one in (model, load_generator(tmp_path))
        for cache in (True, False)
    ]
    assert all(torch.equal(one, sampled[0]) for one in sampled)
    assert not torch.equal(sampled[0], model.sample(index=index).indices)
    # The likelihood of a position does not depend on what comes after it, text or not.
    changed = tokens.indices.clone()
    changed[:, 2] = (changed[:, 2] + 1) % 6
    after = model.nats(Tokens(spec, indices=changed), given)
    assert torch.equal(after[:, :2], nats[:, :2]) and not torch.allclose(after[:, 3], nats[:, 3])


@pytest.mark.parametrize(
    ("config", "given", "words"),
    [
        ({"classes": 3}, {"label": torch.tensor([0, 3])}, "labels lie in 0..3; expected 0..2"),
        (
            {"classes": 3},
            {"label": torch.tensor([-2, 2])},
            "labels lie in -2..2; expected 0..2, or -1",
        ),
        ({"classes": 0}, {"label": torch.tensor([0, 0])}, "without classes; leave labels out"),
        ({"classes": 3}, {"label": torch.tensor([0])}, "label is of 1 samples, index of 2"),
        ({"classes": 3}, {"pooled": torch.zeros(2, 4)}, "without condition.pooled; leave it out"),
        (
            {"classes": 3},
            {"frames": torch.zeros(2, 3, 1, 8, 8)},
            "cannot continue condition.frames",
        ),
        ({"pooled": 6}, {"pooled": torch.zeros(2, 4)}, r"pooled has shape \[2, 4\]; expected \[2"),
        (
            {"text": {"dim": 5, "length": 2}},
            {"text": torch.zeros(2, 3, 5)},
            r"text has shape \[2, 3, 5\]; expected \[2, 2, 5\]",
        ),
    ],
)
def test_conditions_that_do_not_fit_are_one_line(fails, config, given, words):
    with fails(ValueError, words):
        check_condition(Condition(**given), validate(ConditionConfig, config), 2)


def test_unlabeled_samples_need_no_class():
    config = validate(ConditionConfig, {"classes": 3})
    label = torch.tensor([2, -1])
    check_condition(Condition(label=label), config, 2)
    module = tokens_of({"classes": 3})
    assert torch.equal(module(Condition(label=label), 2)[:, 0], module.label.weight[[2, 3]])


def test_a_batch_gives_the_condition_that_is_read(fails):
    read = lambda batch, **config: read_condition(batch, validate(ConditionConfig, config))
    label, given = torch.tensor([2, -1]), condition().select(slice(0, 2))
    batch = Batch(index=torch.arange(2), label=label, condition=replace(given, label=None))
    only = read(batch, classes=3)
    assert only.label is label and only.null.tolist() == [False, True]
    assert only.text is None and only.pooled is None
    both = read(batch, **BOTH)  # a text without a class is still read
    assert both.null is None and both.label is label
    assert torch.equal(both.text, given.text) and torch.equal(both.pooled, given.pooled)
    assert torch.equal(both.text_mask, given.text_mask)
    assert read(batch, classes=0) == Condition()
    with fails(ConfigError, "condition.pooled: this generator reads it", "text.pooled"):
        read(Batch(index=torch.arange(2), label=label), pooled=6)


# -- captions --------------------------------------------------------------------------------------


CAPTIONS = {
    "dim": 5, "length": 4, "projection": "mlp", "empty": "stored", "mask": True, "align": "end",
    "class_token": False, "textless": "ignored",
}  # fmt: skip


def test_captions_lie_at_the_end_and_their_padding_is_hidden():
    torch.manual_seed(0)
    module = tokens_of({"classes": 0, "text": CAPTIONS})
    text = torch.randn(3, 4, 5)
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]]) > 0
    given, null = Condition(text=text, text_mask=mask), torch.tensor([False, True, False])
    tokens, seen = module(given, 3, null), module.seen(given, 3)
    assert module.count == 4 and "label" not in dict(module.named_children())
    torch.testing.assert_close(tokens[0, 2:], module.text(text)[0, :2])
    torch.testing.assert_close(tokens[1], module.text(module.empty))
    assert seen.mask.tolist() == [[False, False, True, True], [False] * 3 + [True], [True] * 4]
    assert module.seen(Condition(), 3).mask.all() and seen.keys == 0
    free = seen.join(module.seen(Condition(), 3))  # rows without the condition keep its mask
    assert torch.equal(free.mask, torch.cat([seen.mask, seen.mask]))
    assert "empty" in module.state_dict() and not module.empty.requires_grad


def test_hidden_padding_changes_no_sample_with_or_without_a_cache():
    """Grouped heads, zero rotary rows and guidance, as in LlamaGen."""
    config = {
        "transformer": {"width": 16, "depth": 2, "heads": 2, "kv_heads": 1},
        "condition": {"classes": 0, "text": CAPTIONS},
        "condition_positions": "zero",
    }
    torch.manual_seed(0)
    spec = TokenSpec(blocks=((2, 2),), vocab=(7,))
    model = Autoregressive(validate(AutoregressiveConfig, config), spec).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    assert not model.rotary_cos[:4].any() and not model.rotary_sin[:4].any()
    text, index = torch.randn(3, 4, 5), torch.arange(3)
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]]) > 0
    sample = lambda text, rows=index, **settings: (
        model.sample(
            Condition(text=text, text_mask=mask[rows]),
            index=rows,
            sampling={"guidance": 3.0} | settings,
        ).indices
    )
    whole, other = sample(text), torch.where(mask[..., None], text, 9.0)
    assert torch.equal(whole, sample(text, cache=False))
    assert torch.equal(whole, sample(other))
    assert torch.equal(whole[1:2], sample(text[1:2], index[1:2]))
    seen = Condition(text=text)  # without a mask the padding is text
    assert not torch.equal(
        model.nats(Tokens(spec, whole), seen)[0],
        model.nats(Tokens(spec, whole), Condition(text=text, text_mask=mask))[0],
    )


def test_samples_without_text_are_left_out_of_the_mean():
    values = torch.arange(6.0).view(3, 2)
    mask = torch.tensor([[0, 0], [0, 1], [1, 1]]) > 0
    with_any = with_text(Condition(text=torch.zeros(3, 2, 5), text_mask=mask), 3)
    assert with_any.tolist() == [False, True, True]
    assert weighted_mean(values, with_any).item() == 3.5
    assert weighted_mean(values, None).item() == 2.5
    assert weighted_mean(values, with_text(Condition(), 3)).item() == 0.0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"classes": 2, "text": CAPTIONS}, "class_token=false with classes=2.*set classes=0"),
        ({"text": CAPTIONS | {"layers": 3}}, "projection=mlp is of text in front of the tokens"),
        ({"classes": 2, "null_class": False}, "null_class=false with dropout=0.1"),
    ],
)
def test_contradictions_of_captions_and_classes_are_one_line(config, words, fails):
    with fails(ValueError, words):
        tokens_of(config)
