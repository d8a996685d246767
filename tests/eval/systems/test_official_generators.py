"""Official files of a generator and its tokenizer go through evaluation as runs do."""

import json

import torch
from safetensors.torch import load_file

from tests.support.official import official
from tests.support.rar import official_rar
from vistok.eval.systems.runs import resolve
from vistok.storage.lineage import TAKEN


def test_an_official_generator_is_paired_with_an_official_tokenizer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, (state, config) in {
        "tokens": official("maskgit_vqgan")[1:],
        "rar": official_rar(),
    }.items():
        (tmp_path / name).mkdir()
        torch.save(state, tmp_path / name / "weights.bin")
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    (system,) = resolve(["rar", "tokens"])
    (generator,) = system.generators
    assert generator.fit == TAKEN and generator.spec == system.tokenizer.spec
    assert generator.facts()["model"]["kind"] == "random_order"
    kept = load_file(tmp_path / "runs/released/rar/model.safetensors")
    own = generator.generator.state_dict()
    assert all(torch.equal(kept[key], tensor) for key, tensor in own.items())
