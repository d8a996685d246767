"""The tokenizer: shapes, prefixes, modes, errors, files."""

import copy
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from vistok.config import ConfigError, validate
from vistok.core.draws import Draws
from vistok.core.records import Batch
from vistok.runtime.modes import evaluating
from vistok.storage.weights import WeightsError, read_safetensors, write_safetensors
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import Tokens, TokenSpec

QUANTIZERS = ["fsq", "vq", "vq_ema", "lfq", "bsq", "binary", "binary_sign"]


def pixels(batch: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_pixels_to_tokens_to_pixels(make_tokenizer, quantizer):
    tokenizer = make_tokenizer(quantizer)
    spec = tokenizer.spec()
    tokens = tokenizer.encode(pixels())
    assert tokens.spec == spec and tokens.size == (1, 8, 8) and tokens.keep is None
    assert tokens.indices.shape == (3, 4, len(spec.vocab))
    assert tokens.indices.dtype == Tokens.dtype(spec)
    decoded = tokenizer.decode(tokens.check())
    assert decoded.shape == (3, 3, 8, 8) and decoded.dtype == torch.float32
    assert float(decoded.min()) >= 0 and float(decoded.max()) <= 1
    # The way of training without draws gives the same image, bit for bit.
    whole = tokenizer(Batch(index=torch.arange(3), pixels=pixels()))
    assert torch.equal(whole.pixels.clamp(0, 1), decoded)
    assert torch.equal(whole.target, pixels())
    # And so do bytes.
    back = Tokens.from_bytes(tokens.to_bytes(), spec)
    assert torch.equal(tokenizer.decode(back), decoded)


@pytest.mark.parametrize("missing", ["mask_token", "drop"])
def test_prefixes(make_tokenizer, missing):
    tokenizer = make_tokenizer(missing=missing)
    assert tokenizer.spec().prefix == "token" and tokenizer.spec().eval_lengths == (1, 2, 4)
    tokens = tokenizer.encode(pixels())
    whole = tokenizer.decode(tokens)
    for length in (1, 2, 3):
        cut = tokenizer.decode(tokens.prefix(length))
        assert torch.equal(cut, tokenizer.decode(tokenizer.encode(pixels(), length=length)))
        assert not torch.allclose(cut, whole, atol=1e-3)
        # What lies behind the prefix has no influence at all.
        other = Tokens(tokens.spec, tokens.indices.clone(), keep=torch.full((3,), length))
        other.indices[:, length:] = 5
        assert torch.equal(tokenizer.decode(other), cut)
    # All of it is the whole.
    assert torch.allclose(tokenizer.decode(tokens.prefix(4)), whole, atol=1e-6)
    # Lengths may be mixed in a batch.
    mixed = tokenizer.decode(tokens.prefix([1, 4, 2]))
    for row, length in enumerate((1, 4, 2)):
        alone = tokenizer.decode(tokens.select(slice(row, row + 1)).prefix(length))
        assert torch.allclose(mixed[row : row + 1], alone, atol=1e-6)


def test_a_cut_prefix_equals_a_decoder_that_was_given_only_it(make_tokenizer):
    tokenizer = make_tokenizer(missing="drop")
    tokens = tokenizer.encode(pixels())
    decoder, table = tokenizer.decoder, tokenizer.decoder.latent_positions
    for length in (1, 3):
        masked = tokenizer.decode(tokens.prefix(length))
        decoder.latent_positions = torch.nn.Parameter(table[:length])
        short = decoder(tokenizer.values(tokens)[:, :length]).prediction
        short = tokenizer.output_space.inverse(short).clamp(0, 1)
        decoder.latent_positions = table
        assert torch.allclose(masked, short, atol=1e-5)


def test_mask_tokens_are_all_alike(make_tokenizer):
    # Behind the prefix every latent is one learned vector, without a position of its own.
    tokenizer = make_tokenizer(missing="mask_token")
    cut = tokenizer.encode(pixels()).prefix(2)
    before = tokenizer.decode(cut)
    with torch.no_grad():
        tokenizer.decoder.latent_positions[2:] *= -3
    assert torch.equal(tokenizer.decode(cut), before)
    with torch.no_grad():
        tokenizer.decoder.missing_token *= -1
    assert not torch.allclose(tokenizer.decode(cut), before, atol=1e-3)


def test_training_keep_equals_the_prefix(make_tokenizer):
    for missing in ("mask_token", "drop"):
        tokenizer = make_tokenizer(missing=missing)
        keep = torch.tensor([1, 3, 4])
        trained = tokenizer(Batch(torch.arange(3), pixels()), Draws(keep=keep))
        decoded = tokenizer.decode(tokenizer.encode(pixels()).prefix(keep))
        assert torch.equal(trained.pixels.clamp(0, 1), decoded)
        # `present` says the same latent by latent, and both together leave what both leave.
        present = torch.arange(4)[None] < keep[:, None]
        same = tokenizer(Batch(torch.arange(3), pixels()), Draws(present=present))
        assert torch.equal(same.pixels, trained.pixels)
        both = Draws(keep=torch.tensor([4, 3, 4]), present=present)
        assert torch.equal(tokenizer(Batch(torch.arange(3), pixels()), both).pixels, same.pixels)


def test_causal_latents_do_not_depend_on_later_ones(make_tokenizer):
    tokenizer = make_tokenizer(attention="causal_latents")
    first = tokenizer.latents(pixels()).values
    with torch.no_grad():
        tokenizer.encoder.latent_tokens[2] *= -1
    second = tokenizer.latents(pixels()).values
    assert torch.equal(first[:, :2], second[:, :2])
    assert not torch.allclose(first[:, 2:], second[:, 2:], atol=1e-3)


def test_a_decoder_that_refuses_prefixes(make_tokenizer, fails):
    tokenizer = make_tokenizer(missing="refuse")
    assert tokenizer.spec().prefix == "none"
    with fails(ValueError, "length=2.*whole sequences"):
        tokenizer.encode(pixels(), length=2)
    flexible = make_tokenizer(missing="drop")
    with fails(ValueError, "cannot leave values out", "mask_token or drop"):
        tokenizer.decode(flexible.encode(pixels(), length=2))


def test_modes_come_back_module_by_module(make_tokenizer):
    tokenizer = make_tokenizer().train()
    tokenizer.encoder.eval()  # frozen
    modes = [module.training for module in tokenizer.modules()]
    usage = {k: v.clone() for k, v in tokenizer.state_dict().items()}
    tokenizer.decode(tokenizer.encode(pixels()))
    assert [module.training for module in tokenizer.modules()] == modes
    with pytest.raises(RuntimeError, match="inside"), evaluating(tokenizer):
        assert not tokenizer.decoder.training
        raise RuntimeError("inside")
    assert [module.training for module in tokenizer.modules()] == modes
    assert all(torch.equal(v, usage[k]) for k, v in tokenizer.state_dict().items())


def test_network_dropout_is_off_in_encode_and_decode(make_tokenizer):
    tokenizer = make_tokenizer(
        transformer={"width": 16, "depth": 1, "heads": 2, "dropout": 0.5}
    ).train()
    a, b = (tokenizer.encode(pixels()).indices for _ in range(2))
    assert torch.equal(a, b)


def test_steps_are_differentiable(make_tokenizer):
    tokenizer = make_tokenizer("vq")
    x = pixels().requires_grad_()
    decoded = tokenizer.reconstruct(tokenizer.quantize(tokenizer.latents(x)).values)
    decoded.estimate.sum().backward()
    assert float(x.grad.abs().sum()) > 0


def test_batches_can_be_split(make_tokenizer):
    tokenizer = make_tokenizer()
    whole = tokenizer.encode(pixels(6)).indices
    halves = [tokenizer.encode(part).indices for part in pixels(6).split(2)]
    assert torch.equal(torch.cat(halves), whole)


# -- wrong input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (torch.rand(1, 3, 8, 9), r"shape \(1, 3, 8, 9\); expected \[B, 3, 8, 8\]"),
        (torch.rand(3, 8, 8), r"expected \[B, 3, 8, 8\]"),
        (torch.rand(1, 1, 8, 8), r"expected \[B, 3, 8, 8\]"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "type torch.uint8.*divide uint8 by 255"),
        (torch.rand(1, 3, 8, 8) * 255, "expected 0..1"),
        (torch.rand(1, 3, 8, 8) * 2 - 1, r"lie in -.*expected 0..1"),
        (torch.full((1, 3, 8, 8), torch.nan), "expected 0..1"),
    ],
)
def test_wrong_pixels_are_one_line(make_tokenizer, fails, wrong, words):
    with fails(ValueError, words):
        make_tokenizer().encode(wrong)


def test_other_float_types_and_no_images(make_tokenizer):
    tokenizer = make_tokenizer()
    assert torch.equal(
        tokenizer.encode(pixels().double()).indices, tokenizer.encode(pixels()).indices
    )
    assert tokenizer.encode(pixels().half()).indices.shape == (3, 4, 1)
    empty = tokenizer.encode(pixels()[:0])
    assert len(empty) == 0 and tokenizer.decode(empty).shape == (0, 3, 8, 8)


def test_wrong_tokens_are_one_line(make_tokenizer, fails):
    tokenizer = make_tokenizer()
    tokens = tokenizer.encode(pixels())
    spec = tokens.spec
    with fails(ValueError, "index 12 of factor 0.*0..11"):
        tokenizer.decode(Tokens(spec, torch.full((1, 4, 1), 12)))
    with fails(ValueError, "length=9: expected 1..4"):
        tokenizer.decode(Tokens(spec, tokens.indices, keep=torch.tensor([9, 1, 1])))
    with fails(ValueError, "length=0: expected 1..4"):
        tokenizer.encode(pixels(), length=0)
    with fails(ValueError, r"expected \[B, 4, 1\]"):
        tokenizer.decode(Tokens(spec, tokens.indices[:, :3]))
    with fails(ValueError, r"blocks \(\(5,\),\).*decodes \(\(4,\),\)"):
        other = TokenSpec(blocks=((5,),), vocab=(12,), prefix="token")
        tokenizer.decode(Tokens(other, torch.zeros(1, 5, 1, dtype=torch.uint8)))
    with fails(ValueError, "product 13"):
        other = TokenSpec(blocks=((4,),), vocab=(13,), prefix="token")
        tokenizer.decode(Tokens(other, torch.zeros(1, 4, 1, dtype=torch.uint8)))


def test_regrouped_tokens_are_decoded_as_they_were(make_tokenizer):
    tokenizer = make_tokenizer("binary")
    tokens = tokenizer.encode(pixels())
    assert torch.equal(tokenizer.decode(tokens.regroup((8, 8))), tokenizer.decode(tokens))


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_saved_and_loaded_decodes_bit_equal(make_tokenizer, tmp_path, quantizer):
    tokenizer = make_tokenizer(quantizer)
    tokenizer.save_pretrained(tmp_path)
    assert {"config.json", "model.safetensors"} <= {p.name for p in tmp_path.iterdir()}
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert not loaded.training and loaded.config == tokenizer.config
    tokens = tokenizer.encode(pixels())
    assert torch.equal(loaded.encode(pixels()).indices, tokens.indices)
    assert torch.equal(loaded.decode(tokens), tokenizer.decode(tokens))
    for name, tensor in tokenizer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


@pytest.fixture
def saved(make_tokenizer, tmp_path):
    make_tokenizer("vq").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change_weights(folder, change) -> None:
    tensors = read_safetensors(folder / "model.safetensors")
    change(tensors)
    write_safetensors(tensors, folder / "model.safetensors")


def change_config(folder, change) -> None:
    data = json.loads((folder / "config.json").read_text())
    change(data)
    (folder / "config.json").write_text(json.dumps(data))


def nan(tensors) -> None:
    tensors["quantizer.codebook"][3, 1] = torch.nan


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (lambda f: (f / "config.json").unlink(), ConfigError, "no config.json; expected a folder"),
        (lambda f: (f / "config.json").write_text("{a"), ConfigError, "config.json: not JSON"),
        (lambda f: (f / "config.json").write_text("[1]"), ConfigError, "expected a JSON object"),
        (
            lambda f: change_config(f, lambda d: d["encoder"].update(pach_size=4)),
            ConfigError,
            "config.json: encoder.pach_size: unknown key",
        ),
        (
            lambda f: change_config(f, lambda d: d["quantizer"].update(kind="vqq")),
            ConfigError,
            "config.json: quantizer.kind: unknown kind 'vqq'; did you mean 'vq'",
        ),
        (
            lambda f: change_config(f, lambda d: d["quantizer"].update(codebook_size=24)),
            WeightsError,
            r"quantizer.codebook has shape \(12, 4\); expected \(24, 4\)",
        ),
        (
            lambda f: (f / "model.safetensors").unlink(),
            WeightsError,
            "model.safetensors: no such weights file",
        ),
        (
            lambda f: change_weights(f, lambda t: t.pop("encoder.proj.bias")),
            WeightsError,
            "model.safetensors: missing encoder.proj.bias; these are weights of another config",
        ),
        (
            lambda f: change_weights(f, lambda t: t.update(extra=torch.zeros(1))),
            WeightsError,
            "model.safetensors: unexpected extra",
        ),
        (
            lambda f: change_weights(f, nan),
            WeightsError,
            "not finite in quantizer.codebook",
        ),
    ],
)
def test_broken_folders_are_one_line(saved, fails, damage, kind, words):
    damage(saved)
    with fails(kind, words):
        Tokenizer.from_pretrained(saved)


def test_broken_weights_files_are_one_line(saved, fails, broken):
    files = sorted(broken.glob("*.safetensors"))
    assert len(files) >= 8
    for path in files:
        shutil.copyfile(path, saved / "model.safetensors")
        with fails(WeightsError, "model.safetensors: "):
            Tokenizer.from_pretrained(saved)


def test_plain_tensors_decode(make_tokenizer, fails):
    tokenizer = make_tokenizer("vq")
    tokens = tokenizer.encode(torch.rand(3, 3, 8, 8))
    images = tokenizer.decode(tokens)
    for plain in (tokens.ids(), tokens.ids().to(torch.int16), tokens.indices):
        assert torch.equal(tokenizer.decode(plain), images)
    assert torch.equal(tokenizer.decode(tokens.ids()[1]), tokenizer.decode(tokens[1]))
    short = tokens.prefix(2)
    assert torch.equal(tokenizer.decode(tokens.ids()[:, :2]), tokenizer.decode(short))
    assert torch.equal(tokenizer.decode(short.ids()), tokenizer.decode(short))
    with fails(ValueError, r"id 12: expected 0\.\.11"):
        tokenizer.decode(torch.tensor([1, 2, 3, 12]))
    with fails(ValueError, "ids of type float32; expected integers"):
        tokenizer.decode(torch.rand(3, 4))


def test_a_training_loop_of_ones_own(make_tokenizer, tmp_path):
    """That of `Tokenizer.latents`, from a loaded model."""
    make_tokenizer("vq").save_pretrained(tmp_path)
    tokenizer = Tokenizer.from_pretrained(tmp_path).train()
    optimizer = torch.optim.AdamW(tokenizer.parameters(), 1e-2)
    weights = (tmp_path / "model.safetensors").read_bytes()
    image, losses = np.full((8, 8, 3), 200, np.uint8), []
    for _ in range(20):
        pixels = tokenizer.preprocess([image, image])
        quantized = tokenizer.quantize(tokenizer.latents(pixels))
        decoded = tokenizer.reconstruct(quantized.values)
        output = tokenizer.output_space.inverse(decoded.estimate)
        loss = (output - pixels).square().mean() + sum(quantized.losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert tokenizer.encoder.proj.weight.grad.any()  # straight through the codes
    assert (tmp_path / "model.safetensors").read_bytes() == weights
    tokenizer.save_pretrained(tmp_path)  # into the folder that it came from
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.encode(pixels) == tokenizer.encode(pixels)


def test_copies_pickles_and_threads(make_tokenizer):
    tokenizer = make_tokenizer("scales")
    pixels = torch.rand(8, 3, 8, 8)
    tokens, images = tokenizer.encode(pixels), tokenizer.decode(tokenizer.encode(pixels))
    for twin in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert twin.encode(pixels) == tokens and torch.equal(twin.decode(tokens), images)
        with torch.no_grad():
            twin.encoder.proj.weight.zero_()  # of its own
    assert tokenizer.encode(pixels) == tokens
    assert pickle.loads(pickle.dumps(tokens)) == copy.deepcopy(tokens) == tokens

    def both(row: int) -> bool:
        one = tokenizer.encode(pixels[row : row + 1])
        return one == tokens[row] and torch.allclose(
            tokenizer.decode(one), images[row : row + 1], atol=1e-6
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(both, [*range(8)] * 4))


def test_no_such_model(fails, tmp_path):
    for name, words in (
        (tmp_path / "none", "none: no such file or folder"),
        ("nobody/nothing", "no such file .*a model of the hub is written hf:nobody/nothing"),
        ("hf:nobody/nothing-of-this-name", "hf:nobody/.*: the hub does not give it"),
        ("hf:nobody", "hf:nobody: not an id of the hub; expected hf:owner/name"),
    ):
        with fails(ConfigError, words):
            Tokenizer.from_pretrained(name)
    with pytest.raises(TypeError, match="lenght"):
        Tokenizer.from_pretrained(tmp_path, lenght=3)


def test_pushing_sends_the_same_two_files(make_tokenizer, monkeypatch):
    sent = {}

    class Hub:
        def __init__(self, **options) -> None:
            pass

        def create_repo(self, **options):
            return type("Url", (), {"repo_id": options["repo_id"]})

        def upload_folder(self, *, repo_id, folder_path, **options):
            sent[repo_id] = {p.name for p in folder_path.iterdir()}

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    make_tokenizer().push_to_hub("me/tokenizer")
    assert {"config.json", "model.safetensors"} <= sent["me/tokenizer"]


def test_a_space_key_and_image_side_are_shorthand(tree):
    config = validate(TokenizerConfig, tree())
    assert config.image_size == (8, 8)
    assert config.input_space.kind == config.output_space.kind == "pixels"


def test_part_parameters_add_up(make_tokenizer):
    tokenizer = make_tokenizer("vq")
    assert sum(tokenizer.part_parameters().values()) == sum(
        p.numel() for p in tokenizer.parameters()
    )
