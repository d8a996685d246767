"""Fine-tune a tokenizer on a folder of your own images.

    python own_images.py my/images                          # starts from vistok-128
    python own_images.py my/images steps=500 batch_size=8   # KEY=VALUE as for `vistok train`
    vistok eval runs/own_images vistok-128 data.kind=folder data.path=my/images \\
        data.val_share=0.1 data.size=128 report=runs/own_images/report.html

A tenth of the images is held out and never trained on; the last command compares both tokenizers on
it. `vistok check my/images` looks for broken files and duplicates first.
"""

import sys

from vistok import Tokenizer
from vistok.config import read_yaml, to_yaml, validate
from vistok.train.config import TrainConfig
from vistok.train.loop import train

START = "vistok-128"  # or a run, a folder, a released name


def config_for(folder: str, start: str = START) -> TrainConfig:
    """The training config: the same network, its weights, your images, a small learning rate."""
    tokenizer = Tokenizer.from_pretrained(start)
    height, _ = tokenizer.shape.image_size
    tree = {
        "name": "own_images",
        "task": {
            "kind": "tokenizer",
            "tokenizer": tokenizer.config.model_dump(mode="json"),
            "init": str(start),
            "losses": [
                {"kind": "reconstruction", "l1": 0.2, "l2": 1.0},
                {"kind": "perceptual", "network": "vistok-cnn", "weight": 0.02},
            ],
        },
        "data": {"kind": "folder", "path": folder, "val_share": 0.1, "size": height},
        "steps": 2000,
        "batch_size": 16,
        "optimizer": {"kind": "adamw", "lr": 1e-4},
        "warmup": 50,
        "ema": 0.99,
        "precision": "auto",
        "validate_every": 500,
        "grid_every": 500,
        "save_every": 500,
    }
    return validate(TrainConfig, tree)


def main(folder: str, *words: str, start: str = START) -> None:
    with open("own_images.yaml", "w", encoding="utf-8") as file:  # to look at, and to train again
        file.write(to_yaml(config_for(folder, start)))
    train(validate(TrainConfig, read_yaml("own_images.yaml", words)))


if __name__ == "__main__":
    if len(sys.argv) < 2 or "=" in sys.argv[1]:
        sys.exit("usage: python own_images.py FOLDER [KEY=VALUE]...")
    main(*sys.argv[1:])
