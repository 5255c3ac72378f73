"""Gated grouped-query attention against torch's scaled dot product with repeated heads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kernels.attention import attention, reference

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def make_inputs(time: int, total: int, heads: int = 6, kv_heads: int = 2) -> Inputs:
    g = torch.Generator().manual_seed(time)
    q, gate = torch.randn(2, 2, time, heads, 16, generator=g)
    k, v = torch.randn(2, 2, kv_heads, total, 16, generator=g)
    return q, k, v, gate


def expected(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    time, total, group = q.shape[1], k.shape[2], q.shape[2] // k.shape[1]
    visible = torch.ones(time, total, dtype=torch.bool).tril(total - time)
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=visible)
    return out.transpose(1, 2) * gate.sigmoid()


@pytest.mark.parametrize(("time", "total"), [(1, 1), (1, 40), (7, 7), (7, 40)])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_equals_torch(time: int, total: int, kv_heads: int) -> None:
    inputs = make_inputs(time, total, kv_heads=kv_heads)
    torch.testing.assert_close(attention(*inputs), expected(*inputs), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scores", [1, 1000])
def test_blocks_of_queries_change_nothing(scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make_inputs(13, 20)
    monkeypatch.setattr(reference, "_SCORES", scores)
    torch.testing.assert_close(attention(*inputs), expected(*inputs), atol=1e-5, rtol=0)


def test_later_positions_do_not_matter() -> None:
    q, k, v, gate = make_inputs(5, 9)
    before = attention(q, k, v, gate)
    k[:, :, -1] += 100
    v[:, :, -1] += 100
    after = attention(q, k, v, gate)
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])


def test_is_differentiable() -> None:
    leaves = [t.double().requires_grad_() for t in make_inputs(4, 6)]
    attention(*leaves).sum().backward()
    assert all(t.grad is not None and bool((t.grad != 0).any()) for t in leaves)
