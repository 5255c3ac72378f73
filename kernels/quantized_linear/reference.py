"""Weights in 4 or 8 bits with the layouts that the device kernels read, and their product.

Groups of 128 inputs of one output (or 64 or 32) share a scale in int4 and int8, symmetric; blocks
of 128 outputs by 128 inputs do in fp8 (e4m3), as in the block-scaled checkpoints. Activations stay
as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kernels.backend import KernelError

Kind = Literal["int4", "int8", "fp8"]

GROUP = 128
GROUPS = (128, 64, 32)
"""Sizes of a group that the kernels take."""
_FP8_MOST = 448.0


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A matrix ``[outputs, inputs]``.

    ``data`` is ``[outputs, inputs]``: int8, or the bits of e4m3 numbers as uint8. For int4 it is
    uint8 ``[outputs, inputs / 2]``: byte ``j`` of a group's 64 holds input ``j`` in its low half
    and input ``64 + j`` in its high half, each plus 8 (of smaller groups, the same by halves).
    ``scales`` are ``[outputs, inputs / group]``, for fp8 ``[outputs / 128, inputs / 128]`` rounded
    up, where ``group`` is always 128, or ``[outputs, inputs / 128]`` (on the CPU only).
    """

    kind: Kind
    data: Tensor
    scales: Tensor
    group: int = GROUP

    @property
    def shape(self) -> torch.Size:
        """The shape of the matrix, ``[outputs, inputs]``."""
        return torch.Size((self.outputs, self.inputs))

    @property
    def outputs(self) -> int:
        """Rows of the matrix."""
        return self.data.shape[0]

    @property
    def inputs(self) -> int:
        """Columns of the matrix."""
        return self.data.shape[1] * (2 if self.kind == "int4" else 1)

    @property
    def by_rows(self) -> bool:
        """Tell whether each output has scales of its own."""
        return self.kind != "fp8" or len(self.scales) != -(-self.outputs // GROUP)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.data.nbytes + self.scales.nbytes


def pack_integers(integers: Tensor, scales: Tensor, kind: Kind, group: int = GROUP) -> PackedWeight:
    """From ``integers [outputs, inputs]`` (-8 to 7, or -128 to 127) and ``scales [outputs,
    groups]``, where ``groups`` may be fewer than ``inputs / group`` if it divides that; ``group``
    is 128, 64 or 32."""
    outputs, inputs = integers.shape
    if group not in GROUPS or inputs % group:
        raise KernelError(
            f"quantized_linear: groups of {group} do not divide {inputs} inputs; keep this weight"
            " in bfloat16"
        )
    groups = inputs // group
    if groups % scales.shape[1]:
        raise KernelError(
            f"quantized_linear: {scales.shape[1]} scales do not spread over {groups} groups of"
            f" {group}; keep this weight in bfloat16"
        )
    scales = scales.repeat_interleave(groups // scales.shape[1], dim=1).contiguous()
    if kind == "int8":
        return PackedWeight(kind, integers.to(torch.int8).contiguous(), scales, group)
    low, high = (integers.to(torch.int16) + 8).reshape(outputs, groups, 2, group // 2).unbind(2)
    data = (low | high << 4).to(torch.uint8).reshape(outputs, -1)
    return PackedWeight(kind, data, scales, group)


def pack(weight: Tensor, kind: Kind, group: int = GROUP) -> PackedWeight:
    """Return ``weight [outputs, inputs]`` rounded to nearest, scaled so that the largest magnitude
    of each ``group`` of inputs, or of each block of fp8, is the largest number of its kind.
    """
    outputs, inputs = weight.shape
    if inputs % group or (kind == "fp8" and inputs % GROUP):
        return pack_integers(weight, weight[:, :1], "int8")  # raises
    if kind == "fp8":
        rows = -(-outputs // GROUP)
        padded = weight.new_zeros(rows * GROUP, inputs, dtype=torch.float32)
        padded[:outputs] = weight
        blocks = padded.reshape(rows, GROUP, -1, GROUP)
        scales = blocks.abs().amax((1, 3)).clamp(min=1e-12) / _FP8_MOST
        scaled = (blocks / scales[:, None, :, None]).to(torch.float8_e4m3fn)
        data = scaled.reshape(-1, inputs)[:outputs].contiguous().view(torch.uint8)
        return PackedWeight(kind, data, scales)
    most = 7 if kind == "int4" else 127
    grouped = weight.float().reshape(outputs, -1, group)
    scales = (grouped.abs().amax(2).clamp(min=1e-12) / most).bfloat16()
    integers = (grouped / scales.float()[..., None]).round().clamp(-most - 1, most)
    return pack_integers(integers.reshape(outputs, inputs).to(torch.int16), scales, kind, group)


def unpack(weight: PackedWeight) -> Tensor:
    """Return the matrix ``[outputs, inputs]`` in float32."""
    outputs, groups = weight.outputs, weight.inputs // weight.group
    scales = weight.scales.float()
    if weight.kind == "fp8":
        numbers = weight.data.view(torch.float8_e4m3fn).float()
        scales = scales.repeat_interleave(1 if weight.by_rows else GROUP, dim=0)[:outputs]
    elif weight.kind == "int8":
        numbers = weight.data.float()
    else:
        halves = weight.data.reshape(outputs, groups, 1, weight.group // 2).to(torch.int16)
        numbers = (torch.cat([halves & 15, halves >> 4], dim=2) - 8).float()
    numbers = numbers.reshape(outputs, groups, weight.group)
    return (numbers * scales[..., None]).reshape(outputs, weight.inputs)


def quantized_linear(x: Tensor, weight: PackedWeight) -> Tensor:
    """Multiply ``x [..., inputs]`` by the weight transposed; sum in float32, return ``x.dtype``."""
    return (x.float() @ unpack(weight).T).to(x.dtype)
