"""Tiny configs, and helpers of tests that train: commands, logs, interrupted runs."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from pathlib import Path

from tests.support.processes import run

ROOT = Path(__file__).parents[2]

TINY = {
    "name": "tiny",
    "task": {
        "kind": "tokenizer",
        "tokenizer": {
            "image_size": 32,
            "encoder": {
                "kind": "vit",
                "patches": {"size": 8},
                "latents": {"count": 4},
                "transformer": {"width": 16, "depth": 1, "heads": 2},
            },
            "quantizer": {"kind": "fsq", "levels": [5, 5]},
            "regularizers": [{"kind": "nested_dropout"}],
            "decoder": {
                "kind": "vit",
                "patches": {"size": 8},
                "missing": "mask_token",
                "transformer": {"width": 16, "depth": 1, "heads": 2},
            },
        },
    },
    "data": {"kind": "photos", "size": 32, "count": 100, "val_count": 16},
    "steps": 12,
    "batch_size": 8,
    "optimizer": {"kind": "adamw", "lr": 1e-3},
    "warmup": 2,
    "log_every": 1,
    "validate_every": 0,
    "grid_every": 0,
    "save_every": 4,
    "keep_last": 10,
    "trackers": [],
}

# Everything that has state: EMA codebook from k-means, revival, perturbation, a discriminator
# with LeCam.
STATEFUL = copy.deepcopy(TINY)
STATEFUL["task"]["tokenizer"] |= {
    "quantizer": {
        "kind": "vq",
        "codebook_size": 16,
        "dim": 4,
        "update": "ema",
        "init": "kmeans",
        "revive_below": 0.2,
    },
    "regularizers": [
        {"kind": "tail_token_drop"},
        {"kind": "latent_perturbation", "proportion": 0.5, "neighbours": 4, "anneal": None},
    ],
}
STATEFUL["task"]["tokenizer"]["decoder"] |= {"missing": "drop"}
STATEFUL["task"]["losses"] = [
    {"kind": "reconstruction", "l2": 1.0},
    {
        "kind": "adversarial",
        "start": 3,
        "discriminator_start": 2,
        "ramp": 3,
        "lecam": 0.001,
        "discriminator": {"kind": "patchgan", "width": 8, "layers": 1},
    },
]


def forget_accelerate() -> None:
    """Accelerate remembers a process's first settings, whoever asks next: begin anew."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def count_no_flop(monkeypatch) -> None:
    """Runs leave out the FLOP of their step, whose tests are in tests/train/cost: a step on fake
    tensors takes as long as ten of a tiny network."""
    monkeypatch.setattr("vistok.train.cost.throughput._counted", lambda key: ())


def command(
    *args: object, processes: int = 1, module: str = "train", **env: str
) -> subprocess.CompletedProcess:
    """`vistok train ...` by that many processes; one thread each."""
    return run(module, *args, processes=processes, env=env)


def lines(folder: Path, split: str = "train") -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["split"] == split]


def rewound(whole: Path, name: str = "stopped") -> Path:
    """A copy of a run of 12 steps as it was after step 4: what a kill leaves."""
    folder = whole.parent / name
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "model")
    for step in (8, 12):
        shutil.rmtree(folder / "checkpoints" / f"step_{step:08d}")
    return folder


def cache_tree(tokenizer: Path, limit: int = 48) -> dict:
    return {
        "name": "tokens",
        "task": {"kind": "cache", "tokenizer": str(tokenizer), "limit": limit},
        "data": TINY["data"],
        "batch_size": 20,
    }


def alarms(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "alarms.jsonl").read_text().splitlines()]
