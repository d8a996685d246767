"""IBQ's generators come in and go out: the formula by hand, checkpoints, options, errors."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vistok import pretrained
from vistok.config import ConfigError, UserError, read_yaml, validate
from vistok.core.records import Condition
from vistok.generators import Generator
from vistok.pretrained import FAMILIES, from_official, to_official
from vistok.pretrained.generators.ibq import PREFIX
from vistok.storage.weights import WeightsError
from vistok.train.config import TrainConfig

NAME = "ibq_ar"
# Parameters in millions: the authors' table (342M, 649M, 1.1B, 2.1B), by hand to more digits.
TABLE = {"ibq-ar-b": 343.0, "ibq-ar-l": 649.3, "ibq-ar-xl": 1075.8, "ibq-ar-xxl": 2062.9}
LABELS = torch.tensor([0, 2, 1])


def params(**changes) -> dict:
    sizes = {"vocab_size": 12, "block_size": 4, "n_layer": 2, "n_head": 2, "n_embd": 16}
    return {**sizes, "cond_dim": 16, "multiple_of": 8, "class_num": 3, "alng": 1e-3, **changes}


def tiny(**changes) -> tuple[dict[str, Tensor], dict]:
    """(state, config) in the official layout, with random weights."""
    config = {"model": {"init_args": {"transformer_config": {"params": params(**changes)}}}}
    config["sampling"] = {"temperature": 1.1, "top_k": 0, "top_p": 1.0, "cfg_scale": 2.25}
    model = Generator.from_description(FAMILIES[NAME].config(config), "tiny")
    state, _ = to_official(model, NAME)
    torch.manual_seed(0)
    return {key: 0.4 * torch.randn_like(tensor) for key, tensor in state.items()}, config


def by_hand(state: dict[str, Tensor], codes: Tensor, labels: Tensor) -> Tensor:
    """Logits [B, n + 1, V] of codes [B, n] as the paper's network defines them, on a 2 x 2 grid
    with two heads of 8 channels."""
    w = {key.removeprefix(PREFIX): tensor for key, tensor in state.items()}
    rms = lambda x, gain: x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * gain
    # Half of a head's pairs turn by the row, half by the column; the class' token vanishes.
    places = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    angles = (places[..., None] * 10000 ** -(torch.arange(0, 4, 2) / 4)).flatten(1)
    turn = torch.cat([torch.zeros(1, 4), torch.polar(torch.ones(4, 4), angles)])

    def turned(x: Tensor) -> Tensor:  # [B, n, 16] -> [B, 2, n, 8]
        pairs = torch.view_as_complex(x.unflatten(-1, (2, 4, 2)).contiguous())
        return torch.view_as_real(pairs * turn[: x.shape[1], None]).flatten(3).transpose(1, 2)

    c = w["class_emb.embedding_table.weight"][labels]
    x = torch.cat([c[:, None], w["tok_emb.weight"][codes]], dim=1)
    for i in range(2):
        of = lambda name, i=i: w[f"blocks.{i}.{name}.weight"]
        six = F.linear(F.silu(c), of("ada_lin.1"), w[f"blocks.{i}.ada_lin.1.bias"])
        g1, g2, a1, a2, b1, b2 = six[:, None].chunk(6, dim=-1)
        y = rms(x, of("attention_norm")) * (1 + a1) + b1
        q, k, v = F.linear(y, of("attention.wqkv")).chunk(3, dim=-1)
        v = v.unflatten(-1, (2, 8)).transpose(1, 2)
        y = F.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)
        x = x + g1 * F.linear(y.transpose(1, 2).flatten(2), of("attention.wo"))
        y = rms(x, of("ffn_norm")) * (1 + a2) + b2
        wide = F.silu(F.linear(y, of("feed_forward.w1"))) * F.linear(y, of("feed_forward.w3"))
        x = x + g2 * F.linear(wide, of("feed_forward.w2"))
    two = F.linear(F.silu(c), w["head_nm.ada_lin.1.weight"], w["head_nm.ada_lin.1.bias"])
    scale, shift = two[:, None].chunk(2, dim=-1)
    return F.linear(rms(x, w["head_nm.rmsnorm.weight"]) * (1 + scale) + shift, w["head.weight"])


@torch.no_grad()
@pytest.mark.parametrize("cache", [True, False])
def test_likelihoods_and_guided_choices_are_those_of_the_formula(cache):
    state, config = tiny()
    model = from_official(NAME, state, config).eval()
    codes = torch.randint(12, (3, 4))
    logits = by_hand(state, codes[:, :-1], LABELS)
    wanted = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
    found = model.nats_of(codes[..., None], Condition(label=LABELS), None)
    torch.testing.assert_close(found, wanted.view(3, 4), atol=1e-5, rtol=1e-5)
    chosen, nobody = torch.zeros(3, 0, dtype=torch.long), torch.full_like(LABELS, 3)
    for _ in range(4):
        one, none = (by_hand(state, chosen, who)[:, -1] for who in (LABELS, nobody))
        chosen = torch.cat([chosen, (none + 2.25 * (one - none)).argmax(-1, keepdim=True)], dim=1)
    told = {"top_k": 1, "cache": cache, "fast": cache}
    sampled = model.sample(Condition(label=LABELS), index=torch.arange(3), sampling=told)
    assert torch.equal(sampled.indices[..., 0].long(), chosen)


def test_a_whole_checkpoint_goes_both_ways_bit_for_bit(tmp_path):
    state, config = tiny()
    state["first_stage_model.encoder.conv_in.weight"] = torch.randn(2, 3)
    model = from_official(NAME, state, config)
    model.save_pretrained(tmp_path)
    for one in (model, Generator.from_pretrained(tmp_path)):
        back, written = to_official(one)
        assert back.keys() == state.keys() and written == config
        assert all(torch.equal(back[key], state[key]) for key in state)
    assert (model.sampling.temperature, model.sampling.guidance) == (1.1, 2.25)
    model.origin = None  # as if it had been trained here
    again, written = to_official(model, NAME)
    twin = from_official(NAME, again, written)
    ours, theirs = model.state_dict(), twin.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert twin.sampling == model.sampling and twin.config.gate_gain == 1e-3


def test_lightning_files_open_by_their_name(tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    state, config = tiny()
    torch.save({"epoch": 299, "state_dict": state, "hyper_parameters": {}}, "AR.ckpt")
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = pretrained.open("AR.ckpt", expect="generator")
    assert model.origin.family == NAME
    assert [n for n, one in FAMILIES.items() if one.recognizes({}, state)] == [NAME]
    (tmp_path / "config.json").unlink()
    with fails(ConfigError, "config.json: no such config; these weights came"):
        pretrained.open("AR.ckpt")  # of no release's width: its heads are not known


@pytest.mark.parametrize("name", TABLE)
def test_recipes_train_what_was_released(name):
    family, release = pretrained.releases()[name]
    (recipe,) = release.recipe
    trained = validate(TrainConfig, read_yaml(recipe)).task.generator
    with torch.device("meta"):
        model = Generator.from_description(family.config(release.config), name)
    assert trained == model.config
    width = trained.transformer.width  # tells weights without a config
    keys = ("head_nm.rmsnorm", "head_nm.ada_lin.1", "tok_emb", "class_emb.embedding_table")
    state = {f"{PREFIX}{key}.weight": torch.ones(1, width) for key in keys}
    assert family.constants(state) == release.config
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(TABLE[name], rel=5e-3) and release.gfid


def test_gates_start_as_small_as_alng_says():
    made = lambda alng: Generator.from_description(
        FAMILIES[NAME].config(params(alng=alng, n_embd=64, cond_dim=64)), "new"
    )
    weight = made(1e-3).transformer.blocks[0].modulation.proj.weight.detach()
    groups = weight.unflatten(0, (6, -1))
    std = groups.std(dim=(1, 2)).tolist()
    assert std == pytest.approx([0.01, 0.01, 2e-5, 0.01, 0.01, 2e-5], rel=0.1)
    head = made(1e-5).modulation_head.proj
    assert float(head.weight.detach().std()) == pytest.approx(0.01, rel=0.1) and not head.bias.any()


# -- damage and options ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.pop(f"{PREFIX}head.weight"), "missing transformer.head.weight"),
        (lambda s: s.update(other=torch.ones(2)), "unexpected other"),
        (lambda s: s.update({f"{PREFIX}head.weight": torch.ones(4, 16)}), r"expected \(12, 16\)"),
        (lambda s: s[f"{PREFIX}tok_emb.weight"].fill_(torch.nan), "tok_emb.weight has values"),
    ],
)
def test_wrong_weights_are_one_line(damage, words, fails):
    state, config = tiny()
    damage(state)
    with fails(WeightsError, "AR.ckpt", words):
        from_official(NAME, state, config, "AR.ckpt")


def test_broken_and_malicious_files(tmp_path, broken, fails):
    for bad in sorted([*broken.glob("*.safetensors"), *broken.glob("malicious.*")]):
        if bad.suffix not in (".safetensors", ".bin", ".pt", ".pth", ".ckpt"):
            continue
        place = tmp_path / bad.name
        shutil.copy(bad, place)
        with fails((WeightsError, ConfigError), place.name.replace(".", r"\.")):
            pretrained.load(place, family=NAME, config=params())
        place.unlink()
    assert not list(tmp_path.iterdir()), "a file was made while loading"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shared_aln": True}, "shared_aln=True: the authors' code cannot run"),
        ({"use_pretrained_codebook": True}, "use_pretrained_codebook=True: no release"),
        ({"cls_token_num": 2}, "cls_token_num=2: a class is one token; expected 1"),
        ({"cond_dim": 8}, "cond_dim=8, n_embd=16: .* expected the same width"),
        ({"block_size": 12}, "block_size=12: expected a square"),
        ({"n_embd": 12, "cond_dim": 12}, "n_embd=12, n_head=2: .* that four divides"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"n_kv_head": 3, "n_head": 4}, "kv_heads=3: expected a divisor of heads=4"),
    ],
)
def test_what_the_network_does_not_run_with_is_named(changes, words, fails):
    state, _ = tiny()
    with fails(ConfigError, words):
        from_official(NAME, state, params(**changes), "here")


def test_options_of_the_official_config():
    """Every one is obeyed or has no effect."""
    map_ = FAMILIES[NAME].config
    base = map_(params())
    trunk = lambda **changes: map_(params(**changes))["transformer"]
    for name in ("embd_pdrop", "n_unmasked", "max_batch_size", "max_seq_len", "n_codebook_embd"):
        assert map_(params(**{name: 7})) == base
    assert trunk(resid_dropout_p=0.3)["dropout"] == 0.3
    assert trunk(ffn_dropout_p=0.4)["mlp_out_dropout"] == 0.4
    assert trunk(attn_dropout_p=0.2)["attention_dropout"] == 0.2
    assert trunk(drop_path_rate=0.2)["drop_path"] == 0.2
    assert trunk(initalizer_range=0.1)["init_std"] == 0.1
    assert trunk(n_kv_head=1)["kv_heads"] == 1 and trunk(n_kv_head=2)["kv_heads"] is None
    eps = trunk(norm_eps=1e-3)  # of the blocks; the last norm keeps its own
    assert (eps["norm_eps"], eps["norm_out_eps"]) == (1e-3, 1e-5)
    assert map_(params(token_drop=0.5))["token_dropout"] == 0.5
    assert map_(params(rope_base=99))["rope_base"] == 99
    assert map_(params(alng=1e-5))["gate_gain"] == 1e-5
    assert map_({**params(), "sampling": {"cfg_scale": 0.5}})["sampling"] == {"guidance": 1.0}
    with pytest.warns(UserWarning, match="config key rotary is not known"):
        map_(params(rotary=True))
    for multiplier in (0.77, 1.3):  # the width of the gated layers, there and back
        state, config = tiny(ffn_dim_multiplier=multiplier, multiple_of=1)
        model = from_official(NAME, state, config)
        model.origin = None
        again, written = to_official(model, NAME)
        assert from_official(NAME, again, written).config.transformer.hidden == len(
            state[f"{PREFIX}blocks.0.feed_forward.w1.weight"]
        )


@pytest.mark.parametrize("key", [*params(), "rope_base", "norm_eps", "ffn_dim_multiplier"])
def test_values_of_wrong_types_are_one_line(key):
    state, _ = tiny()
    for value in (None, "many", [], {}, -1, 1.5):
        try:
            from_official(NAME, state, params(**{key: value}), "somewhere")
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, (key, value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modulated": False, "gate_gain": None}, "expected kind=autoregressive with modulated"),
        ({"condition_positions": "before"}, "condition_positions=before"),
        ({"transformer": {"qk_norm": True}}, "transformer.qk_norm=True"),
        ({"condition": {"classes": 3, "pooled": 4}}, "condition.pooled=4"),
        ({"spec": {"blocks": [[4]], "vocab": [12]}}, r"tokens of blocks=\(\(4,\),\)"),
    ],
)
def test_what_the_official_layout_cannot_say_is_refused(changes, words, fails):
    tree = FAMILIES[NAME].config(params())
    for key, value in changes.items():
        tree[key] = {**tree[key], **value} if key == "transformer" else value
    with fails(ConfigError, words, "no place in the official layout"):
        to_official(Generator.from_description(tree, "here"), NAME)
