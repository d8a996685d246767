"""Text of several layers, read inside the blocks: from the cache to gradients, and the KV cache."""

from __future__ import annotations

import pytest
import torch

from vistok.config import validate
from vistok.config.registry import build, entries
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.data import TokenCacheWriter
from vistok.data.token_cache import ArraySpec
from vistok.generators.autoregressive import Autoregressive
from vistok.tokens import Tokens, TokenSpec
from vistok.train.tasks.generator import GeneratorTask, GeneratorTaskConfig

SPEC = TokenSpec(blocks=((2, 3),), vocab=(2,) * 5)
LAYERS, LENGTH, DIM = 2, 4, 3
KINDS = {"autoregressive": {"positions": "per_block"}, "bit_diffusion": {}}


def config_of(kind: str, layers: int = LAYERS, **changes):
    tree = {
        "kind": kind,
        "transformer": {"width": 16, "depth": LAYERS, "heads": 2},
        "condition": {"text": {"dim": DIM, "length": LENGTH, "layers": layers}},
        **KINDS.get(kind, {}),
        **changes,
    }
    return validate(entries("generator")[kind].config, tree)


def text(count: int = 4) -> Condition:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(count, LAYERS, LENGTH, DIM, generator=generator)
    mask = torch.arange(LENGTH) >= torch.arange(count)[:, None] % 3  # padded on the left
    return Condition(text=features, text_mask=mask)


def bits(count: int = 4) -> Tokens:
    generator = torch.Generator().manual_seed(1)
    return Tokens.of(SPEC, torch.randint(2, (count, 6, 5), generator=generator))


def lively(model):
    torch.manual_seed(2)
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns_from_a_cache_with_text(kind, tmp_path):
    given, arrays = text(), {"text": ArraySpec.of(text().text), "text_mask": None}
    arrays["text_mask"] = ArraySpec.of(given.text_mask)
    options = {"source": {}, "tokenizer": "t", "sha256": "0", "arrays": arrays}
    with TokenCacheWriter(tmp_path, SPEC, 4, **options) as writer:
        writer.write(bits(), condition=given)
    data = validate(entries("data")["tokens"].config, {"path": str(tmp_path)})
    config = validate(GeneratorTaskConfig, {"generator": config_of(kind).model_dump()})
    task = GeneratorTask(config, build(data).open("train"))
    assert task.example(2).condition.text.shape == (2, LAYERS, LENGTH, DIM)
    model = lively(task.generator)
    index = torch.arange(4)
    model(bits(), given, model.draw(index, Rng(0), Progress(0, 1)))["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize("kind", KINDS)
def test_each_block_reads_its_own_layer(kind):
    model, given = lively(build(config_of(kind), SPEC)).eval(), text()
    loss = lambda condition: float(model.evaluate(bits(), condition)[model.judged_by[0]][0])
    whole = loss(given)
    for layer in range(LAYERS):
        other = given.text.clone()
        other[:, layer, -1] += 3
        assert loss(Condition(text=other, text_mask=given.text_mask)) != pytest.approx(whole)
    hidden = given.text.masked_fill(~given.text_mask[:, None, :, None], 7.0)
    assert loss(Condition(text=hidden, text_mask=given.text_mask)) == pytest.approx(whole)
    one = lively(build(config_of(kind, layers=1), SPEC)).eval()
    shared = Condition(text=given.text[:, :1], text_mask=given.text_mask)
    assert one.sample(shared, index=torch.arange(4)).check()


def test_wrong_layers_and_kinds_are_one_line(fails):
    with fails(ValueError, "text.layers=3: a transformer of depth=2 .*expected 2, or 1"):
        build(config_of("autoregressive", layers=3), SPEC)
    with fails(ValueError, "kind=random_order reads text in front.*use kind=autoregressive"):
        build(config_of("random_order"), SPEC)
    with fails(ValueError, r"1000 of vocab=\(1000,\) is no power of two; .*use autoreg"):
        build(config_of("bit_diffusion"), TokenSpec(blocks=((4,),), vocab=(1000,)))
    with fails(ValueError, "these are continuous .*use flow_ar"):
        build(config_of("bit_diffusion"), TokenSpec(blocks=((4,),), vocab=(), dim=3))


def test_the_kv_cache_gives_the_full_forward():
    model: Autoregressive = lively(build(config_of("autoregressive"), SPEC)).eval()
    given, tokens = text(), bits()
    start, read = model.start(given, 4), model.texts_of(given, 4)
    x = torch.cat([start, model.embed(tokens.indices[:, :-1].long())], dim=1)
    with torch.no_grad():
        whole = model.run(x, 0, start, **read)
        caches = model.transformer.new_caches(4, LENGTH + x.shape[1], x)
        steps = [model.run(x[:, i : i + 1], i, start, caches, **read) for i in range(x.shape[1])]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-4, rtol=0)
