"""`torchrun ... -m tests.support.launched A.yaml B.yaml`: several runs in one launch.

Starting processes and importing torch takes longer than the tiny runs themselves.
"""

from __future__ import annotations

import sys

import torch

from tests.support.training import forget_accelerate
from vistok.config import load_plugins, read_yaml, validate
from vistok.train.config import TrainConfig
from vistok.train.cost import throughput
from vistok.train.loop import train


def main(paths: list[str]) -> None:
    load_plugins(["tests.support.train_parts"])
    torch.set_num_threads(1)
    throughput._counted = lambda key: ()  # see `count_no_flop` of tests.support.training
    for path in paths:
        forget_accelerate()
        train(validate(TrainConfig, read_yaml(path), path))


if __name__ == "__main__":
    main(sys.argv[1:])
