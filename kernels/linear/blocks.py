"""Codes, scales and terms of a matrix into the blocks of ``QuantizedWeight``, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.backend import KernelError
from kernels.fp8_linear.reference import Fp8Weight
from kernels.linear.formats import (
    BLOCK,
    INT8,
    SIZES,
    Code,
    QuantizedWeight,
    StackedWeight,
    Weight,
)
from kernels.linear.stored_rows import StoredRows
from kernels.native import native

_WORDS = {8: 1, 4: 2, 6: 4, 5: 8}
"""Words of four inputs that are stored together, by the bits of a code."""


def from_codes(
    code: Code,
    codes: Tensor,
    scales: Tensor,
    terms: Tensor | None = None,
    tops: Tensor | None = None,
    term_tops: Tensor | None = None,
) -> QuantizedWeight:
    """Hold ``codes [outputs, inputs]`` with ``scales [outputs, groups]`` as they are.

    ``terms`` are like ``scales``. If both are int8, ``tops`` and ``term_tops [outputs, spans]`` in
    float16 are what they are multiplied with. Groups larger than the form's are cut. Raises
    ``KernelError`` where the form has no such groups.
    """
    outputs, inputs = codes.shape
    given = inputs // scales.shape[1]
    group = next((g for g in reversed(SIZES) if given % g == 0), 0)
    if not group or inputs % given or (code.bits == 5 and group < 32):
        raise KernelError(f"{scales.shape[1]} groups of {inputs} inputs cannot be held in blocks")

    def laid(numbers: Tensor, more: Tensor | None, width: int) -> Tensor:
        both = [numbers] if more is None else [numbers, more]
        spread = [part.repeat_interleave(width // part.shape[1], dim=1) for part in both]
        full = [_filled(part).reshape(-1, BLOCK, width).transpose(1, 2) for part in spread]
        return torch.cat(full, dim=2).contiguous()

    top = None if tops is None else laid(tops, term_tops, tops.shape[1])
    by = laid(scales, terms, inputs // group)
    data = lay_out(_filled(codes), code.bits)
    return QuantizedWeight(code, group, outputs, inputs, data, by, top)


def from_integers(
    integers: Tensor, scales: Tensor, code: Code = INT8, term: Tensor | None = None
) -> QuantizedWeight | None:
    """Hold ``integers [outputs, inputs]`` with float32 ``scales`` (and ``term [outputs, groups]``).

    The numbers are kept in bfloat16 or float16 if that loses nothing, else in float32. Return None
    where the form cannot hold them: groups that are no multiple of 16.
    """
    numbers = scales if term is None else torch.cat([scales, term])
    kept = next((d for d in (torch.bfloat16, torch.float16) if _fits(numbers, d)), torch.float32)
    by, more = scales.to(kept), None if term is None else term.to(kept)
    try:
        return from_codes(code, code.codes(integers), by, more)
    except KernelError:
        return None


def _fits(numbers: Tensor, dtype: torch.dtype) -> bool:
    return torch.equal(numbers.to(dtype).float(), numbers.float())


def _filled(tensor: Tensor) -> Tensor:
    """Return ``tensor`` with rows of zeros up to a whole block."""
    missing = -len(tensor) % BLOCK
    if not missing:
        return tensor
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])])


def lay_out(codes: Tensor, bits: int) -> Tensor:
    """Return ``codes [blocks * 16, inputs]``, uint8, as the bytes of a ``QuantizedWeight``."""
    library = native()
    if library is None:
        return lay_out_reference(codes, bits)
    codes, (rows, inputs) = codes.contiguous(), codes.shape
    data = torch.empty(rows // BLOCK, inputs * 2 * bits, dtype=torch.uint8)
    threads = torch.get_num_threads()
    given = (codes.data_ptr(), rows // BLOCK, inputs, bits, data.data_ptr(), threads)
    library.call.tenuto_lay_out(*given)
    return data


def lay_out_reference(codes: Tensor, bits: int) -> Tensor:
    """Return ``lay_out`` of the same codes, in torch."""
    blocks, inputs = len(codes) // BLOCK, codes.shape[1]
    words, count = _WORDS[bits], inputs // 4
    # [blocks, 16, inputs / 4, 4] -> [blocks, units, words, 64]
    runs = codes.reshape(blocks, BLOCK, count, 4).transpose(1, 2)
    runs = runs.reshape(blocks, count // words, words, BLOCK * 4)
    if bits == 8:
        return runs.reshape(blocks, -1)
    low = (runs[:, :, 0::2] & 15) | ((runs[:, :, 1::2] & 15) << 4)
    if bits == 4:
        return low.reshape(blocks, -1)
    width = bits - 4
    high = runs[:, :, 0] >> 4
    for t in range(1, words):
        high = high | ((runs[:, :, t] >> 4) << (width * t))
    return torch.cat([low, high.unsqueeze(2)], dim=2).reshape(blocks, -1)


def codes_of(weight: QuantizedWeight) -> Tensor:
    """Return the codes ``[outputs, inputs]``, those that fill the last block included; uint8."""
    runs = _runs(weight.data, weight.bits, BLOCK)
    runs = runs.reshape(len(weight.data), weight.inputs // 4, BLOCK, 4)
    return runs.transpose(1, 2).reshape(-1, weight.inputs)


def _runs(data: Tensor, bits: int, outputs: int) -> Tensor:
    """Return the codes of ``data [blocks, bytes]`` word by word, ``[blocks, units, words, bytes]``,
    where a word has four codes of each of ``outputs``.
    """
    words = _WORDS[bits]
    lines = data.reshape(len(data), -1, words * bits // 8, outputs * 4)
    if bits == 8:
        return lines
    low = lines[:, :, : words // 2]
    runs = torch.stack([low & 15, low >> 4], dim=3).flatten(2, 3)
    if bits == 4:
        return runs
    width = bits - 4
    upper = [(lines[:, :, -1] >> (width * t)) & ((1 << width) - 1) for t in range(words)]
    return runs | (torch.stack(upper, dim=2) << 4)


def _scales(weight: QuantizedWeight) -> tuple[Tensor, Tensor | None]:
    """Return the scales and the terms ``[outputs, groups]`` in float32."""
    numbers = _exact(weight.scales, weight.tops)
    both = numbers.transpose(1, 2).reshape(len(numbers), -1, BLOCK, numbers.shape[1])
    scales, *terms = both.transpose(0, 1).flatten(1, 2)
    return scales, terms[0] if terms else None


def _exact(scales: Tensor, tops: Tensor | None) -> Tensor:
    """Return scales ``[n, groups, ...]`` times their tops ``[n, spans, ...]``, in float32."""
    if tops is None:
        return scales.float()
    return scales.float() * tops.float().repeat_interleave(scales.shape[1] // tops.shape[1], dim=1)


def dequantize(weight: QuantizedWeight) -> Tensor:
    """Return the matrix ``[outputs, inputs]`` in float32."""
    return _weights(weight, codes_of(weight), *_scales(weight))[: weight.outputs]


def rows_at(weight: QuantizedWeight, ids: Tensor) -> Tensor:
    """Return the rows ``ids [n]`` of the matrix in float32, ``[n, inputs]``."""
    block, lane = ids // BLOCK, ids % BLOCK
    lines = weight.data.reshape(len(weight.data), -1, BLOCK, 4)
    every = torch.arange(lines.shape[1])
    own = lines[block[:, None], every[None, :], lane[:, None]].reshape(len(ids), -1)
    codes = _runs(own, weight.bits, 1).reshape(len(ids), weight.inputs)
    numbers = _exact(weight.scales[block], None if weight.tops is None else weight.tops[block])
    kinds = numbers.reshape(len(ids), numbers.shape[1], -1, BLOCK)
    scales, *terms = kinds[torch.arange(len(ids)), :, :, lane].unbind(2)
    return _weights(weight, codes, scales, terms[0] if terms else None)


def _weights(
    weight: QuantizedWeight, codes: Tensor, scales: Tensor, terms: Tensor | None
) -> Tensor:
    rows = weight.code.integers(codes).float()
    rows = rows.reshape(len(scales), -1, weight.group) * scales.unsqueeze(-1)
    if terms is not None:
        rows = rows + terms.unsqueeze(-1)
    return rows.reshape(-1, weight.inputs)


def plain(weight: Weight, dtype: torch.dtype) -> Tensor:
    """Any weight as one plain tensor."""
    if isinstance(weight, StackedWeight):
        return torch.cat([plain(part, dtype) for part in weight.parts])
    if isinstance(weight, QuantizedWeight):
        return dequantize(weight).to(dtype)
    if isinstance(weight, Fp8Weight):
        return weight.floats().to(dtype)
    if isinstance(weight, StoredRows):
        return weight.floats().to(dtype)
    return weight.to(dtype)
