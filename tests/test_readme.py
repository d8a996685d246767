"""Every command and snippet of the README and of docs/ runs, as it stands there, on tiny settings.

A command that is not in the table below fails the test: whoever adds one says here how it is run.
Blocks that cannot run (they need data or a hub, or show an output) are marked `console` or `text`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from PIL import Image

from tests.support import processes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {
    path.relative_to(ROOT): path.read_text("utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
DATA = Path(os.environ.get("VISTOK_DATA_DIR", ROOT / "../shared/data")).resolve()

pytestmark = pytest.mark.slow

_SMALL = "steps=2 warmup=0 trackers=[] validate_limit=8 validate_every=0 grid_every=0"
_RUN = f"{_SMALL} data.count=200 data.val_count=16"

# What is added to a command so that it is over in seconds; None = where else it is run.
COMMANDS = {
    "vistok try image.png": "--no-open",
    "vistok train quickstart": None,  # the fixture `place`
    "vistok eval runs/quickstart report=runs/quickstart/report.html": None,  # with its generator
    "vistok info runs/quickstart": "",
    "vistok encode runs/quickstart image.png --length 8 --out codes": "",
    "vistok encode runs/quickstart image.png --target-psnr 15 --max-bytes 60 --out dial": "",
    "vistok decode runs/quickstart codes/image.vtk --out codes": "",
    "vistok generate runs/quickstart/generator runs/quickstart --class coffee --out coffee.png "
    "sampling.temperature=0.9": "",
    "vistok train --list": "",
    "vistok train quickstart name=short steps=400": None,  # the fixture `place`
    "vistok train quickstart name=ternary plugins=ternary "
    '"task.tokenizer.quantizer={kind: ternary, channels: 8}" steps=200 warmup=20': _RUN,
    'vistok train quickstart name=mine "data={kind: folder, path: my/images, '
    'val_share: 0.1, size: 32}"': _SMALL,
    "vistok train quickstart/cifar10": f"{_SMALL} data.cache=false "
    f"data.train={DATA}/cifar10/train-00000-*.parquet data.val={DATA}/cifar10/test-*.parquet",
    "vistok train tiny/video_vit": _RUN,
    "accelerate launch --config_file configs/launch/8gpu.yaml -m vistok.train quickstart":
        None,  # test_the_gpu_launch_config
    "torchrun --nnodes 4 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:29500 "
    "-m vistok.train quickstart": None,  # test_several_nodes
    "torchrun --nproc_per_node 2 -m vistok.train quickstart": f"{_RUN} name=two",
    "vistok cache runs/quickstart": "limit=64 data.val_count=16",
    "vistok train quickstart/generator": _SMALL,
    "vistok eval runs/quickstart runs/quickstart/generator report=runs/quickstart/report.html":
        "limit=16 gfid.samples=14 gfid.seeds=1 pfid.mode=quick data.kind=photos data.val_count=16",
    "vistok eval speed runs/quickstart runs/quickstart/generator": "repeats=1",
    'vistok eval runs/quickstart "protocols=[rate_distortion,robust,order,linear_probe]" '
    "report=runs/quickstart/more.html": "limit=16 rate_distortion.train_images=32 "
    "linear_probe.train_images=32 data.kind=photos data.val_count=16 data.count=64",
    "vistok eval reference runs/quickstart out=runs/train_stats.safetensors": "limit=8",
    "vistok study studies/lengths": None,  # tests/eval/study
    "vistok edit copy runs/quickstart image.png other.png --positions 0-3 --out copied.png": "",
    "vistok edit inpaint runs/quickstart image.png mask.png --steps 100 --out filled.png":
        "--steps 2",
}  # fmt: skip


def blocks(language: str) -> list[tuple[str, str]]:
    """(where, text) of all blocks of a language; `where` names the page, or the block's title."""
    pattern = re.compile(rf'^```{language}(?: title="(.*?)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)
    return [
        (title or f"{page}:{page_text[:start].count(chr(10)) + 1}", text)
        for page, page_text in PAGES.items()
        for title, text, start in (
            (found[1], found[2], found.start()) for found in pattern.finditer(page_text)
        )
    ]


def commands() -> list[str]:
    lines = [line for _, block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that looks like a checkout, with a tiny finished quickstart in it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("train", "eval", "configs", "vistok"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("image", "other", "mask"):
        Image.new("RGB", (50, 40), (200, 120, 40)).save(folder / f"{name}.png")
    for i in range(30):
        (folder / "my/images/cats").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (8 * i, 90, 40)).save(folder / f"my/images/cats/{i}.png")
    for name, text in blocks("python"):
        if name.endswith(".py"):  # a file of a tutorial
            (folder / name).write_text(text, encoding="utf-8")
    go(folder, f"vistok train quickstart {_RUN}")
    for line in ("vistok cache runs/quickstart", "vistok train quickstart/generator"):
        go(folder, f"{line} {COMMANDS[line]}")
    return folder


def go(folder: Path, command: str) -> str:
    program, *args = shlex.split(command)
    if program == "vistok":
        done = processes.run("vistok.cli", *args, folder=folder)
    else:
        done = subprocess.run(
            [program, *args],
            cwd=folder,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(folder),
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def test_every_command_is_known():
    assert set(commands()) == set(COMMANDS)


@pytest.mark.parametrize("command", [c for c, extra in COMMANDS.items() if extra is not None])
def test_commands_run(place, command):
    if "cifar10" in command and not (DATA / "cifar10").is_dir():
        pytest.skip(f"no CIFAR-10 in {DATA}")
    go(place, f"{command} {COMMANDS[command]}")


def test_the_python_snippets_run(place):
    """All in one process, each with names of its own."""
    snippets = json.dumps(blocks("python"))
    (place / "snippets.json").write_text(snippets, encoding="utf-8")
    (place / "snippets.py").write_text(
        "import json, pathlib\n"
        "for name, text in json.loads(pathlib.Path('snippets.json').read_text('utf-8')):\n"
        "    print(name, flush=True)\n"
        "    exec(compile(text, name, 'exec'), {'__name__': name})\n",
        encoding="utf-8",
    )
    done = processes.run("snippets.py", folder=place)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr[-2000:]


YAML = {"task": 1, "data": 5, "quantizer": 1, "study": 3}  # first key -> number of blocks


def test_the_yaml_snippets_are_configs():
    from vistok.config import Config, PartOf, validate
    from vistok.eval.study.config import StudyConfig
    from vistok.train.config import TrainConfig

    class Quantized(Config):
        quantizer: Annotated[Any, PartOf("quantizer")]

    seen = Counter()
    for _, block in blocks("yaml"):
        tree = yaml.safe_load(block)
        if {"pool", "scales", "claims"} & set(tree):
            whole = {"train": "quickstart", "runs": {"plain": {}, "perturbed": {}}, **tree}
            validate(StudyConfig, whole)
            seen["study"] += 1
            continue
        (key,) = tree
        seen[key] += 1
        if key == "quantizer":
            validate(Quantized, tree)
        elif key == "data":
            validate(TrainConfig, {"task": {"kind": "cache", "tokenizer": "runs/mine"}, **tree})
        else:
            config = validate(TrainConfig, tree)
            assert config.task.tokenizer.encoder.latents.count == 128
    assert seen == YAML


def test_the_gpu_launch_config():
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(ROOT / "configs/launch/8gpu.yaml"))
    assert config.num_processes == 8 and not config.use_cpu


def test_several_nodes(place):
    """The README's line with two machines of one process each, both of them this machine."""
    line = next(c for c in commands() if "--nnodes" in c)
    line = line.replace("--nnodes 4", "--nnodes 2").replace(
        "--nproc_per_node 8", "--nproc_per_node 1"
    )
    line = line.replace("HOST:29500", f"localhost:{20000 + os.getpid() % 20000}")
    nodes = [
        subprocess.Popen(
            shlex.split(f"{line} {_RUN} name=nodes"),
            cwd=place,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for node in nodes:
        _, errors = node.communicate(timeout=300)
        assert node.returncode == 0, errors[-2000:]
    state = next((place / "runs/nodes/checkpoints").glob("step_*/state.json"))
    assert '"world": 2' in state.read_text()


def test_named_files_exist():
    """Links and paths in backticks, but for what commands make."""
    links = re.findall(r"\]\(([\w./-]+)\)", README)
    code = set(re.findall(r"`([\w./-]+\.(?:py|yaml))`", README)) - {"config.yaml"}  # of a run
    places = ("", "vistok/", "configs/", "configs/studies/")
    missing = [n for n in [*links, *code] if not any((ROOT / f"{p}{n}").exists() for p in places)]
    assert not missing


def test_both_folders_of_quickstart_are_told():
    folders = re.findall(r"^RUN := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert sorted(folders) == ["runs/quickstart", "runs/quickstart-fast"]
    assert all(f"leaves `{folder}/report.html`" in README for folder in folders)
