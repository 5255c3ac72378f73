"""Rounding of weights to 8 bits by groups, or to 4 bits through a table.

The 4-bit form has 16 levels that lie closer together near zero, as quantiles of a normal
distribution do (NF4: QLoRA, Dettmers et al. 2023; ggml's IQ4), and a scale for 16 weights. The
levels were found by Lloyd's iteration on normal weights under scales fitted by least squares.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.backend import KernelError
from kernels.linear.blocks import from_codes
from kernels.linear.formats import BLOCK, INT8, SIZES, Code, QuantizedWeight
from kernels.native import native

GROUPS = (128, 64, 32)
"""Sizes of a group of int8 that are tried in turn."""
LEVELS = Code(4, table=(-34, -27, -22, -17, -13, -9, -6, -3, 0, 3, 6, 10, 14, 18, 23, 29))
"""The levels of int4. They span 63, so that products of pairs fit 16 bits (``src/codes.h``)."""
SPANS = (512, 256, 128, 64, 32, 16)
"""Weights of a row that share a top, tried in turn: 4.53 bits a weight with the first."""
_RANGES = (1.05, 0.98, 0.91, 0.84, 0.77)


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
    """Return ``weight [outputs, inputs]`` rounded to ``bits`` 8 or 4.

    int8 takes the largest magnitude of a ``group`` as 127. int4 has groups of 16 weights, whose
    scale is the best by least squares over both ends and clipped ranges of the levels. Raises
    ``KernelError`` if the groups do not divide the inputs.
    """
    outputs, inputs = weight.shape
    group = (group_for(inputs) if bits == 8 else BLOCK) if group is None else group
    if bits not in (4, 8):
        raise KernelError(f"weights of {bits} bits are not supported; use 8 or 4")
    if group not in SIZES or inputs % group or (bits == 4 and group != BLOCK):
        raise KernelError(f"groups of {group} do not divide {inputs} inputs; use one of {GROUPS}")
    if native() is None or weight.dtype not in (torch.bfloat16, torch.float32):
        return quantize_reference(weight, bits, group)
    blocks, source = -(-outputs // BLOCK), weight.detach().cpu().contiguous()
    data = torch.empty(blocks, inputs * BLOCK * bits // 8, dtype=torch.uint8)
    if bits == 4:
        return _by_table(source, data)
    scales = torch.empty(blocks, inputs // group, BLOCK, dtype=torch.bfloat16)
    threads = torch.get_num_threads()
    scratch = torch.empty(threads, inputs)
    library = native()
    assert library is not None
    library.call.tenuto_quantize(
        source.data_ptr(),
        source.dtype == torch.bfloat16,
        outputs,
        inputs,
        group,
        data.data_ptr(),
        scales.data_ptr(),
        scratch.data_ptr(),
        threads,
    )
    return QuantizedWeight(INT8, group, outputs, inputs, data, scales)


def span_for(inputs: int) -> int:
    """Return the largest of ``SPANS`` that divides ``inputs``. Raises ``KernelError``."""
    found = next((span for span in SPANS if inputs % span == 0), 0)
    if not found:
        raise KernelError(
            f"a matrix with {inputs} inputs cannot be quantised: groups of {BLOCK} do not divide"
            " it; use quantize none"
        )
    return found


def _by_table(source: Tensor, data: Tensor) -> QuantizedWeight:
    """Round by the compiled path; ``data`` has room for the codes."""
    (outputs, inputs), library, span = source.shape, native(), span_for(source.shape[1])
    assert library is not None and LEVELS.table is not None
    steps = torch.empty(len(data), inputs // BLOCK, BLOCK, dtype=torch.int8)
    tops = torch.empty(len(data), inputs // span, BLOCK, dtype=torch.bfloat16)
    threads, table = torch.get_num_threads(), torch.tensor(LEVELS.table, dtype=torch.int8)
    scratch = torch.empty(threads * inputs * 22, dtype=torch.uint8)
    library.call.tenuto_quantize_table(
        source.data_ptr(),
        source.dtype == torch.bfloat16,
        outputs,
        inputs,
        span,
        table.data_ptr(),
        data.data_ptr(),
        steps.data_ptr(),
        tops.data_ptr(),
        scratch.data_ptr(),
        threads,
    )
    return QuantizedWeight(LEVELS, BLOCK, outputs, inputs, data, steps, tops)


def quantize_reference(weight: Tensor, bits: int, group: int) -> QuantizedWeight:
    """Return ``quantize`` in torch, its definition."""
    outputs, inputs = weight.shape
    grouped = weight.detach().float().reshape(outputs, inputs // group, group)
    if bits == 8:
        scales = (grouped.abs().amax(-1) / 127).bfloat16()
        by = scales.float().unsqueeze(-1)
        up = torch.where(by != 0, 1 / by, torch.zeros_like(by))
        codes = (grouped * up).round().clamp(-127, 127) + 128
        return from_codes(INT8, codes.to(torch.uint8).reshape(outputs, inputs), scales)
    assert LEVELS.table is not None
    table, span = torch.tensor(LEVELS.table).float(), span_for(inputs)
    spans = _best_scales(grouped, table).reshape(outputs, inputs // span, span // group)
    most = spans.abs().amax(-1) / 127
    tops = most.bfloat16()
    above = (tops.view(torch.int16) + 1).view(torch.bfloat16)
    tops = torch.where(tops.float() < most, above, tops)
    by = tops.float().unsqueeze(-1)
    steps = torch.where(by > 0, spans / by, torch.zeros_like(spans)).round().clamp(-127, 127)
    scale = (steps * by).reshape(outputs, -1, 1)
    codes = _nearest(grouped, scale, table).to(torch.uint8)
    held = steps.to(torch.int8).reshape(outputs, -1)
    return from_codes(LEVELS, codes.reshape(outputs, inputs), held, tops=tops)


def _best_scales(grouped: Tensor, table: Tensor) -> Tensor:
    """Return the scale ``[outputs, groups]`` with the least squared error of each group."""
    top = grouped.gather(-1, grouped.abs().argmax(-1, keepdim=True))
    best, least = torch.zeros_like(top), torch.full_like(top, torch.inf)
    for end in (table[0], table[-1]):
        for reach in _RANGES:
            q = table[_nearest(grouped, top / end * reach, table)]
            square = (q * q).sum(-1, keepdim=True)
            scale = (q * grouped).sum(-1, keepdim=True) / square.clamp(min=1e-30)
            error = (grouped - q * scale).square().sum(-1, keepdim=True)
            better = (error < least) & (top != 0)
            best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best.squeeze(-1)


def _nearest(grouped: Tensor, scale: Tensor, table: Tensor) -> Tensor:
    """Return the codes of the levels nearest to ``grouped / scale``."""
    up = torch.where(scale != 0, 1 / scale, torch.zeros_like(scale))
    return torch.bucketize(grouped * up, (table[1:] + table[:-1]) / 2)
