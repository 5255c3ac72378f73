"""SwiGLU in plain torch, after Shazeer, "GLU Variants Improve Transformer" (2020)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def swiglu(x: Tensor) -> Tensor:
    """Return ``silu(first half) * second half`` of ``x [..., 2 * dim]``: gate and value side by
    side.
    """
    gate, value = x.chunk(2, dim=-1)
    return F.silu(gate) * value
