"""One sampling run: cached steps, windows, rollback, and rows at different places."""

import gc
import weakref

import pytest
import torch

from vistok.config import validate
from vistok.config.registry import build, entries
from vistok.core.records import Condition
from vistok.generators.decoding import Decoding
from vistok.generators.static_step import StaticStep
from vistok.tokens import TokenSpec

SPEC = TokenSpec(blocks=((2, 3),), vocab=(7,))
TRUNK = {"width": 16, "depth": 2, "heads": 2}
TEXT = {"condition": {"text": {"dim": 3, "length": 4, "layers": 2}}}
CLASSES = {"condition": {"classes": 3}}
KINDS = {
    "rope": {"kind": "autoregressive", "positions": "rope", **CLASSES},
    "learned": {"kind": "autoregressive", "positions": "learned", **CLASSES},
    "per_block": {"kind": "autoregressive", "positions": "per_block", **CLASSES},
    "text": {"kind": "autoregressive", "positions": "per_block", **TEXT},
    "text, rope": {"kind": "autoregressive", "positions": "rope", **TEXT},
    "random_order": {"kind": "random_order", **CLASSES},
}
CODES = torch.randint(7, (2, 6, 1), generator=torch.Generator().manual_seed(1))


def make(name: str, **changes):
    """A generator of this kind whose weights all have an influence, in fp32."""
    tree = {"transformer": TRUNK, **KINDS[name], **changes}
    torch.manual_seed(0)
    model = build(validate(entries("generator")[tree["kind"]].config, tree), SPEC).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def condition(model) -> Condition:
    """Of two samples, which differ."""
    if model.texts is None:
        return Condition(label=torch.tensor([0, 2]))
    features = torch.randn(2, 2, 4, 3, generator=torch.Generator().manual_seed(2))
    return Condition(text=features, text_mask=torch.tensor([[True] * 4, [False, *[True] * 3]]))


def run_of(model, guided: bool = True, **options) -> Decoding:
    return Decoding(model, condition(model), 2, SPEC.length, guided=guided, **options)


def whole(model, guided: bool = True) -> torch.Tensor:
    """[R, L, W]: hidden states of one full run; row i predicts position i + 1."""
    run = run_of(model, guided)
    x = torch.cat([run.start, model.embed(CODES).repeat(run.rows // 2, 1, 1)], dim=1)
    return model.run(x, 0, run.start, **run.text)[:, run.start.shape[1] :]


# Caches of a run: of windows, of single steps (here with segments of 4 places), none.
CACHES = {"windows": {}, "single": {"single": True}, "none": {"cache": False}}


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr("vistok.layers.segments._PLACES", 4)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("cache", CACHES)
def test_steps_and_windows_equal_the_full_run(name, cache):
    model = make(name)
    full = whole(model)
    for cuts in ([1] * 6, [2, 3, 1], [6]):
        run = run_of(model, **CACHES[cache])
        first, at, parts = run.begin(), 0, []
        for count in cuts:
            parts.append(run.feed(CODES[:, at : at + count]))
            at += count
            assert run.position == at
        torch.testing.assert_close(torch.cat(parts, 1), full, atol=1e-4, rtol=0)
    start = run_of(model)
    torch.testing.assert_close(first, start.begin(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("cache", CACHES)
def test_what_was_rolled_back_is_forgotten(name, cache):
    model = make(name)
    full, run = whole(model), run_of(model, **CACHES[cache])
    run.begin()
    run.feed(CODES[:, :2])
    run.feed((CODES[:, 2:5] + 1) % 7)
    run.rollback(2)
    parts = [run.feed(CODES[:, 2:3]), run.feed(CODES[:, 3:4]), run.feed(CODES[:, 4:])]
    torch.testing.assert_close(torch.cat(parts, 1), full[:, 2:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("guided", "single"), [(True, False), (False, False), (True, True)])
def test_samples_may_be_at_different_places(name, guided, single):
    model = make(name)
    full, run = whole(model, guided), run_of(model, guided, single=single)
    run.begin()
    run.feed(torch.cat([CODES[:, :2], (CODES[:, 2:4] + 1) % 7], dim=1))
    places = torch.tensor([1, 2])
    for count in (2, 1, 3):  # the second sample ends at 6 and is fed beyond it
        run.rollback(places)
        picked = (places[:, None] + torch.arange(count)).clamp(max=5)
        hidden = run.feed(CODES[torch.arange(2)[:, None], picked])
        valid = (places[:, None] + torch.arange(count)) < 6
        copies = run.rows // 2
        expected = full[torch.arange(run.rows)[:, None], picked.repeat(copies, 1)]
        keep = valid.repeat(copies, 1)
        torch.testing.assert_close(hidden[keep], expected[keep], atol=1e-4, rtol=0)
        places = places + count
        assert torch.equal(run.position, places)
    run.rollback(2)
    torch.testing.assert_close(run.feed(CODES[:, 2:3]), full[:, 2:3], atol=1e-4, rtol=0)


def test_places_need_a_cache(fails):
    run = run_of(make("rope"), cache=False)
    with fails(ValueError, "cache=False: samples cannot be at different places"):
        run.rollback(torch.tensor([0, 1]))


@pytest.mark.parametrize("name", KINDS)
def test_a_step_of_static_shapes_equals_any_other(name):
    model = make(name)
    full, run = whole(model), run_of(model)
    run.begin()
    x = model.embed(CODES).repeat(2, 1, 1)
    one, three = (StaticStep(run, x[:, :count], capture=False) for count in (1, 3))
    slots = run.start.shape[1] + torch.arange(6).expand(run.rows, -1)
    parts = [one(x[:, i : i + 1], slots[:, i : i + 1]) for i in range(3)]
    parts.append(three(x[:, 3:], slots[:, 3:]))
    torch.testing.assert_close(torch.cat(parts, 1), full, atol=1e-4, rtol=0)
    run.rollback(1)  # and back to shapes that grow
    torch.testing.assert_close(run.feed(CODES[:, 1:3]), full[:, 1:3], atol=1e-4, rtol=0)


def test_steps_are_captured_on_cuda_alone(monkeypatch):
    run = run_of(make("rope"))
    run.begin()
    assert not run.steps.on

    def fails(self):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(StaticStep, "_capture", fails)
    run.steps.on = True  # as on a GPU
    with pytest.warns(UserWarning, match="sampling without CUDA graphs: operation not permitted$"):
        hidden = run.feed(CODES[:, :1])
    torch.testing.assert_close(hidden, whole(run.model)[:, :1], atol=1e-4, rtol=0)
    assert not run.steps.on


@pytest.mark.parametrize("name", KINDS)
def test_packed_weights_change_nothing(name):
    model = make(name)
    states = {}
    for fast in (True, False):
        run = run_of(model, fast=fast)
        states[fast] = torch.cat([run.begin(), run.feed(CODES[:, :1]), run.feed(CODES[:, 1:4])], 1)
    torch.testing.assert_close(states[True], states[False], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("fast", "single"), [(True, True), (True, False), (False, False)])
def test_bf16_is_close_and_leaves_the_model_alone(fast, single):
    model = make("rope")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    exact = whole(model)
    run = run_of(model, fast=fast, single=single, dtype=torch.bfloat16)
    run.begin()
    hidden = torch.cat([run.feed(CODES[:, i : i + 1]) for i in range(6)], dim=1)
    assert hidden.dtype == run.caches[0].keys.dtype == torch.bfloat16
    assert float((hidden - exact).abs().max() / exact.abs().max()) < 0.05
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(one.dtype == torch.float32 for one in model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_that_change_after_sampling_are_seen(precision):
    model = make("rope")
    settings = {"sampling": {"temperature": 0, "precision": precision}, "index": torch.arange(2)}
    before = model.sample(condition(model), **settings).indices
    model.head.out.weight.neg_()
    after = model.sample(condition(model), **settings).indices
    assert not torch.equal(before, after)
    model.head.out.weight.neg_()
    assert torch.equal(model.sample(condition(model), **settings).indices, before)


@pytest.mark.parametrize("name", ["rope", "random_order"])
def test_samples_do_not_depend_on_how_they_are_run(name):
    model = make(name)
    label, index = torch.tensor([0, 1, 2, 0, 1]), torch.arange(5)

    def ids(rows: slice, **changes) -> torch.Tensor:
        given = {"guidance": 2.0, "top_k": 4, **changes}
        return model.sample(
            Condition(label=label[rows]), index=index[rows], seed=3, sampling=given
        ).indices

    every = ids(slice(None))
    parts = [ids(slice(i, i + 1)) for i in range(2)] + [ids(slice(2, None))]
    assert torch.equal(torch.cat(parts), every)
    assert torch.equal(ids(slice(None), fast=False), every)
    assert torch.equal(ids(slice(None), cache=False), every)


@pytest.mark.parametrize(
    "trunk",
    [
        {"norm": "rmsnorm", "mlp": "swiglu", "bias": False},
        {"qk_norm": True, "layer_scale": 0.5, "mlp": "geglu"},
        {"qk_norm": True, "qk_norm_kind": "layernorm", "attention_scale": "mup", "out_bias": False},
        {"kv_heads": 1},
        {"attention_fp32": True},
    ],
    ids=lambda trunk: ", ".join(trunk),
)
@pytest.mark.parametrize("samples", [1, 2])
def test_the_short_way_of_a_step_equals_the_full_run(trunk, samples):
    for positions in ("rope", "learned"):
        model = make("rope", transformer={**TRUNK, **trunk}, positions=positions)
        given, codes = Condition(label=torch.arange(samples)), CODES[:samples]
        fast = Decoding(model, given, samples, SPEC.length, single=True)
        slow = Decoding(model, given, samples, SPEC.length, cache=False)
        for run in (fast, slow):
            run.begin()
        for i in range(SPEC.length):
            step = codes[:, i : i + 1]
            torch.testing.assert_close(fast.feed(step), slow.feed(step), atol=1e-5, rtol=1e-5)
        fast.rollback(2)  # further steps write to what earlier ones made
        full = slow.model.run(slow.sequence, 0, slow.start)[:, -4:]
        torch.testing.assert_close(fast.feed(codes[:, 2:]), full, atol=1e-5, rtol=1e-5)


def test_what_a_run_holds_is_freed_with_it():
    """Caches and packed weights do not wait for the garbage collector."""
    gc.disable()
    try:
        run = run_of(make("rope"))
        run.begin()
        held = [weakref.ref(run), weakref.ref(run.model), weakref.ref(run.caches[0])]
        del run
        assert [one() for one in held] == [None] * 3
    finally:
        gc.enable()


@pytest.mark.parametrize("jacobi", [None, {"window": 3}], ids=["single", "windows"])
@pytest.mark.parametrize("name", ["rope", "text", "random_order"])
def test_samples_under_autocast(name, jacobi):
    """Keys that are narrower than the caches, of several slots and at different places."""
    model = make(name)
    ids = lambda **more: (
        model.sample(condition(model), index=torch.arange(2), seed=2, sampling=more).indices
    )
    with torch.autocast("cpu", torch.bfloat16):
        whole = ids(jacobi=jacobi and {**jacobi, "coupling": "quantile"}, guidance=2.0)
        assert torch.equal(ids(cache=False, guidance=2.0), whole)
