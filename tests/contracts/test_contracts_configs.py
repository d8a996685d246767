"""Every YAML of configs/ that trains something is a valid training config.

Studies name one: each of their runs is a valid training config too.
"""

from pathlib import Path

import pytest

from eval.study import read_study, run_config
from train.config import TrainConfig
from vistok.config import read_yaml, to_yaml, validate

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_config(path, tmp_path, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)  # a study names its base from there
    tree = read_yaml(path)
    if path.parent.name == "studies":
        study = read_study(path)
        for name in study.runs:
            validate(TrainConfig, run_config(study, name).model_dump(mode="json"))
        return
    if "task" not in tree:
        assert path.parent.name == "accelerate", f"{path} trains nothing"
        return
    config = validate(TrainConfig, tree, str(path))
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert validate(TrainConfig, read_yaml(tmp_path / "again.yaml")) == config


def test_there_are_configs():
    names = {path.name for path in FILES}
    assert {"quickstart.yaml", "feature_net.yaml", "perturbation.yaml", "probe-tiny.yaml"} <= names
