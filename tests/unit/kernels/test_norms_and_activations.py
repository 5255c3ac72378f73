"""RMSNorm in its three forms, SwiGLU and the linear map, against their formulas in float64."""

from __future__ import annotations

import pytest
import torch
from transformers.models.qwen3_5 import modeling_qwen3_5

from kernels.linear import linear
from kernels.rms_norm import gated_rms_norm, rms_norm
from kernels.swiglu import swiglu


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("zero_centred", [False, True])
def test_rms_norm_is_its_formula(x: torch.Tensor, zero_centred: bool) -> None:
    weight = torch.linspace(-1, 1, 16)
    scale = weight.double() + (1 if zero_centred else 0)
    expected = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale
    got = rms_norm(x, weight, 1e-6, zero_centred=zero_centred)
    torch.testing.assert_close(got.double(), expected, atol=1e-6, rtol=1e-6)


def test_eps_bounds_the_scale_of_zeros() -> None:
    assert torch.equal(rms_norm(torch.zeros(4), torch.ones(4), 1e-6), torch.zeros(4))


def test_gated_rms_norm_equals_transformers(x: torch.Tensor) -> None:
    gate = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    theirs = modeling_qwen3_5.Qwen3_5RMSNormGated(16)
    with torch.no_grad():
        theirs.weight.copy_(torch.linspace(-1, 1, 16))
        expected = theirs(x, gate)
    got = gated_rms_norm(x, gate, torch.linspace(-1, 1, 16), 1e-6)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


def test_bfloat16_is_computed_in_float32(x: torch.Tensor) -> None:
    narrow, weight = x.bfloat16(), torch.ones(16)
    got = rms_norm(narrow, weight, 1e-6)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, rms_norm(narrow.float(), weight, 1e-6).bfloat16())
    assert gated_rms_norm(narrow, narrow, weight, 1e-6).dtype == torch.bfloat16


def test_swiglu_gates_the_second_half_by_the_first(x: torch.Tensor) -> None:
    gate, value = x.double().split(8, dim=-1)
    expected = gate / (1 + (-gate).exp()) * value
    torch.testing.assert_close(swiglu(x).double(), expected, atol=1e-6, rtol=1e-6)


def test_linear_multiplies_by_the_transposed_weight(x: torch.Tensor) -> None:
    weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(linear(x, weight), x @ weight.T, atol=1e-5, rtol=1e-5)


def test_all_are_differentiable() -> None:
    x = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    # Through float32, so only coarsely; a missing path would give zero or no gradient at all.
    rms_norm(x, torch.ones(8), 1e-6).sin().sum().backward()
    swiglu(gated_rms_norm(x, x, torch.ones(8), 1e-6)).sum().backward()
    assert x.grad is not None
    assert bool((x.grad != 0).any())
