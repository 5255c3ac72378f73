"""Keys and values in 8 bits: each head of each position has one scale, beside its codes.

A page in 8 bits is ``[..., page * (dim + 4)]`` bytes in int8 or float8: for each head first the
codes ``[page, dim]``, then the scales ``[page]`` in float32. A row is rounded once, when it is
appended; whoever copies, parks or saves a page keeps its bytes.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALE_BYTES = 4
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""The largest code of each form."""


def in_bytes(page: Tensor) -> bool:
    """Tell whether a page holds codes and scales, not plain keys and values."""
    return page.dtype in LARGEST


def quantise(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Round the rows of ``x [..., dim]`` to codes ``[..., dim]`` in ``dtype`` and float32 scales
    ``[...]``; a value is about code times scale. The largest of a row becomes the largest code.
    """
    x, most = x.float(), LARGEST[dtype]
    largest = x.abs().amax(-1)
    scaled = x * (most / largest).where(largest > 0, 0.0)[..., None]
    codes = scaled.round() if dtype == torch.int8 else scaled
    return codes.to(dtype), largest / most


def parts(page: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return views of a page in 8 bits: codes ``[..., page, dim]`` and scales ``[..., page]``."""
    count = page.shape[-1] // (dim + SCALE_BYTES)
    codes = page[..., : count * dim].view(*page.shape[:-1], count, dim)
    return codes, page[..., count * dim :].view(torch.float32)


def dequantise(codes: Tensor, scales: Tensor) -> Tensor:
    """Return code times scale in float32, ``[..., dim]``."""
    return codes.float() * scales[..., None]
