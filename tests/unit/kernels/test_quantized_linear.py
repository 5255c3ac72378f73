"""Packed weights: what rounding costs, and what cannot be packed."""

from __future__ import annotations

import pytest
import torch

from kernels.backend import KernelError
from kernels.quantized_linear import pack, pack_integers, quantized_linear, unpack
from kernels.quantized_linear.reference import Kind


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "steps"), [("int4", 7), ("int8", 127)])
def test_integers_are_off_by_half_a_step_at_most(kind: Kind, steps: int) -> None:
    weight = random(5, 384)
    largest = weight.reshape(5, 3, 128).abs().amax(2, keepdim=True)
    error = (unpack(pack(weight, kind)) - weight).reshape(5, 3, 128).abs()
    # A scale is rounded to bfloat16, which moves a step by up to 1 part in 256.
    assert bool((error <= largest / steps * 0.5 + largest / 200).all())
    assert float(error.max()) > 0


def test_fp8_is_off_by_one_part_in_sixteen_at_most() -> None:
    weight = random(200, 256)
    error = (unpack(pack(weight, "fp8")) - weight).abs()
    assert bool((error <= weight.abs() / 16 + 1e-3).all())


@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_integers_come_back(kind: Kind) -> None:
    most = 8 if kind == "int4" else 128
    integers = torch.randint(-most, most, (7, 256), generator=torch.Generator().manual_seed(1))
    scales = random(7, 1).abs()
    assert torch.equal(unpack(pack_integers(integers, scales, kind)), integers * scales)


def test_the_product_is_that_of_the_unpacked_matrix() -> None:
    weight = pack(random(6, 128), "int4")
    x = random(2, 3, 128)
    torch.testing.assert_close(quantized_linear(x, weight), x @ unpack(weight).T)


@pytest.mark.parametrize("kind", ["int4", "int8", "fp8"])
def test_a_width_that_groups_do_not_divide_is_refused(kind: Kind) -> None:
    with pytest.raises(KernelError, match=r"groups of 128 do not divide 200 inputs; keep"):
        pack(random(2, 200), kind)


def test_scales_that_do_not_spread_are_refused() -> None:
    with pytest.raises(KernelError, match="2 scales do not spread over 3 groups"):
        pack_integers(torch.zeros(1, 384), torch.ones(1, 2), "int8")
