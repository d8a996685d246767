"""What a terminal shows of a plan."""

from __future__ import annotations

import pytest

from vistok.tokens import TokenSpec
from vistok.train.cost.plan_text import plan_text, vocabulary
from vistok.train.cost.planned import JobPlan, Memory, Part, Plan, Schedule, Stage
from vistok.train.monitoring.text import amount, duration, size

SPEC = TokenSpec(blocks=((128,),), vocab=(4096,), dim=12, prefix="token")
PLAN = Plan(
    name="titok",
    folder="runs/titok",
    task="tokenizer",
    sides=(256, 256),
    spec=SPEC,
    parts=(
        Part("encoder", 25_685_516, 0, 21.9e9),
        Part("lpips-vgg", 0, 14_716_160, 80.2e9),
    ),
    model="tokenizer",
    forward=43.9e9,
    work={},
    stages=(Stage(0, 252e9), Stage(20_000, 349e9)),
    optimizer_flops=1e12,
    precision="bf16",
    memory=Memory(2**28, 2**29, 2**29, 2**27, 2**32, 2**33, 2**30),
    schedule=Schedule(500_000, 256, 8, 2, 10_000, 1_281_167, 50_000, 100, 100, 2),
    notes=("task.losses.1.start=900,000 is never reached: the run has 500,000 steps",),
)

EXPECTED = """\
part               trained      frozen  forward FLOP/image
encoder         25,685,516           -              21.9 G
lpips-vgg                -  14,716,160              80.2 G
all             25,685,516  14,716,160               102 G

image           256 x 256
tokens/image    128, or any prefix
vocabulary      4,096
bits/image      1,536
bpp             0.0234

forward         43.9 GFLOP/image, tokenizer alone
whole step      252 GFLOP/image forward + backward, losses included
                349 GFLOP/image from step 20,000
optimizer       1 TFLOP/step, 1.1% on top
whole run       44.2 EFLOP

memory          weights       256 MiB
                gradients     512 MiB  and buckets
                optimizer     512 MiB
                EMA           128 MiB
                activations     4 GiB  16 x 256 MiB
                all          5.38 GiB  per process, an estimate
                on CPUs      9.38 GiB  bf16 attention is not fused there

samples         128,000,000 = 500,000 steps x 256
epochs          99.91 of 1,281,167 samples, 5,004.56 steps each
batch           256 = 8 processes x 32, in 2 micro-batches of 16
warm-up         10,000 steps, 2.0% of the run
validations     100 of 50,000 samples
checkpoints     100 of 1 GiB each, 2 GiB kept
folder          runs/titok

notes           task.losses.1.start=900,000 is never reached: the run has
                500,000 steps
"""


def test_a_plan_is_aligned_and_fits():
    assert plan_text(PLAN, 80) == EXPECTED
    assert plan_text(PLAN, 120).count("\n") == EXPECTED.count("\n") - 1  # the note is one line


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width):
    assert max(map(len, plan_text(PLAN, width).splitlines())) <= width


def test_a_cache_says_what_it_would_write():
    counts = {"train": 32_768, "val": 1_024}
    text = plan_text(JobPlan("q", "runs/q/tokens", "runs/q", SPEC, (32, 32), True, counts, 5e9, ()))
    assert "cache           264 B per image" in text  # 128 int16 and a label
    assert "train           32,768 images -> runs/q/tokens/train, 8.25 MiB" in text
    assert "encoding        5 GFLOP/image" in text
    missing = ("task.tokenizer: not here",)
    lost = JobPlan("q", "runs/q/tokens", "runs/q", None, None, True, {}, None, missing)
    assert plan_text(lost).splitlines() == [
        "tokenizer       runs/q",
        "",
        "folder          runs/q/tokens",
        "",
        "notes           task.tokenizer: not here",
    ]


def test_numbers_have_three_digits():
    assert [amount(v) for v in (0, 7, 999, 1234, 43_904_925_696, 4.4e19)] == [
        *("-", "7 ", "999 ", "1.23 k", "43.9 G", "44 E"),
    ]
    assert [size(v) for v in (5, 1000, 2**20, 1.5 * 2**30)] == [
        *("5 B", "0.977 KiB", "1 MiB", "1.5 GiB"),
    ]
    assert [duration(v) for v in (0, 59.6, 75, 3600, 93_784)] == [
        *("0 s", "1 min", "1 min 15 s", "1 h", "1 d 2 h"),
    ]
    assert [vocabulary(v) for v in ((2,) * 64, (64, 4096), (4096,))] == [
        *("2^64", "64 x 4,096", "4,096"),
    ]
