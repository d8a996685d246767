"""Every YAML of configs/ that trains something is a valid training config."""

from pathlib import Path

import pytest

from train.config import TrainConfig
from vistok.config import read_yaml, to_yaml, validate

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_config(path, tmp_path):
    tree = read_yaml(path)
    if "task" not in tree:
        assert path.parent.name == "accelerate", f"{path} trains nothing"
        return
    config = validate(TrainConfig, tree, str(path))
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert validate(TrainConfig, read_yaml(tmp_path / "again.yaml")) == config


def test_there_are_configs():
    assert {"quickstart.yaml", "feature_net.yaml"} <= {path.name for path in FILES}
