"""Frozen networks compute in fp32, whatever is set for matrix products."""

from __future__ import annotations

import pytest
import torch

from vistok.frozen.network import exact_products


@pytest.mark.parametrize("setting", ["none", "ieee", "tf32", "old"])
def test_products_are_exact_inside_and_as_before_outside(setting):
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        if setting == "old":
            matmul.allow_tf32 = True
        else:
            matmul.fp32_precision = setting
        told = matmul.fp32_precision
        with pytest.raises(KeyError), exact_products(True):
            assert matmul.allow_tf32 is False and matmul.fp32_precision != "tf32"
            raise KeyError("settings come back after an error too")
        assert matmul.fp32_precision == told and matmul.allow_tf32 == (told == "tf32")
        with exact_products(False):
            assert matmul.fp32_precision == told
    finally:
        matmul.allow_tf32 = before == "tf32"
        matmul.fp32_precision = before
