"""Malicious files in place of every file that any command reads: nothing runs, one line says so.

A *door* is a command and the files that it reads. Each file in turn is replaced by each *bomb*: a
pickle, a torch checkpoint, an array of objects, a YAML tag that calls a function. All of them would
make the file PWNED in the current folder, and nothing else.
"""

from __future__ import annotations

import json
import pickle
import shutil
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from PIL import Image

import vistok.cli as tool
import vistok.train.__main__ as training
from tests.conftest import tokenizer_tree
from tests.support.caches import change_meta
from tests.support.training import TINY, forget_accelerate
from vistok.config import read_yaml
from vistok.data.kinds.folder import FolderConfig
from vistok.eval import __main__ as evaluation
from vistok.storage.sealed import read_sealed

MARK = "PWNED"  # the shared malicious files make the same one


class Bomb:
    def __reduce__(self):
        return open, (MARK, "w")


def torch_file() -> bytes:
    torch.save({"encoder.weight": Bomb()}, file := BytesIO(), pickle_protocol=2)
    return file.getvalue()


def array_file() -> bytes:
    np.save(file := BytesIO(), np.array([Bomb()], object), allow_pickle=True)
    return file.getvalue()


BOMBS = {
    "pickle": pickle.dumps(Bomb(), protocol=2),
    "torch": torch_file(),
    "array": array_file(),
    "yaml": f"!!python/object/apply:builtins.open [{MARK}, w]\n".encode(),
}

# -- doors: name -> (the command, the files that it reads), all below one folder, see `world` ------
MODEL = ("model/config.json", "model/model.safetensors")
CACHE = ("meta.json", "tokens.npy", "labels.npy")
TOKENIZER, GENERATOR = ([f"{run}/{file}" for file in MODEL] for run in ("tok", "gen"))
RECORDS = ["tok/config.yaml", "tok/model/training.json"]
CACHED = [f"cache/{split}/{file}" for split in ("train", "val") for file in CACHE]
SAVED = ("state.json", "dataset_info.json", "data-00000-of-00001.arrow")
STEP = "tok/checkpoints/step_00000002"
KEPT = ("tokenizer", "ema.tokenizer", "optimizer.tokenizer", "task.window")
DOORS = {
    "info": ("vistok info tok", TOKENIZER),
    "encode": ("vistok encode tok image.png --out new", [*TOKENIZER, "image.png"]),
    "decode": ("vistok decode tok image.vtk --out new", [*TOKENIZER, "image.vtk"]),
    "generate": ("vistok generate gen tok --out new.png --count 1", GENERATOR + TOKENIZER),
    "edit": (
        "vistok edit copy tok image.png image.png --positions 0 --out new.png",
        [*TOKENIZER, "image.png"],
    ),
    "import": ("vistok import weights/m.bin new --family maskgit-vqgan", ["weights/m.bin"]),
    "import-folder": (
        "vistok import weights new --family titok",
        [f"weights/{name}" for name in ("pytorch_model.bin", "model.safetensors")],
    ),
    "eval": ("eval tok limit=8", [*RECORDS, "tok/metrics.jsonl", *TOKENIZER]),
    "eval-generator": ("eval tok gen limit=8", ["gen/config.yaml", *GENERATOR]),
    "speed": ("speed tok", ["tok/config.yaml", *TOKENIZER]),
    "speed-config": ("speed small.yaml", ["small.yaml"]),
    "weights-cnn": ("eval tok weights=weights/cnn limit=8", ["weights/cnn"]),
    "weights-inception": (
        "eval tok features=inception weights=weights/i.safetensors limit=8",
        ["weights/i.safetensors"],
    ),
    **{
        f"found-{name}": (f"eval tok {option}={name} limit=8", [f"weights/{file}"])
        for option, name, file in (
            ("features", "inception", "weights-inception-2015-12-05-6726825d.pth"),
            ("perceptual", "lpips-vgg", "vgg16-397923af.pth"),
            ("perceptual", "lpips-alex", "alexnet-owt-7be5be79.pth"),
        )
    },
    "train": ("train small.yaml out=new", ["small.yaml"]),
    "init": ("train small.yaml out=new task.init.path=tok/model", TOKENIZER),
    "resume": (
        f"train small.yaml out=new resume={STEP}",
        [f"{STEP}/{name}.safetensors" for name in KEPT]
        + [f"{STEP}/{name}.json" for name in ("state", "manifest")],
    ),
    "again": (
        "train small.yaml out=tok steps=3",
        [f"tok/{name}.jsonl" for name in ("metrics", "alarms", "quarantine")],
    ),
    "cache": ("train cache.yaml out=new", TOKENIZER),
    "cache-again": ("train cache.yaml out=cache", CACHED),
    "tokens": ("train generator.yaml out=new", CACHED),
    "check-config": ("vistok check small.yaml", ["small.yaml"]),
}


def _both(path: str) -> list[str]:
    return [path.format(split) for split in ("train", "val")]


KINDS = {
    "folder": ("path=data/folder/train val_path=data/folder/val", _both("data/folder/{}/a/1.png")),
    "parquet": ("train=data/train.parquet val=data/val.parquet", _both("data/{}.parquet")),
    "webdataset": ("train=data/train.tar val=data/val.tar", _both("data/{}.tar")),
    "webdataset by-index": (
        "streaming=false train=data/train.tar val=data/val.tar",
        ["data/train.tar"],
    ),
    "webdataset classes": (
        "classes=c.json train=data/train.tar val=data/val.tar",
        ["c.json"],
    ),
    "video": ("path=data/train.csv val_path=data/val.csv frames=2", ["data/train.csv"]),
    "huggingface": (
        "path=parquet val_split=val cache_dir=new data_files.train=data/train.parquet "
        "data_files.val=data/val.parquet",
        _both("data/{}.parquet"),
    ),
    "huggingface tars": (
        "path=webdataset val_split=val cache_dir=new image_column=png label_column=null "
        "data_files.train=data/train.tar data_files.val=data/val.tar",
        _both("data/{}.tar"),
    ),
    "huggingface stream": (
        "path=webdataset val_split=val cache_dir=new image_column=png label_column=null "
        "streaming=true count=1 data_files.train=data/train.tar data_files.val=data/val.tar",
        ["data/train.tar"],
    ),
    "huggingface saved": ("path=data/saved", [f"data/saved/train/{file}" for file in SAVED]),
}
for name, (keys, files) in KINDS.items():
    given = " ".join(f"data.{item}" for item in (f"kind={name.split()[0]}", *keys.split()))
    config = "films" if name == "video" else "images"
    DOORS[name.replace(" ", "-")] = (f"train {config}.yaml out=new {given}", files)
for place, file in (
    ("folder/train", "folder/train/a/1.png"),
    ("train.parquet", "train.parquet"),
    ("train.tar", "train.tar"),
):
    DOORS[f"check-{file[-3:]}"] = (f"vistok check data/{place}", [f"data/{file}"])
CLIPS = ["data/clips/train/a/1.gif", "data/train.csv"]
DOORS["check-clips"] = ("vistok check clips.yaml", CLIPS)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """One folder of everything that can be loaded, made by the commands themselves."""
    root = tmp_path_factory.mktemp("world")
    small = {
        **TINY,
        "task": {"kind": "tokenizer", "tokenizer": tokenizer_tree()},
        "data": {"kind": "photos", "size": 8, "count": 16, "val_count": 8},
        **{"steps": 2, "batch_size": 4, "save_every": 2, "warmup": 0},
    }
    films = {"kind": "tokenizer", "tokenizer": {**tokenizer_tree(), "frames": 2}}
    for side in ("encoder", "decoder"):
        films["tokenizer"][side]["patches"] = {"size": 4, "frames": 1}
    cache = {"kind": "cache", "tokenizer": "tok"}
    transformer = {"width": 16, "depth": 1, "heads": 2}
    generator = {
        "kind": "generator",
        "generator": {"kind": "autoregressive", "transformer": transformer},
    }
    tokens = {"kind": "tokens", "path": "cache/train", "val_path": "cache/val"}
    trees = {
        "small": small,
        "images": {**small, "data": {"size": 8}},
        "films": {**small, "task": films, "data": {"size": 8}},
        "cache": {**small, "task": cache},
        "generator": {**small, "task": generator, "data": tokens},
        "clips": {"data": {"kind": "video", "path": "data/train.csv", "frames": 2}},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, tree in trees.items():
            Path(f"{name}.yaml").write_text(yaml.safe_dump(tree))
        Image.new("RGB", (30, 20), (250, 10, 90)).save("image.png")
        for command in (
            "train small.yaml out=tok",
            "train cache.yaml out=cache",
            "train generator.yaml out=gen",
            "vistok encode tok image.png",
        ):
            result = call(command)
            assert result.exit_code == 0, result.output
        Path("weights").mkdir()
        for split in ("train", "val"):
            _data(Path("data"), split)
        _saved(Path("data/saved"))
    return root


def _data(root: Path, split: str) -> None:
    """One sample of every kind."""
    for folder in ("folder", "clips"):
        (root / folder / split / "a").mkdir(parents=True)
    first, second = (Image.new("RGB", (16, 16), color) for color in ("red", "blue"))
    first.save(root / f"folder/{split}/a/1.png")
    first.save(root / f"clips/{split}/a/1.gif", save_all=True, append_images=[second] * 3)
    (root / f"{split}.csv").write_text(f"path,label\nclips/{split}/a/1.gif,a\n")
    data = (root / f"folder/{split}/a/1.png").read_bytes()
    table = pa.table({"image": pa.array([{"bytes": data, "path": None}]), "label": pa.array([0])})
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a"]}}
    info = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pq.write_table(table.replace_schema_metadata(info), root / f"{split}.parquet")
    with tarfile.open(root / f"{split}.tar", "w") as tar:
        member = tarfile.TarInfo("1.png")
        member.size = len(data)
        tar.addfile(member, BytesIO(data))


def _saved(folder: Path) -> None:
    import datasets

    files = {split: f"data/{split}.parquet" for split in ("train", "val")}
    made = datasets.load_dataset("parquet", data_files=files, cache_dir="hub")
    datasets.DatasetDict({"train": made["train"], "validation": made["val"]}).save_to_disk(folder)


@pytest.fixture
def here(world, tmp_path, monkeypatch) -> Path:
    """A copy of the world as the current folder."""
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VISTOK_WEIGHTS", "weights")
    return tmp_path


def call(command: str) -> Result:
    """A command line, in this process."""
    forget_accelerate()
    name, *args = command.split()
    commands = {"train": training.main, "vistok": tool.main}
    commands |= {"eval": evaluation.evaluate, "speed": evaluation.speed}
    return CliRunner().invoke(commands[name], args)


def refusal(result: Result) -> str:
    """The one line that a refused command ends with; of `vistok check`, its findings."""
    assert result.exit_code != 0, result.output
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert not Path(MARK).exists(), "it ran"
    said = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 or (not said and result.exit_code in (1, 2)), result.output
    return said[0] if said else result.stdout


def left_out(result: Result) -> str:
    """What a run says whose validation found no image."""
    assert result.exit_code == 0 and not Path(MARK).exists(), result.output
    assert "validation failed (no sample can be used); training goes on" in result.output
    return result.output


@pytest.mark.parametrize("door", DOORS)
def test_no_file_runs_and_the_refusal_names_it(here, door):
    command, files = DOORS[door]
    for file in files:
        path = here / file
        good = path.read_bytes() if path.exists() else None
        for kind, bomb in BOMBS.items():
            if kind == "yaml" and path.suffix in (".jsonl", ".csv"):
                continue  # a line that is no JSON, a column that is not there: see below
            path.write_bytes(bomb)
            # Validation is passed over, and said, where training can go on.
            looked = door in ("folder", "webdataset") and "val" in file
            said = (left_out if looked else refusal)(call(command))
            # The library that reads a saved data set tells no file from another.
            assert path.name in said or "data/saved" in said, said
            shutil.rmtree("new", ignore_errors=True)
        path.unlink() if good is None else path.write_bytes(good)


@pytest.mark.parametrize("command", ["eval tok limit=8 pfid.mode=none", "train small.yaml out=tok"])
def test_a_line_that_a_kill_cut_off_is_passed_over_whatever_it_says(here, command):
    Path("tok/metrics.jsonl").write_bytes(BOMBS["yaml"])
    assert call(command).exit_code == 0
    assert not Path(MARK).exists()


@pytest.mark.parametrize("name", ["malicious.bin", "malicious.pt"])
@pytest.mark.parametrize(
    "command",
    [
        "vistok info {}",
        "vistok import {} new",
        "vistok import {} new --family maskgit-vqgan",
        "vistok encode tok {} --out new",
        "vistok decode tok {} --out new",
        "vistok generate {} tok",
        "vistok check {}",
        "eval {}",
        "eval tok weights={}",
        "speed {}",
        "train {}",
        "train small.yaml out=new resume={}",
        "train small.yaml out=new task.init.path={}",
        "train cache.yaml out=new task.tokenizer={}",
        "train generator.yaml out=new data.path={}",
    ],
)
def test_the_shared_malicious_files_are_refused(here, broken, name, command):
    shutil.copy(broken / name, here)
    assert name in refusal(call(command.format(name)))


@pytest.mark.parametrize("config", [True, False])
@pytest.mark.parametrize(
    "command",
    [
        "vistok info pickled",
        "eval pickled",
        "train small.yaml out=new task.init.path=pickled",
        "train cache.yaml out=new task.tokenizer=pickled",
    ],
)
def test_a_folder_of_pickled_weights_is_no_model(here, command, config):
    Path("pickled").mkdir()
    Path("pickled/pytorch_model.bin").write_bytes(BOMBS["torch"])
    if config:
        shutil.copy("tok/model/config.json", "pickled")
    said = refusal(call(command))
    # Without a config of ours they are official weights, whose reader refuses to run them.
    assert "pickled" in said
    assert any(words in said for words in ("model.safetensors", "config.json", "could run code"))


@pytest.mark.parametrize("text", ["${oc.env:S}", "a${oc.env:S}", "${${x}:S}", "${oc.dict.keys:a}"])
def test_the_environment_is_never_put_into_a_file_that_came_with_a_run(here, monkeypatch, text):
    monkeypatch.setenv("S", "hunter2")
    config = yaml.safe_load(Path("tok/config.yaml").read_text())
    place = FolderConfig(path=text, val_path=text, size=8).model_dump(mode="json")
    Path("tok/config.yaml").write_text(yaml.safe_dump({**config, "data": place}))
    Path("tok/model/training.json").unlink()  # whoever wrote the one would not keep the other
    for command in ("train tok/config.yaml", "train tok/config.yaml --dry-run"):
        said = refusal(call(command))
        assert "hunter2" not in said and "tok/config.yaml: data.path: got" in said
    said = refusal(call("eval tok"))  # nothing is put in: there is no folder of that name
    assert f"{text}: no such folder" in said
    made_by = read_sealed("cache/train/meta.json")["tokenizer"]
    change_meta("cache/train", tokenizer={**made_by, "name": text})
    result = call("train generator.yaml --dry-run data.val_path=null data.val_share=0.5")
    assert result.exit_code == 0 and "hunter2" not in result.output


def test_references_to_other_keys_are_followed(tmp_path):
    (tmp_path / "c.yaml").write_text("a: {b: [1, x]}\nc: '${a.b[1]}-${a.b[0]}'\nd: ${.c}\n")
    assert read_yaml(tmp_path / "c.yaml")["d"] == "x-1"
