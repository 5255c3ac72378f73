"""RMSNorm in plain torch, after Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019).

All functions compute in float32 and return the dtype of ``x``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, zero_centred: bool = False) -> Tensor:
    """Scale ``x [..., dim]`` to root mean square 1, then by ``weight [dim]``.

    With ``zero_centred`` the stored weight is the distance from 1: the scale is ``1 + weight``.
    """
    scale = weight.float() + 1 if zero_centred else weight.float()
    return F.rms_norm(x.float(), scale.shape, scale, eps).to(x.dtype)


def gated_rms_norm(x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return ``rms_norm(x) * silu(gate)``, with ``gate`` of the shape of ``x``."""
    normed = F.rms_norm(x.float(), weight.shape, weight.float(), eps)
    return (normed * F.silu(gate.float())).to(x.dtype)


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, zero_centred: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the sum ``x + residual`` in their dtype, normalised, and the sum itself."""
    total = x + residual
    return rms_norm(total, weight, eps, zero_centred=zero_centred), total
