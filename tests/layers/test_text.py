"""Text as further tokens: what is seen, what is not, and what must be given."""

from dataclasses import replace

import pytest
import torch

from vistok.config import ConfigError, validate
from vistok.core.draws import Draws
from vistok.core.records import Batch, Condition
from vistok.core.schedules import Progress
from vistok.layers.text import TextInput, TextInputConfig
from vistok.tokenizer import Tokenizer, TokenizerConfig

DIM, LENGTH = 6, 5
TEXT = {"dim": DIM, "length": LENGTH}


@pytest.fixture
def make(tree):
    """make(encoder's text, decoder's text) -> a tokenizer in evaluation, the same weights."""

    def go(encoder=None, decoder=None, **options) -> Tokenizer:
        config = tree(**options)
        for part, text in (("encoder", encoder), ("decoder", decoder)):
            if text is not None:
                config[part]["text"] = {**TEXT, **text}
        torch.manual_seed(3)
        return Tokenizer(validate(TokenizerConfig, config)).eval()

    return go


@pytest.fixture
def batch():
    draws = torch.Generator().manual_seed(5)
    return Batch(torch.arange(3), torch.rand(3, 3, 8, 8, generator=draws))


def features(seed: int = 0, null=None, **options) -> Condition:
    draws = torch.Generator().manual_seed(seed)
    text = torch.randn(3, LENGTH, DIM, generator=draws)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4])
    null = None if null is None else torch.tensor(null)
    return Condition(**{"text": text, "text_mask": mask, "null": null, **options})


def decoded(tokenizer, batch, condition):
    with torch.no_grad():
        found = tokenizer(batch, None, condition)
    return found.latents.values, found.pixels


def close(one, two) -> bool:
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one, two, strict=True))


BOTH = pytest.mark.parametrize(
    ("encoder", "decoder"), [({}, {}), (None, {}), ({}, None)], ids=["both", "decoder", "encoder"]
)


@BOTH
def test_text_changes_the_parts_that_read_it(make, batch, encoder, decoder):
    tokenizer = make(encoder, decoder)
    one, other = (decoded(tokenizer, batch, features(seed)) for seed in (0, 1))
    assert torch.allclose(one[0], other[0], atol=1e-5) == (encoder is None)
    assert not torch.allclose(one[1], other[1], atol=1e-5)


@BOTH
def test_missing_text_is_text_that_nobody_sees(make, batch, encoder, decoder):
    tokenizer = make(encoder, decoder)
    without = decoded(tokenizer, batch, None)
    for seed in (0, 1):
        assert close(decoded(tokenizer, batch, features(seed, null=[True] * 3)), without)
    hidden = features(0, text_mask=torch.zeros(3, LENGTH, dtype=torch.bool))
    assert close(decoded(tokenizer, batch, hidden), without)


def test_without_its_text_it_is_the_tokenizer_that_reads_none(make, batch):
    """TexTok's idea: the same weights but for the text's own give the same images."""
    reader, plain = make({}, {}), make()
    own = {k: v for k, v in reader.state_dict().items() if ".text." not in k}
    plain.load_state_dict(own, strict=True)
    assert close(decoded(reader, batch, None), decoded(plain, batch, None))


def test_each_sample_has_its_own_null(make, batch):
    tokenizer = make({}, {})
    without, given = (decoded(tokenizer, batch, c) for c in (None, features()))
    mixed = decoded(tokenizer, batch, features(null=[True, False, True]))
    for got, none, all_ in zip(mixed, without, given, strict=True):
        assert torch.allclose(got[[0, 2]], none[[0, 2]], atol=1e-5)
        assert torch.allclose(got[1], all_[1], atol=1e-5)
        assert not torch.allclose(got[0], all_[0], atol=1e-5)


def test_padding_is_masked_or_attended(make, batch):
    one = features()
    pad = one.text_mask.logical_not()[..., None]
    other = replace(one, text=torch.where(pad, 9.0, one.text))
    masked, attended = (make({"padding": p}, {"padding": p}) for p in ("masked", "attended"))
    assert close(decoded(masked, batch, one), decoded(masked, batch, other))
    a, b = (decoded(attended, batch, condition)[1] for condition in (one, other))
    assert torch.allclose(a[0], b[0], atol=1e-5)  # its text fills every position
    assert not torch.allclose(a[1], b[1], atol=1e-5)
    whole = replace(one, text_mask=None)
    assert close(decoded(attended, batch, one), decoded(attended, batch, whole))


def test_null_hides_attended_padding_too(make, batch):
    tokenizer = make({"padding": "attended"}, {"padding": "attended"})
    hidden = decoded(tokenizer, batch, features(null=[True] * 3))
    assert close(hidden, decoded(tokenizer, batch, None))


def test_text_that_must_be_given(make, batch, fails):
    tokenizer = make(None, {"optional": False})
    with fails(ValueError, "reads text and got none", r"tokenizer.condition\(texts\)"):
        tokenizer(batch)
    tokens = tokenizer.encode(batch.pixels)  # the encoder reads none
    with fails(ValueError, "reads text and got none"):
        tokenizer.decode(tokens)
    assert tokenizer.decode(tokens, features()).shape == (3, 3, 8, 8)
    with fails(ValueError, r"text features have shape \(3, 5, 4\); expected \[3, 5, 6\]"):
        tokenizer.decode(tokens, features(text=torch.zeros(3, 5, 4)))
    with fails(ValueError, "names no text encoder"):
        tokenizer.condition(["a"])


@BOTH
@pytest.mark.parametrize("missing", ["mask_token", "drop"])
def test_every_parameter_gets_a_gradient_even_if_all_texts_are_dropped(
    make, batch, encoder, decoder, missing
):
    for condition in (None, features(null=[True] * 3), features()):
        tokenizer = make(encoder, decoder, missing=missing).train()
        draws = Draws(keep=torch.tensor([1, 4, 2]))
        tokenizer(batch, draws, condition).pixels.square().mean().backward()
        for name, parameter in tokenizer.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        moved = [p.grad.abs().sum() > 0 for n, p in tokenizer.named_parameters() if ".text." in n]
        assert moved and all(
            bool(m) == (condition is not None and condition.null is None) for m in moved
        )


def test_a_prefix_with_text_equals_any_other_tail(make, batch):
    tokenizer = make({}, {}, missing="drop")
    tokens = tokenizer.encode(batch.pixels, condition=features())
    other = replace(tokens, indices=tokens.indices.clone())
    other.indices[:, 2:] = 0
    one, two = (tokenizer.decode(t.prefix(2), features()) for t in (tokens, other))
    assert torch.allclose(one, two, atol=1e-5)
    assert not torch.allclose(one, tokenizer.decode(tokens, features()), atol=1e-5)


def test_bf16_autocast_is_finite_and_near(make, batch):
    tokenizer = make({}, {}).train()
    exact = tokenizer(batch, None, features(null=[False, True, False]))
    with torch.autocast("cpu", torch.bfloat16):
        found = tokenizer(batch, None, features(null=[False, True, False]))
        found.pixels.square().mean().backward()
    assert found.pixels.isfinite().all()
    assert torch.allclose(found.latents.values.float(), exact.latents.values, atol=0.15)
    assert all(p.grad.isfinite().all() for p in tokenizer.parameters())


def test_features_of_another_type_or_place_are_inputs_like_any():
    read = TextInput(TextInputConfig(**TEXT), 16, 0.02)
    like = torch.zeros(3, 4, 16, dtype=torch.bfloat16)
    for kind in (torch.float16, torch.float64):
        tokens, seen = read(features(text=features().text.to(kind)), 3, like)
        assert tokens.dtype == torch.bfloat16 and tokens.shape == (3, LENGTH, 16)
        assert torch.equal(seen, features().text_mask)


def test_condition_dropout_hides_texts_by_its_draws(make, batch):
    tokenizer = make({}, {}, regularizers=[{"kind": "condition_dropout", "share": 0.5}])
    index = torch.arange(64)
    null = tokenizer.draw(index, 0, Progress(0, 1)).null
    assert 16 < int(null.sum()) < 48
    assert torch.equal(tokenizer.draw(index[7:9], 0, Progress(0, 1)).null, null[7:9])


def test_configs_that_cannot_work(make, tree, fails):
    dropout = [{"kind": "condition_dropout"}]
    with fails(ConfigError, "condition_dropout.*no part reads text that may be missing"):
        make(None, {"optional": False}, regularizers=dropout)
    with fails(ConfigError, "condition_dropout"):
        make(regularizers=dropout)
    with fails(ConfigError, "encoder.text.dim=6, decoder.text.dim=7"):
        make({}, {"dim": 7})
    config = tree()
    with fails(ConfigError, "no part reads text"):
        validate(TokenizerConfig, {**config, "text": {"path": "x"}})
    config["decoder"]["text"] = TEXT
    with fails(ConfigError, "decoder.text.length=5, but text.length=77"):
        validate(TokenizerConfig, {**config, "text": {"path": "x"}})
    config["encoder"] |= {"text": TEXT, "attention": "causal_latents"}
    with fails(ConfigError, "text is read with attention=full only"):
        validate(TokenizerConfig, config)
