"""Cosmos's image tokenizers as they are released: wrappers, sizes read from weights, options."""

from __future__ import annotations

import pytest
import torch

from tests.support.official import COSMOS_DI, COSMOS_IMAGE, FLAT, official
from vistok.config import ConfigError, UserError, validate, validate_part
from vistok.pretrained import FAMILIES, from_official, load, to_official
from vistok.pretrained.tokenizers.cosmos_quantizers import plain
from vistok.storage.origin import Origin
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer, TokenizerConfig

COSMOS = FAMILIES["cosmos_image"]
NAMES = [name for name in FLAT if name.startswith("cosmos_image")]


def buffers() -> dict[str, torch.Tensor]:
    """What TorchScript, and cosmos-predict1's modules, keep beside the weights."""
    return {
        "encoder.patcher.wavelets": torch.ones(2),
        "encoder.patcher._arange": torch.arange(2),
        "decoder.unpatcher.wavelets": torch.ones(2),
        "quantizer._levels": torch.tensor([5, 3], dtype=torch.int32),
        "quantizer._basis": torch.tensor([1, 5], dtype=torch.int32),
        "quantizer.implicit_codebook": torch.zeros(15, 2),
        "inv_quant.quantizer._levels": torch.tensor([5, 3], dtype=torch.int32),
    }


def test_a_file_without_a_config_says_its_own_sizes(tmp_path):
    """Also under a trainer's prefix; buffers are carried along."""
    family, state, config = official("cosmos_image")
    expected = from_official(family, state, {**config, "image_size": 256}).config
    state |= buffers()
    for prefix in ("", "network."):
        given = {f"{prefix}{key}": tensor for key, tensor in state.items()}
        torch.save({"model": given, "iteration": 7}, tmp_path / "model.pt")
        tokenizer = load(tmp_path / "model.pt")
        assert tokenizer.config == expected
    tokenizer.save_pretrained(tmp_path / "ours")
    assert set(Origin.load(tmp_path / "ours").inert) == set(buffers())
    back, _ = to_official(Tokenizer.from_pretrained(tmp_path / "ours"))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize("name", ["cosmos_image-ae", "cosmos_image-vae"])
def test_continuous_weights_say_so(name):
    _, state, config = official(name)
    state["encoder.patcher.wavelets"] = torch.ones(2)
    found = COSMOS.constants(state)
    wanted = COSMOS.config(config)["quantizer"]
    assert COSMOS.config(found)["quantizer"] == wanted
    assert COSMOS.constants({k: v for k, v in state.items() if "patcher" not in k}) is None


@pytest.mark.parametrize("name", [name for name in NAMES if "-" in name])
def test_buffers_of_bare_weights_tell_the_quantizer(name):
    """Residual FSQ and LFQ have no weights: these alone tell what they are."""
    family, state, config = official(name)
    levels = torch.tensor([5, 3], dtype=torch.int32)
    state["encoder.patcher.wavelets"] = torch.ones(2)
    state |= {
        "residual": {f"quantizer.layers.{i}._levels": levels for i in range(2)},
        "product": {"quantizer._levels": levels},
        "lfq": {"quantizer.mask": 2 ** torch.arange(3, -1, -1), "quantizer.zero": torch.zeros(1)},
    }.get(name.removeprefix("cosmos_image-"), {})
    found = from_official(family, state, COSMOS.constants(state)).config.quantizer
    mine = validate_part("quantizer", COSMOS.config(config)["quantizer"], "test")
    assert plain(mine.model_dump()) == plain(found.model_dump())


def test_levels_without_attention_meet_no_counter():
    """1024 / 4 halves to 32 at the fourth level, which the releases' own [32] would meet."""
    sizes = {"channels_mult": [1, 1, 1, 1], "patch_size": 4, "spatial_compression": 32}
    config = {**FLAT["cosmos_image"], **sizes, "resolution": 1024, "attn_resolutions": []}
    tokenizer = Tokenizer(validate(TokenizerConfig, COSMOS.config(config)))
    state = to_official(tokenizer, "cosmos_image")[0] | {"encoder.patcher.wavelets": torch.ones(2)}
    state["quantizer._levels"] = torch.tensor([5, 3])
    again = from_official("cosmos_image", state, COSMOS.constants(state)).config
    assert again.encoder.conv == tokenizer.config.encoder.conv


@pytest.mark.parametrize("name", NAMES)
def test_the_way_back_says_the_same(name):
    """What a model that was trained here is written as opens as that model."""
    family, state, config = official(name)
    tokenizer = from_official(family, state, {**config, "image_size": [16, 24]})
    said = COSMOS.official(tokenizer.config)
    assert said["image_size"] == [16, 24]
    again = from_official(family, state, said)
    assert again.config == tokenizer.config
    states = [one.state_dict() for one in (tokenizer, again)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("resolution", "patch", "met", "expected"),
    [
        (1024, 2, [], ([], [])),
        (32, 2, [8], ([1], [1])),  # counters 16, 8, 4 and 4, 8, 16
        (42, 2, [5], ([2], [2])),  # 21, 10, 5 and, from the smallest, 5, 10, 20
        (42, 2, [20, 21], ([0], [0])),
        (42, 2, [20], ([], [0])),
    ],
)
def test_attention_follows_the_counters(resolution, patch, met, expected):
    config = COSMOS_DI | {"resolution": resolution, "attn_resolutions": met, "patch_size": patch}
    tree = COSMOS.config(config)
    found = tuple(tree[part]["conv"]["attention_levels"] for part in ("encoder", "decoder"))
    assert found == expected


def test_the_decoders_counter_does_not_know_of_levels_that_keep_the_sides():
    config = COSMOS_DI | {"spatial_compression": 4, "attn_resolutions": [8]}
    tree = COSMOS.config(config)  # 16, 8, 8 and, from the smallest, 4, 8, 8
    found = [tree[part]["conv"]["attention_levels"] for part in ("encoder", "decoder")]
    assert found == [[1, 2], [0, 1]] and tree["encoder"]["conv"]["space_levels"] == 1


def test_bits_are_counted_from_the_other_end():
    """The original's first channel is the highest bit of an index."""
    family, state, config = official("cosmos_image-lfq")
    tokenizer = from_official(family, state, config)
    rows = tokenizer.encoder.proj.weight
    assert torch.equal(rows.flip(0), state["quant_conv.weight"][..., 0, 0])
    assert torch.equal(tokenizer.encoder.proj.bias.flip(0), state["quant_conv.bias"])
    columns = tokenizer.decoder.embed.weight
    assert torch.equal(columns.flip(1), state["post_quant_conv.weight"][..., 0, 0])


def test_options_of_the_official_config():
    found = lambda **changes: COSMOS.config({**COSMOS_DI, **changes})
    base = found()
    unread = {"name": "x", "num_groups": 1, "num_quantizers": 2, "dtype": "x", "scale": 2.0,
              "persistent_quantizer": True, "keep_num_codebooks_dim": True, "z_factor": 2,
              "dim": 2}  # fmt: skip
    for name, value in unread.items():
        assert found(**{name: value}) == base, name
    assert found(dropout=0.2)["decoder"]["conv"]["dropout"] == 0.2
    assert found(patch_method="rearrange")["output_space"]["method"] == "rearrange"
    ways = {1: 0, 2: 0, 4: 1, 12: 2, 16: 3}  # rounded down; nothing below the patch
    for compression, count in ways.items():
        tree = found(spatial_compression=compression)
        assert tree["encoder"]["conv"]["space_levels"] == count
        assert tree["decoder"]["conv"]["space_levels"] == count
    vq = COSMOS.config(FLAT["cosmos_image-vq"])["quantizer"]["loss_weights"]
    assert vq == {"codebook": 0.25, "commitment": 1.0}  # `legacy` puts beta on the codebook
    other = COSMOS.config({**FLAT["cosmos_image-vq"], "legacy": False, "beta": 0.5})
    assert other["quantizer"]["loss_weights"] == {"codebook": 1.0, "commitment": 0.5}
    with pytest.warns(UserWarning, match="config key interpolation is not known"):
        found(interpolation="nearest")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("", {"quantizer": "BSQ"}, "quantizer='BSQ'; expected FSQ, RESFSQ, VQ or LFQ"),
        ("", {"encoder": "LiteVAE"}, "encoder='LiteVAE' is not supported; expected 'Default'"),
        ("", {"out_channels": 1}, "out_channels=1 is not supported"),
        ("", {"patch_method": "db2"}, "db2"),
        ("", {"patch_size": 3}, "patch: got 3"),
        ("", {"channels": 48}, "channels=48, .* a multiple of 32"),
        ("", {"channels_mult": []}, r"channels_mult=\[\]: .* one multiplier or more"),
        ("", {"spatial_compression": 64}, "spatial_compression=64 of patch_size=2 is 5 halvings"),
        ("", {"embedding_dim": 3}, "embedding_dim=3 but 2 levels; expected one level for each"),
        ("", {"num_codebooks": 2}, "embedding_dim=2 but 2 levels of each of 2 codebooks"),
        ("", {"dim": 5}, "dim=5; expected 2: projections around FSQ"),
        ("-residual", {"num_quantizers": 0}, "num_quantizers=0; expected a whole number"),
        ("-vq", {"use_norm": True}, "use_norm=True; expected false"),
        ("-vq", {"remap": "used.npy"}, "remap='used.npy'; expected none"),
        ("-vq", {"num_embeddings": None}, "num_embeddings=None; expected a whole number"),
        ("-vq", {"beta": "x"}, "beta='x'; expected a number"),
        ("-lfq", {"codebook_dim": 3}, "embedding_dim=4; expected codebook_dim=3: projections"),
        ("-lfq", {"embed_dim": 6}, "embed_dim=6; expected codebook_dim=4: projections"),
        ("-lfq", {"codebook_size": 15}, "codebook_size=15; expected 2 .* = 16"),
        ("-ae", {"z_factor": 2}, "z_factor=2; expected 1 of formulation=AE"),
        ("-ae", {"formulation": "GAN"}, "formulation='GAN'; expected 'AE' or 'VAE'"),
    ],
)
def test_what_it_cannot_take_is_named(name, change, words, fails):
    family, state, config = official(f"cosmos_image{name}")
    with fails(ConfigError, words):
        from_official(family, state, {**config, **change}, "here")


@pytest.mark.parametrize("key", [*COSMOS_DI, "dropout", "z_factor", "num_codebooks"])
def test_values_of_wrong_types_are_one_line(key):
    for value in (None, "many", [], {}, -1, 1.5):
        try:
            from_official("cosmos_image", {}, {**COSMOS_DI, key: value}, "somewhere")
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, (key, value)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.pop("decoder.up.2.upsample.conv.bias"), "missing decoder.up.2.upsample"),
        (lambda s: s.update({"encoder.down.2.downsample.conv.bias": s["quant_conv.bias"]}),
         "unexpected encoder.down.2.downsample.conv.bias"),
        (lambda s: s.update({"quant_conv.weight": torch.ones(3, 4, 1, 1)}), "quant_conv.weight"),
    ],
)  # fmt: skip
def test_wrong_weights_are_one_line(damage, words, fails):
    family, state, config = official("cosmos_image")
    damage(state)
    with fails(WeightsError, "model.pt", words):
        from_official(family, state, config, "model.pt")


def test_what_the_official_layout_cannot_say_is_refused(fails):
    tokenizer = from_official(*official("cosmos_image"))
    config = tokenizer.config
    eps = config.quantizer.model_copy(update={"eps": 0.01})
    with fails(ConfigError, "cosmos_image: quantizer.eps=0.01 has no place"):
        COSMOS.official(config.model_copy(update={"quantizer": eps}))
    conv = config.encoder.conv.model_copy(update={"norm_groups": 8})
    encoder = config.encoder.model_copy(update={"conv": conv})
    with fails(ConfigError, "cosmos_image: encoder.conv=.* has no place"):
        COSMOS.official(config.model_copy(update={"encoder": encoder}))
    trained = COSMOS_IMAGE | {"quantizer": "VQ", "embedding_dim": 4, "num_embeddings": 16}
    other = COSMOS.config(trained)["quantizer"] | {"kind": "vq", "revive_below": 0.1}
    same = config.model_validate({**config.model_dump(), "quantizer": other})
    assert COSMOS.official(same)["quantizer"] == "VQ"  # how a codebook learns is no matter
