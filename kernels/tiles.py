"""The tiles of matrix programs in Triton."""

from __future__ import annotations

import torch

from kernels import backend


def tiles(device: torch.device, rows: int, wide: bool) -> tuple[int, int, int, int]:
    """Return rows, columns, warps and stages of a program; ``wide`` for float32 activations."""
    if rows <= 16 or wide:
        return 16, 32, 4, 1 if wide else 3
    if rows <= 64:
        return 64, 64, 4, 3
    # Only there do 128 columns fit the registers.
    return (128, 128, 8, 2) if backend.capability(device) == 90 else (128, 64, 8, 2)
