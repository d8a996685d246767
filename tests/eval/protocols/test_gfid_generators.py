"""gFID of every kind of generator, on every form of tokens that it can model."""

from dataclasses import replace

import pytest
import torch

from tests.support.generators import KINDS, SPECS, lively, made, refuses
from vistok.core.shapes import Shape
from vistok.eval.context import Context
from vistok.eval.images import Views, exact
from vistok.eval.protocols import generated, gfid
from vistok.eval.protocols.base import Job
from vistok.eval.systems.runs import open_data, resolve
from vistok.tokens import TokenSpec

VOCABULARIES = [(16,), (4, 4), (2,) * 4]


class ColorTokenizer:
    """Decodes the codes of any tokens to the color of an 8x8 image."""

    config, sampling, shape = None, None, Shape(3, (8, 8))

    def __init__(self, spec: TokenSpec) -> None:
        self._spec = spec

    def spec(self) -> TokenSpec:
        return self._spec

    def decode(self, tokens):
        codes = tokens.indices.float() * tokens.kept()[..., None]
        tones = torch.stack([codes.mean((1, 2)), codes.amax((1, 2)), codes.amin((1, 2))], dim=-1)
        return (tones / max(self._spec.vocab))[:, :, None, None].expand(-1, 3, 8, 8)


@pytest.fixture
def system(runs, features):
    (system,) = resolve(list(runs))
    views = Views(open_data(system.tokenizer), 3)

    def make(model):
        tokenizer, generator = replace(system.tokenizer), replace(system.generators[0])
        tokenizer.__dict__["tokenizer"] = ColorTokenizer(model.spec)
        generator.__dict__["generator"] = model
        return Context(tokenizer, views, features), generator

    return make


@pytest.mark.parametrize("shape", SPECS)
@pytest.mark.parametrize("kind", KINDS)
def test_gfid_of_every_generator(system, fails, kind, shape):
    for vocab in VOCABULARIES:
        spec = TokenSpec(vocab=vocab, **SPECS[shape])
        if refuses(kind, spec, fails):
            continue
        model = lively(made(kind, spec)).eval()
        model.classes = ("cat", "dog")
        context, generator = system(model)
        scales = generated.scales_of(model, (2.0,))
        rows = []
        for one in generated.passes(spec, scales)[: len(scales) + 1]:
            one = one.model_copy(update={"samples": 5})
            context.job = Job(gfid.GFID(), one, generator, "none")
            with exact():
                rows += gfid.GFID().run(context, one)
        assert all(row.value >= 0 and row.count == 5 for row in rows)
        known = "guidance" in type(model.sampling).model_fields
        assert [row.guidance for row in rows][:2] == ([1.0, 2.0] if known else [None])
        kept = rows[0].sampling["generator"]
        assert kept == model.settings("unguided").model_dump(mode="json")
