"""The forms in which a weight matrix is held, beside a plain tensor ``[outputs, inputs]``.

Quantised weights lie in blocks of 16 outputs, the way the compiled path multiplies them: for each
four inputs in turn, four neighbours of each of the 16 outputs. An int8 weight is stored plus 128;
int4 weights plus 8, two groups of four in one run of bytes, the earlier one in the low half. Each
``group`` inputs of an output share one scale in bfloat16: weight = integer * scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.backend import KernelError
from kernels.native import native
from kernels.quantized_linear.reference import Kind, PackedWeight, pack_integers, unpack

BLOCK = 16
GROUPS = (128, 64, 32)
"""Sizes of a group that are tried in turn."""

_CLIPS = (1.0, 0.94, 0.88, 0.82, 0.76)


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """``[outputs, inputs]`` in ``bits`` 8 or 4.

    ``data`` is uint8 ``[blocks, inputs * bits / 8 * 16]``, ``scales`` bfloat16 ``[blocks, groups,
    16]``; the outputs of the last block beyond ``outputs`` are zero.
    """

    bits: int
    group: int
    outputs: int
    inputs: int
    data: Tensor
    scales: Tensor

    @property
    def shape(self) -> torch.Size:
        """The shape of the matrix, ``[outputs, inputs]``."""
        return torch.Size((self.outputs, self.inputs))

    @property
    def nbytes(self) -> int:
        """Bytes held, scales included."""
        return self.data.nbytes + self.scales.nbytes


Part = Tensor | QuantizedWeight | PackedWeight


@dataclass(frozen=True, eq=False)
class StackedWeight:
    """Several weights with the same inputs, one below the other, none of them copied."""

    parts: tuple[Part, ...]

    @property
    def shape(self) -> torch.Size:
        """The shape of the whole matrix."""
        return torch.Size((sum(p.shape[0] for p in self.parts), self.parts[0].shape[1]))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(part.nbytes for part in self.parts)


Weight = Part | StackedWeight


def stack(parts: Sequence[Part], *, copy_below: int = 1 << 20) -> Weight:
    """One weight from several: small plain ones on the CPU, and all plain ones elsewhere (also
    behind quantised ones), are copied into one."""
    if len(parts) == 1:
        return parts[0]
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if len(tensors) == len(parts):
        small = sum(part.numel() for part in tensors) < copy_below
        if small or tensors[0].device.type != "cpu":
            return torch.cat(tensors)
    first = len(parts) - len(tensors)
    behind = all(isinstance(part, Tensor) for part in parts[first:])
    if len(tensors) > 1 and behind and tensors[0].device.type != "cpu":
        parts = [*parts[:first], torch.cat(tensors)]
    return StackedWeight(tuple(parts))


def group_for(inputs: int) -> int:
    """Return the largest of ``GROUPS`` that divides ``inputs``. Raises ``KernelError``."""
    for group in GROUPS:
        if inputs % group == 0:
            return group
    raise KernelError(
        f"a matrix with {inputs} inputs cannot be quantised: no group of {GROUPS} divides it; "
        "use quantize none"
    )


def quantize(weight: Tensor, bits: int, group: int | None = None) -> QuantizedWeight:
    """Return ``weight [outputs, inputs]`` rounded to ``bits`` 8 or 4, by groups of ``group``
    inputs.

    int8 takes the largest magnitude of a group as 127. int4 takes the largest one as -8 (a scale
    may be negative), or a clipped range where that lowers the squared error. Raises
    ``KernelError`` if the group does not divide the inputs.
    """
    outputs, inputs = weight.shape
    group = group_for(inputs) if group is None else group
    if bits not in (4, 8):
        raise KernelError(f"weights of {bits} bits are not supported; use 8 or 4")
    if group % 16 or inputs % group:
        raise KernelError(
            f"groups of {group} do not divide {inputs} inputs into multiples of 16; "
            f"use one of {GROUPS} that does"
        )
    blocks = -(-outputs // BLOCK)
    data = torch.empty(blocks, inputs * BLOCK * bits // 8, dtype=torch.uint8)
    scales = torch.empty(blocks, inputs // group, BLOCK, dtype=torch.bfloat16)
    library = native()
    if library is not None and weight.dtype in (torch.bfloat16, torch.float32):
        source = weight.detach().cpu().contiguous()
        threads = torch.get_num_threads()
        scratch = torch.empty(threads, inputs)
        library.call.tenuto_quantize(
            source.data_ptr(),
            source.dtype == torch.bfloat16,
            outputs,
            inputs,
            group,
            bits,
            data.data_ptr(),
            scales.data_ptr(),
            scratch.data_ptr(),
            threads,
        )
    else:
        _quantize_reference(weight, bits, group, data, scales)
    return QuantizedWeight(bits, group, outputs, inputs, data, scales)


def from_integers(codes: Tensor, scales: Tensor, bits: int) -> QuantizedWeight | None:
    """Hold integers ``codes [outputs, inputs]`` with ``scales [outputs, groups]`` as they are.

    ``bits`` is 4 for codes from -8 to 7, or 8 for -128 to 127. Groups that are larger than the
    form's are cut. Return None where the form cannot hold the values exactly: groups that are no
    multiple of 16, or scales that are no numbers of bfloat16.
    """
    outputs, inputs = codes.shape
    given = inputs // scales.shape[1]
    group = next((g for g in (*GROUPS, BLOCK) if given % g == 0), 0)
    by = scales.to(torch.bfloat16)
    if not group or not torch.equal(by.float(), scales.float()):
        return None
    by = by.repeat_interleave(given // group, dim=1)
    blocks = -(-outputs // BLOCK)
    full = torch.zeros(blocks * BLOCK, inputs, dtype=torch.int16)
    full[:outputs] = codes
    laid = torch.zeros(blocks * BLOCK, inputs // group, dtype=torch.bfloat16)
    laid[:outputs] = by
    shaped = laid.reshape(blocks, BLOCK, -1).transpose(1, 2).contiguous()
    return QuantizedWeight(bits, group, outputs, inputs, _lay_out(full, bits), shaped)


def _lay_out(integers: Tensor, bits: int) -> Tensor:
    """Return ``integers [blocks * 16, inputs]`` as the bytes of a ``QuantizedWeight``."""
    inputs = integers.shape[1]
    # [blocks, 16, inputs / 4, 4] -> [blocks, inputs / 4, 16, 4]
    runs = integers.to(torch.int16).reshape(-1, BLOCK, inputs // 4, 4).transpose(1, 2)
    joined = runs + 128 if bits == 8 else (runs[:, 0::2] + 8) | ((runs[:, 1::2] + 8) << 4)
    return joined.to(torch.uint8).reshape(len(runs), -1)


def _quantize_reference(
    weight: Tensor, bits: int, group: int, data: Tensor, scales: Tensor
) -> None:
    outputs, inputs = weight.shape
    padded = torch.zeros(data.shape[0] * BLOCK, inputs)
    padded[:outputs] = weight.detach().float()
    grouped = padded.reshape(-1, inputs // group, group)
    top = grouped.gather(-1, grouped.abs().argmax(-1, keepdim=True))
    if bits == 8:
        scale = (top.abs() / 127).bfloat16().float()
    else:
        scale = torch.zeros_like(top)
        least = torch.full_like(top, math.inf)
        for clip in _CLIPS:
            tried = (top / -8 * clip).bfloat16().float()
            error = (grouped - _rounded(grouped, tried, bits) * tried).square().sum(-1, True)
            better = (error < least) & (tried != 0)
            scale, least = torch.where(better, tried, scale), torch.where(better, error, least)
    data.copy_(_lay_out(_rounded(grouped, scale, bits).reshape(-1, inputs), bits))
    scales.copy_(scale.reshape(-1, BLOCK, inputs // group).transpose(1, 2))


def _rounded(values: Tensor, scale: Tensor, bits: int) -> Tensor:
    by = torch.where(scale != 0, 1 / scale, torch.zeros_like(scale))
    low, high = (-127, 127) if bits == 8 else (-8, 7)
    return (values * by).round().clamp(low, high)


def _integers(weight: QuantizedWeight) -> Tensor:
    """Return the integers ``[outputs, inputs]``, those that fill the last block included; int16."""
    blocks, inputs = weight.data.shape[0], weight.inputs
    runs = weight.data.reshape(blocks, -1, BLOCK, 4).to(torch.int16)
    if weight.bits == 8:
        integers = runs - 128
    else:
        integers = torch.stack([(runs & 15) - 8, (runs >> 4) - 8], dim=2)
        integers = integers.reshape(blocks, -1, BLOCK, 4)
    return integers.transpose(1, 2).reshape(blocks * BLOCK, inputs)


def _scales(weight: QuantizedWeight) -> Tensor:
    """Return the scales ``[outputs, groups]``, in bfloat16."""
    return weight.scales.transpose(1, 2).reshape(-1, weight.inputs // weight.group)


def dequantize(weight: QuantizedWeight) -> Tensor:
    """Return the matrix ``[outputs, inputs]`` in float32."""
    rows = _integers(weight).reshape(-1, weight.inputs // weight.group, weight.group)
    scaled = rows * _scales(weight).float().unsqueeze(-1)
    return scaled.reshape(-1, weight.inputs)[: weight.outputs]


def packed(weight: QuantizedWeight, device: torch.device, *, at_once: int = 256) -> PackedWeight:
    """Return the same numbers in the layout of the device kernels, on ``device``.

    ``at_once`` blocks are turned at a time, so that little more than the result is in memory.
    """
    kind: Kind = "int4" if weight.bits == 4 else "int8"
    parts = []
    for first in range(0, weight.data.shape[0], at_once):
        data = weight.data[first : first + at_once].to(device)
        scales = weight.scales[first : first + at_once].to(device)
        outputs = min(len(data) * BLOCK, weight.outputs - first * BLOCK)
        own = QuantizedWeight(weight.bits, weight.group, outputs, weight.inputs, data, scales)
        integers, by = _integers(own)[:outputs], _scales(own)[:outputs]
        parts.append(pack_integers(integers, by, kind, weight.group))
    if len(parts) == 1:
        return parts[0]
    whole = (torch.cat([part.data for part in parts]), torch.cat([part.scales for part in parts]))
    return PackedWeight(kind, *whole, weight.group)


def plain(weight: Weight, dtype: torch.dtype) -> Tensor:
    """Any weight as one plain tensor."""
    if isinstance(weight, StackedWeight):
        return torch.cat([plain(part, dtype) for part in weight.parts])
    if isinstance(weight, QuantizedWeight):
        return dequantize(weight).to(dtype)
    if isinstance(weight, PackedWeight):
        return unpack(weight).to(dtype)
    return weight.to(dtype)
