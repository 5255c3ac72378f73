"""The short convolution against torch's own, and its carried state."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kernels.causal_conv1d import causal_conv1d


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 10, 6, generator=g), torch.randn(4, 6, generator=g)
    return x, weight, torch.randn(2, 3, 6, generator=g)


def test_equals_a_padded_depthwise_convolution() -> None:
    x, weight, _ = example()
    expected = F.silu(F.conv1d(F.pad(x.mT, (3, 0)), weight.T.unsqueeze(1), groups=6)).mT
    out, state = causal_conv1d(x, weight)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    assert torch.equal(state, x[:, -3:])


def test_a_cut_sequence_gives_the_same() -> None:
    x, weight, state = example()
    whole, end = causal_conv1d(x, weight, state)
    parts, carried = [], state
    for piece in x.split([1, 2, 1, 6], dim=1):
        out, carried = causal_conv1d(piece, weight, carried)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-6, rtol=0)
    assert torch.equal(carried, end)


def test_inputs_stay_and_the_state_owns_its_memory() -> None:
    x, weight, state = example()
    before = x.clone(), state.clone()
    _, after = causal_conv1d(x[:, :1], weight, state)
    assert torch.equal(x, before[0])
    assert torch.equal(state, before[1])
    assert after.untyped_storage().nbytes() == after.numel() * 4


def test_is_differentiable_in_all_inputs() -> None:
    leaves = [t.double().requires_grad_() for t in example()]
    out, state = causal_conv1d(*leaves)
    (out.sum() + state.sum()).backward()
    assert all(t.grad is not None and bool((t.grad != 0).any()) for t in leaves)
