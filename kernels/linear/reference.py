"""The linear map in plain torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """``x [..., inputs]`` times ``weight [outputs, inputs]`` transposed; there are no biases."""
    return F.linear(x, weight)
