"""`python -m tests.support.orphans METHOD`: a loader with workers, made to be killed."""

from __future__ import annotations

import multiprocessing
import sys
import time

import torch

from vistok.data import Dataset, Order, Sample, TrainLoader


class Flat(Dataset):
    """Flat images."""

    classes = ()
    size = (2, 2)

    def __len__(self) -> int:
        return 100

    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        return Sample(index, torch.full((3, 2, 2), index, dtype=torch.uint8))


def main(method: str) -> None:
    multiprocessing.set_start_method(method)
    multiprocessing.set_forkserver_preload(["vistok.data"])  # imports torch once for all workers
    batches = iter(TrainLoader(Flat(), Order(100, 4, 0), steps=50, workers=2))
    next(batches)
    print(len(multiprocessing.active_children()), flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
