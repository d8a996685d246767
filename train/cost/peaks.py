"""Published peak rates of GPUs: dense matrix products, TFLOP/s, without sparsity.

Sources, by line: NVIDIA's data sheets (V100 2020, T4 2019, A10 2021, A30 2021, A40 2021, A100 2021,
L4 2023, L40 2022, L40S 2023, H100 2023 with its PCIe and NVL forms, H200 2024, HGX B200 2024) and
white papers (GA102 2020 for RTX 3090 and A6000, Ada 2022 for RTX 4090 and 6000 Ada, Blackwell RTX
2025 for RTX 5090). Where a sheet gives rates with sparsity, half of it; bf16 is with fp32
accumulation, which on GeForce cards is half of what fp16 accumulation reaches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Peak:
    """TFLOP/s by type of the operands; None = the card has no such unit."""

    bf16: float | None
    tf32: float | None
    fp32: float


# Patterns of whole names as the driver gives them; a MIG slice or an unknown form matches none.
_PEAKS = {
    r"B200": Peak(2250.0, 1125.0, 75.0),
    r"H200|GH200.*": Peak(989.4, 494.7, 66.9),
    r"H200 NVL": Peak(835.5, 417.5, 60.0),
    r"H100 80GB HBM3|H100 SXM5.*": Peak(989.4, 494.7, 66.9),
    r"H100 PCIe": Peak(756.0, 378.0, 51.0),
    r"H100 NVL": Peak(835.5, 417.5, 60.0),
    r"A100[- ](SXM4|PCIE|PCIe|80GB)[^ ]*( PCIe)?": Peak(312.0, 156.0, 19.5),
    r"A30": Peak(165.0, 82.0, 10.3),
    r"A40": Peak(149.7, 74.8, 37.4),
    r"A10": Peak(125.0, 62.5, 31.2),
    r"L4": Peak(121.0, 60.0, 30.3),
    r"L40": Peak(181.05, 90.5, 90.5),
    r"L40S": Peak(362.05, 183.0, 91.6),
    r"RTX A6000": Peak(154.8, 77.4, 38.7),
    r"RTX 6000 Ada Generation": Peak(364.2, 182.1, 91.1),
    r"GeForce RTX 3090": Peak(71.0, 35.6, 35.6),
    r"GeForce RTX 4090": Peak(165.2, 82.6, 82.6),
    r"GeForce RTX 5090": Peak(209.5, 104.8, 104.8),
    r"V100-SXM2-\d+GB": Peak(None, None, 15.7),
    r"V100-PCIE-\d+GB": Peak(None, None, 14.0),
    r"T4": Peak(None, None, 8.1),
}


def peak_of(device: str, kind: str) -> float | None:
    """TFLOP/s of a GPU by its name ("NVIDIA A100-SXM4-80GB") for "bf16", "tf32" or "fp32".

    None for a card that is not in the table, or that has no unit for the type: no guess is made.
    """
    name = re.sub(r"^(NVIDIA|Tesla)\s+", "", device.strip())
    for pattern, peak in _PEAKS.items():
        if re.fullmatch(pattern, name):
            return getattr(peak, kind)
    return None
