"""What newcomers type wrongly: one line in YAML's words that says what to type instead."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import get_args

import pytest
from pydantic_core.core_schema import ErrorType

from vistok.config import ConfigError, read_yaml, schema_files, validate
from vistok.config.pydantic_errors import EXPECTED, reason
from vistok.config.schema_files import check, check_study, check_words
from vistok.train.config import TrainConfig

PYTHON = re.compile(
    r"\b(tuple|dict|dictionary|None|NoneType|True|False|str|int|float|bool|integer|instance)\b"
    r"|[Ii]nput should|valid string|Config\("
)


@pytest.fixture(autouse=True)
def _current(monkeypatch):
    """A schema that is behind the code has a test of its own."""
    monkeypatch.setattr(schema_files, "_is_current", lambda program: True)


QUANTIZER, ENCODER = "task.tokenizer.quantizer", "task.tokenizer.encoder"

TRAIN = {
    # keys of other levels, by their own names and by those of other programs
    "lr=3e-4": "lr: unknown key, value 3e-4; did you mean 'optimizer.lr'",
    "learning_rate=1": "did you mean 'optimizer.lr'",
    "batch=64": "did you mean 'batch_size'",
    "bs=64": "did you mean 'batch_size'",
    "batchsize=64": "did you mean 'batch_size'",
    "epochs=10": "did you mean 'steps'",
    "max_steps=10": "did you mean 'steps'",
    "num_workers=2": "did you mean 'workers'",
    "output_dir=x": "did you mean 'out'",
    "grad_clip=1": "did you mean 'clip'",
    "warmup_steps=5": "did you mean 'warmup'",
    "eval_every=5": "did you mean 'validate_every'",
    "ema_decay=0.9": "did you mean 'ema'",
    "wd=0.1": "did you mean 'optimizer.weight_decay'",
    "image_size=64": "did you mean 'task.tokenizer.image_size'",
    "resolution=64": "did you mean 'task.tokenizer.image_size'",
    "size=64": "did you mean 'data.size'",
    "levels=[8]": f"did you mean '{QUANTIZER}.levels'",
    "num_tokens=8": f"did you mean '{ENCODER}.latents.count'",
    "width=64": f"did you mean '{ENCODER}.transformer.width' or 'task.tokenizer.decoder",
    "quantizer=vq": f"did you mean '{QUANTIZER}'",
    "dataset=x": "did you mean 'data'",
    "task.quantizer.kind=vq": f"did you mean '{QUANTIZER}'",
    "optimizer.steps=3": "did you mean 'steps'",
    f"{ENCODER}.width=64": f"did you mean '{ENCODER}.transformer.width'",
    f"{ENCODER}.patch_size=4": f"did you mean '{ENCODER}.patches.size'",
    "nonsense=3": "unknown key, value 3; valid: name, out, plugins, seed, task",
    # keys of other kinds
    "codebook_size=8": "`codebook_size` is a key of the quantizer .*ibq.* or stochastic_vq, and "
    f"'{QUANTIZER}' is fsq",
    f"{QUANTIZER}={{kind: vq, levels: [8]}}": "`levels` is a key of fsq, scalar or residual, and "
    "this quantizer is vq: leave it out",
    f"{QUANTIZER}.codebook_size=8": "is a key of .*ibq.* or stochastic_vq, and this quantizer is ",
    "data.path=x": "`path` is a key of folder, huggingface.*, and this data is photos",
    # kinds
    f"{QUANTIZER}.kind=fsqq": "kind: unknown kind 'fsqq'; did you mean 'fsq'.*valid: binary, .*fsq",
    f"{QUANTIZER}.kind=vit": "'vit' is the kind of a decoder, encoder or vision, and this is a qua",
    f"{QUANTIZER}.kind=3": "kind: got 3; expected one of: binary",
    "optimizer.kind=adam": "did you mean 'adamw'",
    "task.losses=[{kind: gan}]": "task.losses.0.kind: unknown kind 'gan'; did you mean 'adversari",
    "data={kind: imagenet}": "did you mean 'folder'",
    f"{QUANTIZER}={{levels: [8]}}": "no 'kind' given in {levels: .8.}; expected one of: binary",
    # values
    "optimizer=adamw": "got 'adamw'; expected a mapping whose kind .*; write {kind: adamw}",
    "data=my/images": "; for a folder of images write {kind: folder, path: my/images, size: 256}",
    "task.losses=[l2]": "losses.0: got 'l2'; expected a mapping.*write {kind: reconstruction}",
    "steps=abc": "steps: got 'abc'; expected a whole number of 1 or more$",
    "steps=10k": "expected a whole number of 1 or more; numbers are plain decimals",
    "steps=1e4": "got 1e4; expected a whole number of 1 or more; write 10000",
    "steps=-5": "got -5; expected a whole number of 1 or more$",
    "steps=true": "got true; expected a whole number",
    "steps=[100]": r"got \[100\]; expected a whole number",
    "steps=null": "got null; expected a whole number",
    "ema=1.5": "expected a number of 0 or more and below 1, or null$",
    "ema=off": "expected a number .*, or null; write null",
    "name=": "got null; expected text of 1 to 200 characters",
    "precision=fp16": "precision: got 'fp16'; expected one of: fp32, bf16, auto$",
    "compile=maybe": "got 'maybe'; expected true or false$",
    "trackers=wandb": r"expected a list, each one of: tensorboard, wandb; write \['wandb'\]",
    "trackers=[mlflow]": "trackers.0: got 'mlflow'; expected one of: tensorboard, wandb",
    f"{QUANTIZER}.levels=8": r"expected a list of 1 or more, each a whole number .*; write \[8\]",
    f"{QUANTIZER}.levels=[8, a]": "levels.1: got 'a'; expected a whole number from 2 to",
    f"{ENCODER}.latents=8": "got 8; expected a mapping with keys of: count, stored",
    "task.tokenizer.image_size=[8]": "expected a whole number from 1 to .* or a list of 2, each",
    "task.losses={kind: flow}": r"a list of mappings with a `kind`; write \[{kind: flow}\]",
}


@pytest.mark.parametrize("word", TRAIN)
def test_a_training(word, fails):
    tree = read_yaml("quickstart", [word])
    with fails(ConfigError, TRAIN[word]) as early:
        check("train", tree, "quickstart")
    with fails(ConfigError, TRAIN[word]) as late:  # the same without the shipped schema
        validate(TrainConfig, tree, "quickstart")
    for line in {str(early.value), str(late.value)}:
        assert line.startswith("quickstart: ") and not PYTHON.search(line), line


def test_the_others_are_counted(fails):
    tree = read_yaml("quickstart", ["a=1", "steps=x", "b=2", "c=3", "d=4", "e=5"])
    with fails(ConfigError, r"steps: got 'x'.* \(and 5 more: a, b, c, d, ...\)$"):
        check("train", tree, "quickstart")


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("lr=3", "lr: unknown key, value '3'; valid: report"),
        ("batch_size=3", "did you mean 'batch'"),
        ("metrics=rfid", "did you mean 'protocols'"),
        ("out=x.html", "did you mean 'report'"),
        ("temperature=1", "did you mean 'sampling.temperature'"),
        ("limit=1", "limit: got 1; expected a whole number of 2 or more, or null"),
        ("rfid.metric=kid", "rfid.metric: unknown key, value 'kid'; did you mean 'metrics'"),
        ("gfid.samples=many", "gfid.samples: got 'many'; expected a whole number"),
        ("data=folder", "data: got 'folder'; expected a mapping$"),
        ("overwrite=please", "expected true or false$"),
    ],
)
def test_an_evaluation(word, words, fails):
    with fails(ConfigError, words) as error:
        check_words("eval", ["runs/a", word])
    assert not PYTHON.search(str(error.value))


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("run={a: {}}", "run: unknown key.*did you mean 'runs'"),
        ("seeds=3", r"seeds: got 3; expected a list, each a whole number; write \[3\]"),
        ("evaluate.limt=3", "evaluate.limt: unknown key, value 3; did you mean 'limit'"),
        ("lr=3", "studies/lengths: quickstart: lr: unknown key.*did you mean 'optimizer.lr'"),
        ("runs=[]", r"runs: got \[\]; expected a mapping"),
    ],
)
def test_a_study(word, words, fails):
    with fails(ConfigError, words):
        check_study("studies/lengths", [word])


def test_every_error_of_pydantic_has_words():
    unreachable = re.compile("python|frozen_|default_factory|_argument|callable|is_|ellipsis|senti")
    plain = {
        "extra_forbidden",
        "missing",
        "value_error",
        "assertion_error",
        "set_item_not_hashable",
    }
    for kind in set(get_args(ErrorType)) - plain:
        assert kind in EXPECTED or unreachable.search(kind), kind
        context = {
            **dict.fromkeys(("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length"), 3),
            **dict.fromkeys(("pattern", "expected", "expected_tags"), "x"),
        }
        words = reason({"type": kind, "ctx": context, "msg": "Input should be a valid dictionary"})
        assert not PYTHON.search(words) and "{" not in words, words


LINES = """
import json, sys
from vistok.cli import main
sys.argv = ["vistok", *json.loads(sys.argv[1])]
try:
    main()
finally:
    print("torch" in sys.modules)
"""


def test_torch_is_not_imported_for_it():
    words = json.dumps(["train", "quickstart", "lr=3"])
    done = subprocess.run([sys.executable, "-c", LINES, words], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout.strip() == "False", done
    assert done.stderr.strip() == (
        "error: quickstart: lr: unknown key, value 3; did you mean 'optimizer.lr'?"
    )
