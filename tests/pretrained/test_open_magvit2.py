"""Open-MAGVIT2's image tokenizers as they are released: Lightning checkpoints with averaged
weights, their YAML beside them or not; options, damage, export, and the generators' tokens."""

from __future__ import annotations

import pytest
import torch
import yaml

from vistok import pretrained
from vistok.config import ConfigError, validate
from vistok.core.errors import InputError
from vistok.pretrained import from_official, to_official
from vistok.pretrained.tokenizers.seed_voken import EMA
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import TokenSpec

NAME = "open_magvit2"
NETWORK = {"double_z": False, "z_channels": 6, "resolution": 16, "in_channels": 3, "out_ch": 3,
           "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1}  # fmt: skip


def settings(**changes) -> dict:
    """Arguments of the Lightning module, as its YAML has them."""
    network = NETWORK | changes.pop("network", {})
    loss = {"disc_start": 0, "codebook_weight": 0.1, "commit_weight": 0.25,
            "codebook_enlarge_ratio": 0, "codebook_enlarge_steps": 2000}  # fmt: skip
    given = {"ddconfig": network, "embed_dim": 6, "n_embed": 64, "use_ema": True,
             "lossconfig": {"target": "some.Class", "params": loss}, "learning_rate": 1e-4,
             "lr_drop_epoch": [200, 250], "resume_lr": None}  # fmt: skip
    return given | changes


@pytest.fixture(scope="module")
def plain() -> dict[str, torch.Tensor]:
    """Random weights under the official keys of the networks."""
    torch.manual_seed(0)
    tree = pretrained.FAMILIES[NAME].config(settings())
    state, _ = to_official(Tokenizer(validate(TokenizerConfig, tree)), NAME)
    return {key: torch.randn_like(tensor) for key, tensor in state.items()}


def trained(plain: dict) -> dict[str, torch.Tensor]:
    """The state dict of the Lightning module: the networks, their averages, the losses."""
    averages = {f"{EMA}{key.replace('.', '')}": tensor + 1 for key, tensor in plain.items()}
    more = {f"{EMA}decay": torch.tensor(0.999), f"{EMA}num_updates": torch.tensor(-1),
            "colorize": torch.zeros(3, 2, 1, 1)}  # fmt: skip
    return {**plain, **averages, **more, "loss.discriminator.main.0.weight": torch.zeros(1)}


def test_a_checkpoint_beside_the_whole_yaml_goes_both_ways(plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = trained(plain)
    torch.save({"epoch": 269, "state_dict": state, "optimizer_states": []}, "image.ckpt")
    data = {"init_args": {"train": {"target": "some.Class", "params": {"config": {"size": 32}}}}}
    model = {"class_path": "src.Open_MAGVIT2.VQModel", "init_args": settings()}
    text = yaml.safe_dump({"model": model, "data": data, "trainer": {"max_epochs": 270}})
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    tokenizer = pretrained.open("image.ckpt", expect="tokenizer")
    assert tokenizer.origin.family == NAME
    assert tokenizer.shape.sides == (32, 32)  # of the data: the network does not read its own
    bias = tokenizer.decoder.conv_out.bias
    assert torch.equal(bias, plain["decoder.conv_out.bias"] + 1)
    tokenizer.save_pretrained("ours")
    image = torch.rand(1, 3, 32, 32)
    tokens = tokenizer.encode(image)
    for one in (tokenizer, Tokenizer.from_pretrained("ours")):
        assert torch.equal(one.encode(image).indices, tokens.indices)
        back, written = to_official(one)
        assert back.keys() == state.keys() and written["model"]["init_args"] == settings()
        for key, tensor in state.items():  # averages come back, and take the place of the others
            assert torch.equal(back[key], tensor + 1 if key in plain else tensor), key


def test_no_warning_of_an_official_config(plain, recwarn):
    from_official(NAME, plain, settings())
    assert not [str(one.message) for one in recwarn if NAME in str(one.message)]


def test_bare_weights_of_a_release_are_known_by_levels_and_bits():
    family = pretrained.FAMILIES[NAME]
    found = {}
    for release in family.releases:
        config = validate(TokenizerConfig, family.config(release.config))
        with torch.device("meta"):
            keys = {entry.theirs[0] for entry in family.entries(config)}
        state = {key: torch.empty(0, device="meta") for key in keys}
        bits = release.config["ddconfig"]["z_channels"]
        state["encoder.conv_out.bias"] = torch.empty(bits, device="meta")
        known = family.constants(state)
        found[release.name] = known["ddconfig"]["resolution"], known["n_embed"]
    assert found["open-magvit2-256-l"] == found["open-magvit2-pretrain-262144"] == (256, 2**18)
    assert found["open-magvit2-128-l"] == found["open-magvit2-128-l-256"] == (128, 2**18)
    assert found["open-magvit2-pretrain-16384"] == (256, 2**14)
    assert family.constants(state | {"encoder.conv_out.bias": torch.empty(5)}) is None


def test_the_generators_learned_these_tokens():
    ours, theirs = pretrained.FAMILIES[NAME], pretrained.FAMILIES["open_magvit2_ar"]
    for release in theirs.releases:
        tree = theirs.config(release.config)
        of = next(r for r in ours.releases if r.name == tree["tokenizer"]["name"])
        with torch.device("meta"):
            owner = Tokenizer(validate(TokenizerConfig, ours.config(of.config)))
        assert owner.spec() == TokenSpec(**tree["spec"])
        assert owner.spec().regroup(tuple(tree["regroup"])).vocab == (64, 4096)


def test_factors_are_slices_of_the_bits(plain):
    whole = from_official(NAME, plain, settings())
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    tokens = whole.encode(image)
    for bits in ([2, 4], [5, 1]):
        given = settings(token_factorization=True, factorized_bits=bits)
        parts = from_official(NAME, plain, given)
        found = parts.encode(image)
        assert found.spec.vocab == tuple(2**count for count in bits)
        assert torch.equal(found.indices, tokens.regroup(found.spec.vocab).indices)
        assert torch.equal(parts.decode(found), whole.decode(tokens))
        parts.origin = None
        assert to_official(parts, NAME)[1]["factorized_bits"] == bits


def test_options_that_change_the_model(plain):
    losses = {"params": {"codebook_weight": 0.2, "commit_weight": 1.0,
                         "codebook_enlarge_ratio": 3, "codebook_enlarge_steps": 10}}  # fmt: skip
    # Neither network nor quantizer read the second two.
    network = {"resolution": [16, 24], "double_z": True}
    given = settings(lossconfig=losses, network=network, embed_dim=5,
                     sample_minimization_weight=0.5, batch_maximization_weight=3.0)  # fmt: skip
    model = from_official(NAME, plain, given)
    quantizer = model.config.quantizer
    weights = {"commitment": 1.0, "entropy_sample": 0.2 * 0.5, "entropy_batch": -0.2 * 3}
    assert quantizer.loss_weights == pytest.approx(weights)
    assert (quantizer.entropy_boost, quantizer.entropy_boost_steps) == (3, 10)
    assert model.shape.sides == (16, 24)
    model.origin = None  # as if it had been trained here: its config is written anew
    state, written = to_official(model, NAME)
    assert state.keys() == plain.keys() and written["ddconfig"]["resolution"] == [16, 24]
    again = from_official(NAME, state, written)
    assert again.config.encoder == model.config.encoder and again.shape == model.shape
    assert again.config.quantizer.entropy_boost == 3
    assert again.config.quantizer.loss_weights == pytest.approx(weights)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"network": {"in_channels": 1}}, ConfigError, "in_channels=1; expected 3"),
        ({"network": {"out_ch": 6}}, ConfigError, "out_ch=6; expected 3"),
        ({"network": {"double_z": 1}}, ConfigError, "double_z: got 1; expected true or false"),
        ({"network": {"ch": 20}}, ConfigError, "channels=20 x channel_mult 1 .*norm_groups=32"),
        ({"network": {"resolution": 9}}, InputError, r"image_size=\(9, 9\) is not a multiple of 2"),
        ({"network": {"resolution": 2}}, InputError, r"a map of \(1, 1\) has one"),
        ({"network": {"z_channels": 5}}, ConfigError, "z_channels=5, n_embed=64"),
        ({"network": {"attn_resolutions": [8]}}, ConfigError, "attn_resolutions.* is not known"),
        ({"n_embed": 60}, ConfigError, "n_embed=60: expected .* 2.*bits codes"),
        ({"token_factorization": True}, ConfigError, r"factor_bits=\[9, 9\] has 18 bits"),
        ({"token_factorization": True, "factorized_bits": [2, 2, 2]}, ConfigError, "of two sub"),
        ({"batch_maximization_weight": "a"}, ConfigError, "_weight='a'; expected a number"),
    ],
)
def test_options_that_cannot_be_are_one_line(plain, changes, kind, words, fails):
    with fails(kind, words):
        from_official(NAME, plain, settings(**changes))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.pop(f"{EMA}decoderconv_inbias"), f"missing {EMA}decoderconv_inbias; expected"),
        (lambda s: s.pop("encoder.conv_out.weight"), r"missing encoder\.conv_out\.weight"),
        (lambda s: s.update({"encoder.other": torch.ones(2), f"{EMA}encoderother": torch.ones(2)}),
         r"unexpected encoder\.other"),
        (lambda s: s[f"{EMA}decoderup1upsampleconv1weight"].fill_(torch.nan),
         r"decoder\.up\.1\.upsample\.conv1\.weight has values"),
    ],
)  # fmt: skip
def test_damage_is_one_line_with_its_key(plain, damage, words, fails):
    state = trained(plain)
    damage(state)
    with fails(WeightsError, words):
        from_official(NAME, state, settings())


def test_what_the_layout_cannot_hold_is_refused(plain, fails):
    for change, words in (
        ({"quantizer": {"kind": "lfq", "bits": 6, "factor_bits": 2}}, "factor_bits=2 has no place"),
        ({"quantizer": {"kind": "lfq", "bits": 6, "sphere": True}}, "sphere=True has no place"),
        ({"image_size": 32}, None),
    ):
        tree = pretrained.FAMILIES[NAME].config(settings()) | change
        model = Tokenizer(validate(TokenizerConfig, tree))
        if words is None:
            assert to_official(model, NAME)[1]["ddconfig"]["resolution"] == 32
            continue
        with fails(ConfigError, words):
            to_official(model, NAME)
