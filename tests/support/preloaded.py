"""Imported once by the process that the processes of tests are forked from."""

import importlib

for name in (
    "accelerate.utils",
    "lpips",
    "torch._dynamo",  # which optimizers import when the first one is made
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "torch.utils.data",
    "torch.utils.flop_counter",
    "torchmetrics.functional.image",
    "torchvision.utils",
    "vistok.cli",
    "vistok.eval.measure",
    "vistok.train.loop",
    "tests.support.training",
):
    importlib.import_module(name)
