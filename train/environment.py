"""Settings that Accelerate reads from environment variables, where its launcher puts them.

A run is what its config says. Some of these settings Accelerate would apply all the same (losses
are divided once more, networks are compiled), others would be ignored: both are refused by name.
"""

from __future__ import annotations

import os

from vistok.config import ConfigError
from vistok.train.config import TrainConfig

_OFF = ("", "false", "no", "0")

# Variable -> (harmless values in lower case, remedy).
_REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (
        ("1",),
        "micro-batches are a setting of the run: say accumulate=N and unset the variable",
    ),
    "ACCELERATE_GRADIENT_CLIPPING": (
        (),
        "clipping is a setting of the run: say clip=X and unset the variable",
    ),
    "ACCELERATE_DYNAMO_BACKEND": (
        ("no",),
        "compiling is a setting of the run: say compile=true and launch with --dynamo_backend no",
    ),
    "ACCELERATE_USE_MEGATRON_LM": (
        _OFF,
        "vistok does not drive Megatron-LM: launch with configs/launch/8gpu.yaml or fsdp2.yaml",
    ),
    "ACCELERATE_USE_PARALLELISM_CONFIG": (
        _OFF,
        "vistok replicates or shards (FSDP2), and does not follow a parallelism config: launch "
        "with configs/launch/8gpu.yaml or fsdp2.yaml",
    ),
    "ACCELERATE_USE_SAGEMAKER": (_OFF, "vistok does not drive SageMaker: launch with torchrun"),
    "FSDP_OFFLOAD_PARAMS": (
        _OFF,
        "vistok shards without offloading: set fsdp_offload_params: false in the accelerate config",
    ),
    "FSDP_ACTIVATION_CHECKPOINTING": (
        _OFF,
        "vistok keeps activations: set fsdp_activation_checkpointing: false in the accelerate "
        "config, and raise accumulate to save memory",
    ),
}


def check_environment(config: TrainConfig) -> None:
    """ConfigError for a setting in the environment that the run would not, or should not, obey."""
    for name, (harmless, remedy) in _REFUSED.items():
        value = os.environ.get(name)
        if value is not None and value.strip().lower() not in harmless:
            raise ConfigError(f"{name}={value} is set in the environment; {remedy}")
    name = "ACCELERATE_MIXED_PRECISION"
    asked = os.environ.get(name, "").strip().lower()
    if asked not in ("", "no", config.precision):
        remedy = (
            "set precision=bf16 in the config, or launch with --mixed_precision no"
            if asked == "bf16"
            else "vistok trains in fp32 or bf16: launch with --mixed_precision no"
        )
        raise ConfigError(
            f"{name}={asked} is set in the environment, but the run computes in "
            f"precision={config.precision}; {remedy}"
        )
