"""Weights in blocks of e4m3 numbers: what rounding costs, and what cannot be rounded."""

from __future__ import annotations

import pytest
import torch

from kernels.backend import KernelError
from kernels.fp8_linear import fp8_linear, round_to_fp8


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_fp8_is_off_by_one_part_in_sixteen_at_most() -> None:
    weight = random(200, 256)
    error = (round_to_fp8(weight).floats() - weight).abs()
    assert bool((error <= weight.abs() / 16 + 1e-3).all())


def test_the_product_is_that_of_the_matrix() -> None:
    weight = round_to_fp8(random(6, 128))
    x = random(2, 3, 128)
    torch.testing.assert_close(fp8_linear(x, weight), x @ weight.floats().T)


def test_a_width_that_blocks_do_not_divide_is_refused() -> None:
    with pytest.raises(KernelError, match="blocks of 128 do not divide 200 inputs"):
        round_to_fp8(random(2, 200))
