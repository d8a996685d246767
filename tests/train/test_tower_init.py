"""A semantic branch starts from the network that it is a copy of, by `init`."""

import pytest
import torch

from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.train.tasks.tokenizer import TokenizerTaskConfig

SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}
SMALL |= {"intermediate_size": 32, "image_size": 16, "patch_size": 4}
INNER = {"width": 16, "depth": 2, "heads": 2, "mlp_ratio": 2.0, "mlp": "quick_gelu"}
CONV = {"channels": 8, "channel_mult": [1, 1, 1], "blocks": 1, "norm_groups": 4}


def task(*init, tower=None):
    tower = tower or {"patch": 4, "positions": 4, "transformer": INNER}
    branches = [
        {"encoder": {"kind": "vision_tower", "tower": tower}, "dim": 3},
        {"encoder": {"kind": "cnn", "conv": CONV}},
    ]
    semantic = {"dim": 3, "out": 6, "transformer": {"width": 16, "depth": 1, "heads": 2}}
    tokenizer = {
        "image_size": 16,
        "encoder": {"kind": "branches", "branches": branches},
        "quantizer": {"kind": "dual", "codebook_size": 8, "parts": [3, 2]},
        "decoder": {
            "kind": "branches",
            "semantic": semantic,
            "pixels": {"kind": "cnn", "conv": CONV},
        },
    }
    config = validate(TokenizerTaskConfig, {"tokenizer": tokenizer, "init": list(init)})
    return build(config, None)


def test_a_tower_takes_its_network(tmp_path):
    transformers = pytest.importorskip("transformers")
    network = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SMALL))
    network.save_pretrained(tmp_path)
    init = {"network": {"kind": "clip", "weights": str(tmp_path)}}
    parts = ["encoder.branches.0.encoder.tower"]
    made = task(init | {"parts": parts})
    tower = made.tokenizer.encoder.branches[0].encoder.tower
    assert made.started[0].startswith(f"{parts[0]} from clip (sha256 ")
    held = {key.removeprefix("vision_model."): one for key, one in network.state_dict().items()}
    assert torch.equal(tower.patches.weight, held["embeddings.patch_embedding.weight"])
    own = tower.transformer.blocks[1].mlp.up.weight
    assert torch.equal(own, held["encoder.layers.1.mlp.fc1.weight"])
    with pytest.raises(ConfigError, match=r"'encoder\.branches\.1' is none; expected the name"):
        task(init | {"parts": ["encoder.branches.1"]})
    deep = {"patch": 4, "positions": 4, "transformer": INNER | {"depth": 3}}
    with pytest.raises(ConfigError, match=r"task\.init: clip: .* lacks 'transformer\.blocks\.2"):
        task(init | {"parts": parts}, tower=deep)
    bare = {"patch": 4, "positions": 4, "norm_in": False, "transformer": INNER}
    with pytest.raises(ConfigError, match=r"clip: the tower has no place for its 'norm_in\.weight"):
        task(init | {"parts": parts}, tower=bare)
