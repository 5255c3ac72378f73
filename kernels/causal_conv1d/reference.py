"""Depthwise causal convolution with SiLU in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_conv1d(x: Tensor, weight: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return ``silu`` of each channel's weighted sum of its last ``width`` inputs.

    Args:
        x: ``[batch, time, channels]``.
        weight: ``[width, channels]``; the last row weighs the current input.
        state: ``[batch, width - 1, channels]``, the inputs before ``x``, or None for zeros.

    Returns:
        The output, shaped and typed like ``x`` (computed in float32), and the state after ``x``:
        its last ``width - 1`` inputs, unchanged in dtype. No input is changed.
    """
    width, time = weight.shape[0], x.shape[1]
    if state is None:
        state = x.new_zeros(x.shape[0], width - 1, x.shape[2])
    window = torch.cat([state, x], dim=1)
    wide, weight = window.float(), weight.float()
    # A sum of shifted products: one token and many are added in the same order.
    out = wide[:, :time] * weight[0]
    for i in range(1, width):
        out = torch.addcmul(out, wide[:, i : i + time], weight[i])
    # Copied, since a view would keep the whole window alive in the state.
    return F.silu(out).to(x.dtype), window[:, time:].clone()
