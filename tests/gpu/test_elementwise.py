"""RMSNorm, SwiGLU and the split of queries and keys: Triton against the reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.backend import KernelError
from kernels.qk_norm_rope import qk_norm_rope
from kernels.rms_norm import add_rms_norm, gated_rms_norm, rms_norm
from kernels.rope import frequencies, tables
from kernels.swiglu import swiglu
from tests.gpu.comparing import CALM, close, randn

pytestmark = pytest.mark.gpu

dtypes = st.sampled_from([torch.float32, torch.bfloat16])


@CALM
@given(
    dim=st.integers(1, 300),
    shape=st.lists(st.integers(0, 4), min_size=0, max_size=3),
    dtype=dtypes,
    centred=st.booleans(),
    seed=st.integers(0, 99),
)
def test_norms(
    device: torch.device,
    dim: int,
    shape: list[int],
    dtype: torch.dtype,
    centred: bool,
    seed: int,
) -> None:
    x, gate = (randn(seed + i, *shape, dim, dtype=dtype, device=device) for i in range(2))
    weight = randn(seed + 2, dim, device=device)
    got = rms_norm(x, weight, 1e-6, zero_centred=centred, backend="triton")
    close(got, rms_norm(x, weight, 1e-6, zero_centred=centred))
    close(
        gated_rms_norm(x, gate, weight, 1e-6, backend="triton"),
        gated_rms_norm(x, gate, weight, 1e-6),
    )
    got, total = add_rms_norm(x, gate, weight, 1e-6, zero_centred=centred, backend="triton")
    expected, sums = add_rms_norm(x, gate, weight, 1e-6, zero_centred=centred)
    close(total, sums)
    close(got, expected)


def test_a_gate_inside_a_projection_is_read_where_it_lies(device: torch.device) -> None:
    wide = randn(0, 2, 5, 3 * 16 + 8, device=device)
    gate = wide[..., 8:].reshape(2, 5, 3, 16)
    assert not gate.is_contiguous()
    x, weight = randn(1, 2, 5, 3, 16, device=device), randn(2, 16, device=device)
    got = gated_rms_norm(x, gate, weight, 1e-6, backend="triton")
    close(got, gated_rms_norm(x, gate, weight, 1e-6))


@CALM
@given(rows=st.integers(0, 5), dim=st.integers(1, 1500), dtype=dtypes, seed=st.integers(0, 99))
def test_swiglu(device: torch.device, rows: int, dim: int, dtype: torch.dtype, seed: int) -> None:
    x = randn(seed, 1, rows, 2 * dim, dtype=dtype, device=device)
    close(swiglu(x, backend="triton"), swiglu(x))


@CALM
@given(
    batch=st.integers(1, 2),
    time=st.integers(0, 4),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 6),
    dim=st.sampled_from([16, 64]),
    rotary=st.sampled_from([4, 8, 16]),
    apart=st.booleans(),
    dtype=dtypes,
)
def test_queries_and_keys(
    device: torch.device,
    batch: int,
    time: int,
    kv_heads: int,
    group: int,
    dim: int,
    rotary: int,
    apart: bool,
    dtype: torch.dtype,
) -> None:
    heads = kv_heads * group
    projected = randn(time, batch, time, (2 * heads + 2 * kv_heads) * dim, dtype=dtype)
    projected = projected.to(device)
    positions = torch.arange(1000, 1000 + batch * time if apart else 1000 + time)
    cos, sin = tables(positions.expand(3, -1), *frequencies(rotary, 1e4, (1, 1, 0)))
    if apart:
        cos, sin = (x.reshape(batch, time, -1) for x in (cos, sin))
    weights = [randn(i, dim).to(device) for i in (1, 2)]
    arguments = (projected, *weights, cos.to(device), sin.to(device), 1e-6)
    got = qk_norm_rope(*arguments, heads=heads, kv_heads=kv_heads, backend="triton")
    expected = qk_norm_rope(*arguments, heads=heads, kv_heads=kv_heads)
    for a, b in zip(got, expected, strict=True):
        close(a, b)


def test_an_unsupported_head_dimension_names_the_way_out(device: torch.device) -> None:
    projected = torch.zeros(1, 1, 4 * 24, device=device)
    cos = torch.ones(1, 4, device=device)
    weight = torch.zeros(24, device=device)
    with pytest.raises(KernelError, match=r"power of two from 16 to 512, not 24; use backend='tor"):
        qk_norm_rope(
            projected, weight, weight, cos, cos, 1e-6, heads=1, kv_heads=1, backend="triton"
        )
