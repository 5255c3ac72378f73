"""The gated delta rule against transformers' two functions, and its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.qwen3_5 import modeling_qwen3_5

from kernels.gated_delta_rule import chunked, gated_delta_rule, recurrent

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
SHAPES = [
    (1, 1, 2, 2, 8, 8),
    (2, 63, 2, 6, 16, 24),
    (1, 130, 4, 4, 32, 32),
    (1, 65, 16, 48, 128, 128),
]


def make_inputs(
    batch: int, time: int, key_heads: int, value_heads: int, key_dim: int, value_dim: int
) -> Inputs:
    g = torch.Generator().manual_seed(time)
    query, key = (torch.randn(batch, time, key_heads, key_dim, generator=g) for _ in range(2))
    value = torch.randn(batch, time, value_heads, value_dim, generator=g)
    log_decay = -3 * torch.rand(batch, time, value_heads, generator=g)
    beta = torch.rand(batch, time, value_heads, generator=g)
    state = torch.randn(batch, value_heads, key_dim, value_dim, generator=g)
    return query, key, value, log_decay, beta, state


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("rule", [recurrent, chunked])
def test_equals_transformers(shape: tuple[int, ...], with_state: bool, rule: Any) -> None:
    *inputs, state = make_inputs(*shape)
    start = state if with_state else None
    out, end = rule(*inputs, start)
    for name in ("torch_recurrent_gated_delta_rule", "torch_chunk_gated_delta_rule"):
        expected = getattr(modeling_qwen3_5, name)(
            *inputs, initial_state=start, output_final_state=True, use_qk_l2norm_in_kernel=True
        )
        torch.testing.assert_close(out, expected[0], atol=5e-6, rtol=0)
        torch.testing.assert_close(end, expected[1], atol=5e-6, rtol=0)


@pytest.mark.parametrize("rule", [recurrent, chunked])
def test_gradients_are_those_of_finite_differences(
    rule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel works in float32, too coarse for finite differences: let it keep float64 here.
    monkeypatch.setattr(Tensor, "float", lambda self: self)
    inputs = [x.double().requires_grad_() for x in make_inputs(1, 7, 1, 2, 3, 4)]
    options = {"chunk": 4} if rule is chunked else {}
    assert torch.autograd.gradcheck(lambda *xs: rule(*xs, **options), inputs)


def test_gradients_of_both_forms_agree_over_many_chunks() -> None:
    gradients = []
    for rule in (recurrent, chunked):
        inputs = [x.requires_grad_() for x in make_inputs(2, 150, 2, 4, 16, 16)]
        out, end = rule(*inputs)
        (out.sin().sum() + end.sin().sum()).backward()
        gradients.append([x.grad for x in inputs])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_repeated_keys_stay_accurate() -> None:
    """Equal keys and beta 1 are the worst case for the triangular system of a chunk."""
    query, key, value, log_decay, beta, state = make_inputs(1, 64, 1, 1, 16, 16)
    key = key[:, :1].expand_as(key)
    inputs = (query, key, value, torch.zeros_like(log_decay), torch.ones_like(beta), state)
    out, end = chunked(*inputs)
    expected_out, expected_end = recurrent(*inputs)
    torch.testing.assert_close(out, expected_out, atol=1e-5, rtol=0)
    torch.testing.assert_close(end, expected_end, atol=1e-5, rtol=0)


def test_strong_decay_gives_no_nan_forward_or_backward() -> None:
    *inputs, log_decay, beta, state = make_inputs(1, 80, 1, 2, 8, 8)
    leaves = [x.requires_grad_() for x in (*inputs, log_decay * 1000, beta, state)]
    out, end = chunked(*leaves)
    (out.sum() + end.sum()).backward()
    assert all(torch.isfinite(x.grad).all() for x in leaves if x.grad is not None)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("time", [1, 70])
def test_inputs_are_not_changed_and_state_is_float32(time: int) -> None:
    inputs = [x.bfloat16() for x in make_inputs(1, time, 2, 4, 8, 8)]
    inputs[-1] = inputs[-1].float()
    before = [x.clone() for x in inputs]
    out, end = gated_delta_rule(*inputs)
    assert out.dtype == torch.bfloat16
    assert end.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


def test_no_tokens_leave_the_state_alone() -> None:
    inputs = make_inputs(1, 0, 2, 4, 8, 8)
    out, end = gated_delta_rule(*inputs)
    assert out.shape == (1, 0, 4, 8)
    assert torch.equal(end, inputs[-1])
