"""Tokenizers that borrow a network, store fewer tokens than they emit, sample without settings."""

import pytest
import torch

import tests.support.fake_parts
from vistok.config import Config, validate
from vistok.decoders.flow import FlowSamplingConfig
from vistok.eval.images import exact
from vistok.eval.protocols import codecs, image_grids, robust
from vistok.eval.systems.runs import resolve
from vistok.tokenizer import Tokenizer, TokenizerConfig

assert tests.support.fake_parts  # registers the parts

pytestmark = pytest.mark.filterwarnings("ignore:Fréchet")


@pytest.fixture
def flow(tree):
    """flow(scale=3, kind="apg") -> a tokenizer whose decoder samples with this guidance."""

    def make(**guidance):
        torch.manual_seed(0)
        decoder = {"kind": "fake_flow", "sampling": {"steps": 2, "guidance": guidance}}
        config = {**tree("fsq"), "decoder": decoder}
        return Tokenizer(validate(TokenizerConfig, config)).eval()

    return make


def padded(tree, missing):
    """It emits five latents and stores four of them."""
    torch.manual_seed(0)
    config = tree("fsq", missing)
    config["encoder"] |= {"kind": "padded", "latents": {"count": 5}}
    return Tokenizer(validate(TokenizerConfig, config)).eval()


def test_a_saved_tokenizer_with_a_borrowed_network_is_a_run(tree, tmp_path):
    config = tree("fsq")
    config["encoder"]["patches"] = {"size": 2}
    spaces = {"input_space": {"kind": "borrowed"}, "output_space": {"kind": "borrowed"}}
    config |= {**spaces, "decoder": {"kind": "fake_flow"}}
    Tokenizer(validate(TokenizerConfig, config)).save_pretrained(tmp_path / "flow")
    run = resolve([tmp_path / "flow"])[0].tokenizer
    assert run.kind == "tokenizer" and run.described["frozen"] == {"fake-vae": "5" * 64}
    assert run.spec.length == 4


@pytest.mark.parametrize("missing", ["mask_token", "drop"])
def test_fewer_tokens_may_be_stored_than_emitted(context, measure, tree, missing):
    found = context(padded(tree, missing), count=4, batch=4)
    assert found.spec.length == 4 and found.tokenizer.layout.count == 5
    clean = {row.length: row.value for row in measure(found, "rfid") if row.metric == "PSNR"}
    rows = measure(found, "robust", flips=(), losses=(0.0, 0.5))
    psnr = {row.point["damage"]: row.value for row in rows if row.metric == "PSNR"}
    assert robust.tells_missing(found) and psnr["drop_tail"] == pytest.approx(clean[2], rel=1e-6)
    assert [row.value for row in measure(found, "pfid", mode="quick")]
    with exact():
        grid = image_grids.perturbed(found)
    assert grid["cells"] == 4


def test_rows_carry_the_guidance_that_images_are_decoded_with(context, flow):
    found = context(flow(kind="apg", eta=0.7), count=4)
    found.sampling = {"decoder": {"guidance": {"scale": 3.0}}}
    own = found.row("rFID", 1.0).sampling["decoder"]["guidance"]
    assert (own["kind"], own["eta"], own["scale"]) == ("apg", 0.7, 3.0)
    with exact():
        batch = found.views.chosen([0, 1])
        tokens = found.encode(batch, None)
        used = found.tokenizer.decode(tokens, sampling=found.decoder_sampling)
        assert torch.equal(found.decode(tokens, None), used)


class NoSettings(Config):
    """Sampling settings without fields."""


def test_a_decoder_may_sample_without_settings(context, flow):
    tokenizer = flow()
    decoder = tokenizer.decoder
    decoder.sampling, sample = NoSettings(), decoder.sample
    decoder.sample = lambda *given: sample(*given[:-1], FlowSamplingConfig(steps=1))
    found = context(tokenizer, count=4)
    row = found.row("rFID", 1.0)
    assert (row.sampling, row.seed) == ({"decoder": {}}, 0) and not robust.tells_missing(found)
    with exact():
        tokens = found.encode(found.views.chosen([0, 1]), None)
        one, two = (found.decode(tokens, None, torch.tensor(n)) for n in ([0, 1], [2, 3]))
        assert not torch.equal(one, two)
        found.seed = 1
        assert not torch.equal(found.decode(tokens, None, torch.tensor([0, 1])), one)


def test_rows_of_image_codecs_know_no_tokenizer(context, flow):
    found = context(flow(), count=4)
    with exact():
        rows = codecs.codec_rows(found, codecs.CODECS[0], 50)
    assert {(str(row.sampling), row.seed, row.condition) for row in rows} == {("{}", None, "none")}
