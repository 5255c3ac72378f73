"""What the comparisons share: seeded inputs, tolerances by dtype, hypothesis' settings."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, settings
from torch import Tensor

from kernels.backend import interpreting

CALM = settings(
    max_examples=5 if interpreting() else 60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""The interpreter takes seconds where a device takes microseconds."""


def randn(
    seed: int,
    *shape: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Normal numbers that depend on ``seed`` and shape only."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(dtype).to(device)


def close(got: Tensor, expected: Tensor, *, float32: float = 2e-5, bfloat16: float = 2e-2) -> None:
    """Equal shape, dtype and device, and values within the tolerance of the dtype.

    The tolerance is relative to each value, and absolute at the scale of the whole tensor.
    """
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    assert got.device == expected.device
    if expected.numel() == 0:
        return
    tolerance = float32 if expected.dtype == torch.float32 else bfloat16
    scale = max(1.0, float(expected.float().square().mean().sqrt()))
    torch.testing.assert_close(
        got.float(), expected.float(), rtol=tolerance, atol=tolerance * scale
    )
