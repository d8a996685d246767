"""Finding runs, pairing generators with tokenizers, choosing data: mistakes are one line."""

import importlib
import json

import pytest

from tests.support.pairs import originals, write_pairs
from vistok.config import ConfigError
from vistok.data import DataError
from vistok.eval.systems.runs import Run, RunError, class_names, data_config, open_data, resolve


def test_a_generator_finds_its_tokenizer(runs):
    (system,) = resolve([runs[1], runs[0]])
    assert system.tokenizer.name == "tok" and [g.name for g in system.generators] == ["gen"]
    assert system.tokenizer.history[0]["step"] == 1
    generator = system.generators[0].generator
    assert class_names(generator)[0] == "astronaut" and len(class_names(generator)) == 7
    twin = generator.untrained(seed=0)
    assert twin.classes == generator.classes and twin.spec == generator.spec


def test_names_are_as_long_as_they_must_be(runs, tmp_path):
    other = tmp_path / "b" / "tok"
    other.parent.mkdir()
    (runs[0]).rename(other)
    first = tmp_path / "a" / "tok"
    first.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (first / name).write_bytes((other / "model" / name).read_bytes())
    assert [p.tokenizer.name for p in resolve([first, other])] == ["a/tok", "b/tok"]


def test_a_generator_alone_brings_the_tokenizer_of_its_record(runs, fails):
    tok, gen = runs
    described = json.loads((gen / "model" / "config.json").read_text())
    described["tokenizer"]["name"] = str(tok)
    (gen / "model" / "config.json").write_text(json.dumps(described))
    (system,) = resolve([gen])
    assert (system.tokenizer.name, system.tokenizer.folder) == ("tok", tok)
    assert [one.name for one in system.generators] == ["gen"]
    described["tokenizer"] |= {"sha256": "0" * 64, "codes_sha256": "0" * 64}
    (gen / "model" / "config.json").write_text(json.dumps(described))
    with fails(RunError, "gen", "no tokenizer", "name that tokenizer"):
        resolve([gen])  # the tokenizer of that name has other weights now


def test_mistakes(runs, tmp_path, fails):
    tok, gen = runs
    with fails(RunError, "gen", "tok", "sha256", "name that tokenizer"):
        resolve([gen])
    with fails(RunError, "no such folder"):
        resolve([tmp_path / "nothing"])
    with fails(RunError, "there is no 'tko'", f"did you mean {tok}", "save_pretrained"):
        resolve([tok.with_name("tko") / "model"])
    with fails(RunError, "config.yaml: a file", "results.json"):
        resolve([tok / "config.yaml"])
    with fails(RunError, "twice"):
        resolve([tok, tok])
    with fails(RunError, "are one model"):
        resolve([tok, tok / "model"])
    empty = tmp_path / "empty"
    empty.mkdir()
    with fails(RunError, "config.json", "save_pretrained"):
        resolve([empty])
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_text("name: x\n")
    with fails(RunError, "when it finishes"):
        resolve([unfinished])
    (empty / "config.json").write_text(json.dumps({"kind": "resnet9"}))
    (empty / "model.safetensors").write_bytes(b"")
    with fails(RunError, "neither", "kind"):
        resolve([empty])
    config = json.loads((tok / "model" / "config.json").read_text())
    (empty / "config.json").write_text(json.dumps({**config, "encodr": 1}))
    with fails(ConfigError, "encodr"):
        resolve([empty])


def test_data(runs, fails):
    run = resolve([runs[0]])[0].tokenizer
    assert len(open_data(run)) == 24
    assert len(open_data(run, {"val_count": 5})) == 5
    assert len(open_data(run, {"kind": "photos", "size": 8})) == 24  # the run's kind: an overlay
    with fails(RunError, "32x32", "8x8", "size=8"):
        open_data(run, {"size": 32})
    with fails(RunError, "clips of 4 frames", "takes images"):
        open_data(run, {"frames": 4})
    with fails(ConfigError, "val_cuont", "val_count"):
        open_data(run, {"val_cuont": 3})


def test_a_pretrained_folder_needs_data(runs, fails):
    run = resolve([runs[0] / "model"])[0].tokenizer
    with fails(RunError, "data.kind=photos"):
        open_data(run)
    assert len(open_data(run, {"kind": "photos", "size": 8, "val_count": 3})) == 3


@pytest.mark.parametrize("line", ['{"step": 1', "[1]"])
def test_a_cut_off_last_line_is_no_history(runs, line):
    with open(runs[0] / "metrics.jsonl", "a") as file:
        file.write(line)
    assert len(resolve([runs[0]])[0].tokenizer.history) == 6


def test_a_released_name_is_converted_once(make_tokenizer, tmp_path, monkeypatch):
    module = importlib.import_module("vistok.pretrained.open")
    asked = []
    opened = lambda place: (asked.append(place.official), make_tokenizer("vq"))[1]
    monkeypatch.setattr(module, "_load", opened)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        (system,) = resolve(["titok-l32"])
    assert asked == ["titok-l32"] and system.tokenizer.name == "titok-l32"
    assert system.tokenizer.folder == system.tokenizer.model


def test_a_slip_in_the_name_of_a_run_is_not_asked_of_the_hub(runs, monkeypatch, fails):
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    monkeypatch.chdir(runs[0].parent)
    with fails(RunError, "there is no 'rnus' in .*hf:owner/name of the hub"):
        resolve(["rnus/tok"])


def test_the_images_of_a_run_that_trained_on_pairs_are_their_originals(tmp_path, fails):
    config = originals(tmp_path / "real")
    write_pairs(tmp_path / "pairs", config)
    tree = {"kind": "pairs", "path": str(tmp_path / "pairs")}
    run = Run("post", tmp_path, tmp_path, "tokenizer", {}, "0", {"data": tree})
    assert data_config(run) == config
    assert data_config(run, {"crop": "adm"}) == config.model_copy(update={"crop": "adm"})
    assert data_config(run, {"kind": "photos"}).kind == "photos"
    assert data_config(None, tree) == config
    (tmp_path / "pairs" / "pairs.json").unlink()
    with fails(DataError, "no pairs.json in it"):
        data_config(run)


def test_gfid_is_never_of_another_tokenizers_codes(runs, tmp_path, fails):
    """A tokenizer of the same shapes and other weights, given beside the generator."""
    import shutil

    from safetensors.torch import load_file, save_file

    tok, gen = runs
    shutil.copytree(tok, tmp_path / "other")
    weights = tmp_path / "other" / "model" / "model.safetensors"
    state = load_file(weights)
    save_file({key: tensor + 1 for key, tensor in state.items()}, weights)
    with fails(RunError, "gen: a generator of the tokens of 'tok'", "other .other weights: sha256"):
        resolve([tmp_path / "other", gen])
