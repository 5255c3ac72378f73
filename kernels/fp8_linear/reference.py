"""Weights of e4m3 numbers with a scale for each block, as block-scaled checkpoints store them.

Activations stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.backend import KernelError

GROUP = 128
"""Inputs, and outputs, that share a scale."""
_MOST = 448.0


@dataclass(frozen=True, eq=False)
class Fp8Weight:
    """A matrix ``[outputs, inputs]``: the bits of e4m3 numbers as uint8, times their scales.

    ``scales`` are ``[outputs / 128, inputs / 128]`` rounded up, or ``[outputs, inputs / 128]``.
    """

    data: Tensor
    scales: Tensor

    @property
    def shape(self) -> torch.Size:
        """The shape of the matrix, ``[outputs, inputs]``."""
        return self.data.shape

    @property
    def outputs(self) -> int:
        """Rows of the matrix."""
        return self.data.shape[0]

    @property
    def inputs(self) -> int:
        """Columns of the matrix."""
        return self.data.shape[1]

    @property
    def by_rows(self) -> bool:
        """Tell whether each output has scales of its own."""
        return len(self.scales) != -(-self.outputs // GROUP)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.data.nbytes + self.scales.nbytes

    def to(self, device: torch.device) -> Fp8Weight:
        """Return the same weight on ``device``."""
        return Fp8Weight(self.data.to(device), self.scales.to(device))

    def floats(self) -> Tensor:
        """Return the matrix in float32."""
        scales = self.scales.float().repeat_interleave(1 if self.by_rows else GROUP, dim=0)
        numbers = self.data.view(torch.float8_e4m3fn).float()
        grouped = numbers.reshape(self.outputs, -1, GROUP) * scales[: self.outputs, :, None]
        return grouped.reshape(self.shape)


def round_to_fp8(weight: Tensor) -> Fp8Weight:
    """Return ``weight [outputs, inputs]`` rounded to nearest, scaled so that the largest magnitude
    of each block is the largest number of e4m3. Raises ``KernelError``.
    """
    outputs, inputs = weight.shape
    if inputs % GROUP:
        raise KernelError(f"fp8_linear: blocks of {GROUP} do not divide {inputs} inputs")
    rows = -(-outputs // GROUP)
    padded = weight.new_zeros(rows * GROUP, inputs, dtype=torch.float32)
    padded[:outputs] = weight
    blocks = padded.reshape(rows, GROUP, -1, GROUP)
    scales = blocks.abs().amax((1, 3)).clamp(min=1e-12) / _MOST
    scaled = (blocks / scales[:, None, :, None]).to(torch.float8_e4m3fn)
    data = scaled.reshape(-1, inputs)[:outputs].contiguous().view(torch.uint8)
    return Fp8Weight(data, scales)


def fp8_linear(x: Tensor, weight: Fp8Weight) -> Tensor:
    """Multiply ``x [..., inputs]`` by the weight transposed; sum in float32, return ``x.dtype``."""
    return (x.float() @ weight.floats().T).to(x.dtype)
