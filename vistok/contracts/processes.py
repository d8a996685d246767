"""A quantizer in two processes against one: the same step, the same codebook.

`python -m vistok.contracts.processes MODULE KIND FOLDER [KEY=VALUE]...` is one of the processes; a
launcher's variables say which. Running statistics that see a process's own share only (an EMA
codebook without a sum over processes) come out here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from vistok.config.overrides import text_of
from vistok.contracts import own
from vistok.contracts.case import Case
from vistok.contracts.check import Check, Outcome, expect, expect_equal, run_check
from vistok.core.rng import Rng
from vistok.runtime import distributed

_NAME = "two processes take the same step as one"
_WITHIN = 1e-4


def step(case: Case) -> dict[str, Tensor]:
    """A quantizer's state, and the gradients of its losses, after a step on this process's share
    of the four images."""
    tokenizer = case.tokenizer().train()
    quantizer = tokenizer.quantizer
    share = 4 // distributed.world_size()
    mine = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    pixels = case.images(tokenizer).pixels[mine]
    found = tokenizer.quantize(tokenizer.latents(pixels))
    quantizer.remember(found)
    weights = quantizer.loss_weights
    losses = [value * (weights.get(name) or 1.0) for name, value in found.losses.items()]
    sum(losses, found.values.square().mean()).backward()
    quantizer.after_step(Rng(0))
    world = distributed.world_size()
    grads = {
        f"gradient of {name}": distributed.sum_(parameter.grad.clone()) / world
        for name, parameter in tokenizer.named_parameters()
        if parameter.grad is not None
    }
    state = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    return state | grads


def compare(case: Case, module: str) -> Outcome:
    """The outcome of the check; starts two processes, which takes seconds."""
    with tempfile.TemporaryDirectory() as folder:
        check = Check(("quantizer",), _NAME, lambda case: _run_both(case, module, Path(folder)))
        return run_check(check, case)


def _run_both(case: Case, module: str, folder: Path) -> None:
    words = [f"{key}={text_of(value)}" for key, value in case.tree().items() if key != "kind"]
    words += [f"tokenizer.{word}" for word in case.settings]
    command = [sys.executable, "-m", "vistok.contracts.processes", module, case.entry.kind]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    start = lambda rank: subprocess.Popen(
        [*command, str(folder), *words],
        env={**os.environ, **group, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    both = [start(rank) for rank in range(2)]
    said = [process.communicate()[1] for process in both]
    bad = next((text for text, one in zip(said, both, strict=True) if one.returncode), None)
    expect(bad is None, f"a process failed: {(bad or '').strip().splitlines()[-1:]}")
    judge(case, folder)


def judge(case: Case, folder: Path) -> None:
    """Raise `Broken` unless both processes' results are equal, and near those of one process."""
    first, second = (load_file(folder / f"{rank}.safetensors") for rank in range(2))
    torch.manual_seed(0)
    alone = step(case)
    for name, wanted in alone.items():
        expect_equal(f"{name} of process 0", first[name], second[name], "that of process 1")
        expect_equal(f"{name} of two processes", first[name], wanted, "that of one", _WITHIN)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main(words: Sequence[str]) -> None:
    """One of the processes: write the result of `step` into the folder, by rank."""
    module, kind, folder, *settings = words
    dist.init_process_group("gloo")
    (case,) = own.cases(own.parts_of(module, kind), settings)
    torch.manual_seed(0)
    save_file(step(case), Path(folder) / f"{dist.get_rank()}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
