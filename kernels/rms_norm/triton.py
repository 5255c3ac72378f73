"""RMSNorm in Triton: one kernel for the plain, gated and residual forms.

A program normalises a few whole rows, read once and held in registers. Rows of ``x`` and ``gate``
are ``[outer, inner, dim]`` with any outer stride, so that a slice of a wider projection needs no
copy.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import KernelError, power_of_two

_MOST = 1 << 16


@triton.jit
def _rms_norm(
    x,
    other,
    weight,
    out,
    total,
    rows,
    inner,
    x_stride,
    other_stride,
    dim,
    eps,
    CENTRED: tl.constexpr,
    GATED: tl.constexpr,
    ADDED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < dim)[None, :]
    place = (row % inner * dim)[:, None] + column[None, :]
    at = (row // inner * x_stride)[:, None] + place
    at_other = (row // inner * other_stride)[:, None] + place
    at_out = (row * dim)[:, None] + column[None, :]

    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if ADDED:
        value += tl.load(other + at_other, mask=inside, other=0.0).to(tl.float32)
        rounded = value.to(total.dtype.element_ty)
        tl.store(total + at_out, rounded, mask=inside)
        value = rounded.to(tl.float32)
    scale = tl.load(weight + column, mask=column < dim, other=0.0).to(tl.float32)
    if CENTRED:
        scale += 1.0
    inverse = tl.rsqrt(tl.sum(value * value, axis=1) / dim + eps)
    value = value * inverse[:, None] * scale[None, :]
    if GATED:
        gate = tl.load(other + at_other, mask=inside, other=0.0).to(tl.float32)
        value *= gate * tl.sigmoid(gate)
    tl.store(out + at_out, value.to(out.dtype.element_ty), mask=inside)


def _flat(x: Tensor) -> Tensor:
    """View it as ``[outer, inner, dim]`` whose inner part is contiguous, without a copy where
    possible.
    """
    x = x.reshape(-1, 1 if x.dim() < 2 else x.shape[-2], x.shape[-1])
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()


def _run(
    x: Tensor,
    other: Tensor | None,
    weight: Tensor,
    eps: float,
    *,
    centred: bool = False,
    gated: bool = False,
) -> tuple[Tensor, Tensor]:
    dim = x.shape[-1]
    if dim > _MOST:
        raise KernelError(f"rms_norm: rows of {dim} exceed {_MOST}; use backend='torch'")
    added = other is not None and not gated
    if x.numel() == 0:
        return torch.empty_like(x), torch.empty_like(x)
    flat = _flat(x)
    beside = flat if other is None else _flat(other)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    total = torch.empty(x.shape, dtype=x.dtype, device=x.device) if added else out
    rows, block = flat.shape[0] * flat.shape[1], power_of_two(dim)
    per_program = max(1, 1024 // block)
    _rms_norm[(triton.cdiv(rows, per_program),)](
        flat,
        beside,
        weight,
        out,
        total,
        rows,
        flat.shape[1],
        flat.stride(0),
        beside.stride(0),
        dim,
        eps,
        CENTRED=centred,
        GATED=gated,
        ADDED=added,
        ROWS=per_program,
        BLOCK=block,
        num_warps=min(16, max(4, block // 512)),
    )
    return out, total


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, zero_centred: bool = False) -> Tensor:
    """Compute ``reference.rms_norm`` for rows of at most 65,536."""
    return _run(x, None, weight, eps, centred=zero_centred)[0]


def gated_rms_norm(x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Compute ``reference.gated_rms_norm``."""
    return _run(x, gate, weight, eps, gated=True)[0]


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, zero_centred: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute ``reference.add_rms_norm``; both results are written in one pass."""
    return _run(x, residual, weight, eps, centred=zero_centred)
