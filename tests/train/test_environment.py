"""Settings of Accelerate in the environment: those that would change a run are refused by name."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tests.support.training import TINY, forget_accelerate
from vistok.config import ConfigError, validate
from vistok.train.__main__ import main
from vistok.train.config import TrainConfig
from vistok.train.environment import check_environment

STEPS = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
PRECISION = "ACCELERATE_MIXED_PRECISION"


def checked(monkeypatch, name: str, value: str, **changes) -> None:
    monkeypatch.setenv(name, value)
    check_environment(validate(TrainConfig, {**TINY, **changes}))


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        (STEPS, "4", "accumulate=N"),
        (STEPS, "auto", "accumulate=N"),
        (STEPS, "", "accumulate=N"),
        (PRECISION, "bf16", "precision=fp32; set precision=bf16"),
        (PRECISION, "fp16", "fp32 or bf16"),
        (PRECISION, "FP8", "fp32 or bf16"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "compile=true"),
        ("ACCELERATE_DYNAMO_BACKEND", "", "compile=true"),
        ("ACCELERATE_GRADIENT_CLIPPING", "0.5", "clip=X"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "Megatron-LM"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "parallelism config"),
        ("ACCELERATE_USE_SAGEMAKER", "true", "torchrun"),
        ("FSDP_OFFLOAD_PARAMS", "true", "fsdp_offload_params: false"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", "fsdp_activation_checkpointing: false"),
    ],
)
def test_what_would_change_a_run_is_refused(monkeypatch, fails, name, value, remedy):
    with fails(ConfigError, f"{name}={value.lower() if name == PRECISION else value} is", remedy):
        checked(monkeypatch, name, value)


@pytest.mark.parametrize(
    ("name", "value", "changes"),
    [
        (STEPS, "1", {}),
        (STEPS, "1", {"accumulate": 2}),
        (PRECISION, "no", {}),
        (PRECISION, "no", {"precision": "bf16"}),
        (PRECISION, "bf16", {"precision": "bf16"}),
        ("ACCELERATE_DYNAMO_BACKEND", "NO", {}),
        ("ACCELERATE_USE_MEGATRON_LM", "false", {}),
        ("FSDP_OFFLOAD_PARAMS", "false", {}),
        ("ACCELERATE_USE_CPU", "true", {}),
    ],
)
def test_what_a_launcher_always_sets_is_accepted(monkeypatch, name, value, changes):
    checked(monkeypatch, name, value, **changes)


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["train", "dry run"])
@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({STEPS: "4"}, f"{STEPS}=4"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),  # which is not installed here
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "FSDP version 1"),
    ],
    ids=["steps", "deepspeed", "fsdp1"],
)
def test_commands_refuse_it_in_one_line_before_anything_is_started(
    monkeypatch, tmp_path, write, env, words, dry
):
    forget_accelerate()
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(main, [str(write(TINY)), f"out={tmp_path}/run", *dry])
    assert done.exit_code == 1 and done.stderr.startswith("error: ")
    assert words in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_losses_are_divided_once(run, monkeypatch):
    """The variable at its harmless value leaves every number as it is."""
    plain = run(TINY, "plain", steps=2, warmup=0)
    monkeypatch.setenv(STEPS, "1")
    monkeypatch.setenv(PRECISION, "no")
    again = run(TINY, "again", steps=2, warmup=0)
    model = "model/model.safetensors"
    assert (plain / model).read_bytes() == (again / model).read_bytes()
