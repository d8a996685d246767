"""The head that runs a transformer over a position's factors."""

import pytest
import torch
import torch.nn.functional as F

from tests.support.intra import LABEL, SPEC, made
from vistok.generators import load_generator
from vistok.tokens import Tokens, TokenSpec

VARIANTS = {
    "default": {},
    "open_magvit2": {"positions": "shared_rope", "context_norm": False},
    "own": {"positions": "learned", "embed": "own", "width": 24, "heads": 4, "depth": 1},
    "wider": {"width": 24},
}


@pytest.mark.parametrize("vocab", [(64,), (4, 16), (2,) * 6], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_sees_the_factors_before_it_alone(variant, vocab):
    model = made(VARIANTS[variant], vocab)
    hidden = torch.randn(2, 3, 16)
    columns = [torch.randint(size, (2, 3)) for size in vocab]
    with torch.no_grad():
        whole = model.head.logits(hidden, torch.stack(columns, -1))
        for f, size in enumerate(vocab):
            other = list(columns)
            other[f] = (columns[f] + 1) % size
            moved = model.head.logits(hidden, torch.stack(other, -1))
            for g, (before, after) in enumerate(zip(whole, moved, strict=True)):
                assert torch.allclose(before, after, atol=1e-6) == (g <= f)


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_of_sampling_are_those_of_the_likelihood(variant):
    model = made(VARIANTS[variant])
    hidden, codes = torch.randn(4, 16), torch.randint(2, (2, 3))
    seen = []
    pick = lambda logits, f: (seen.append(logits), codes[:, f])[1]  # two rows of each sample
    with torch.no_grad():
        assert torch.equal(model.head.sample(hidden, pick), codes)
        whole = model.head.logits(hidden[:, None], codes.repeat(2, 1)[:, None])
        for found, expected in zip(seen, whole, strict=True):
            torch.testing.assert_close(found, expected[:, 0], atol=1e-5, rtol=0)
        nats = model.head(hidden[:, None], codes.repeat(2, 1)[:, None])
    expected = sum(
        F.cross_entropy(one, codes.repeat(2, 1)[:, f], reduction="none")
        for f, one in enumerate(seen)
    )
    torch.testing.assert_close(nats[:, 0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_bf16_steps_are_those_of_bf16_weights(variant):
    """Tables that the head shares are cast with the generator's, and packed with nothing."""
    model, index = made(VARIANTS[variant]), torch.arange(3)
    ids = model.sample(LABEL, index=index, sampling={"precision": "bf16", "fast": False}).indices
    assert torch.equal(ids, model.bfloat16().sample(LABEL, index=index).indices)


def test_shared_tables_are_saved_once_and_learn_from_both_uses(tmp_path):
    model = made(VARIANTS["open_magvit2"]).train()
    assert [key for key in model.state_dict() if "embed" in key] == [
        f"embed.{f}.weight" for f in range(3)
    ]
    tokens = Tokens.of(SPEC, torch.randint(64, (3, 6, 1)))
    hidden = torch.randn(3, 6, 16)
    model.head(hidden, model.regrouped(tokens).indices.long()).sum().backward()
    grads = [table.weight.grad is not None for table in model.embed]
    assert grads == [True, True, False]  # nothing follows the last factor
    model.eval().save_pretrained(tmp_path)
    loaded = load_generator(tmp_path)
    sampled = [one.sample(LABEL, index=torch.arange(3)).indices for one in (model, loaded)]
    assert torch.equal(*sampled)


def test_what_does_not_fit_is_one_line(fails):
    with fails(ValueError, "shared_rope: this generator has no rotary table"):
        made({"positions": "shared_rope"}, positions="learned")
    with fails(ValueError, "shared_rope: the generator's table is 2 x 4; expected 6 rows or"):
        made({"positions": "shared_rope"}, (2,) * 6, spec=TokenSpec(blocks=((1,),), vocab=(64,)))
    with fails(ValueError, "shared_rope: the generator's table is 3 x 4.*3 rows or more, of 8"):
        made({"positions": "shared_rope", "heads": 1})
    with fails(ValueError, "width=18 must be a multiple of heads=4"):
        made({"width": 18, "heads": 4})
