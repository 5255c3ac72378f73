"""Matrices in ggml's block types into the general quantised form, exactly, by the compiled path.

Each type keeps its codes and its scales: two levels of scales stay two levels, so that a weight
takes 0.03 to 0.25 bits more than in the file (Q4_K 4.63 instead of 4.5, Q6_K 6.56 as there).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.linear.formats import BLOCK, Code, QuantizedWeight
from kernels.native import native

IQ4 = Code(4, table=(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113))
"""ggml's table of 4-bit codes that lie closer together near zero."""
E2M1 = Code(4, table=(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12))
"""The sixteen numbers of E2M1 times two (OCP Microscaling Formats 1.0)."""


@dataclass(frozen=True)
class _Kind:
    code: Code
    group: int
    terms: bool = False
    steps: bool = False
    dtype: torch.dtype = torch.float16


_KINDS = {
    2: _Kind(Code(4, 8), 32),
    3: _Kind(Code(4), 32, terms=True),
    6: _Kind(Code(5, 16), 32),
    7: _Kind(Code(5), 32, terms=True),
    8: _Kind(Code(8, 128), 32),
    10: _Kind(Code(4), 16, terms=True, steps=True),
    11: _Kind(Code(4, 8), 16, steps=True),
    12: _Kind(Code(4), 32, terms=True, steps=True),
    13: _Kind(Code(5), 32, terms=True, steps=True),
    14: _Kind(Code(6, 32), 16, steps=True),
    20: _Kind(IQ4, 32),
    23: _Kind(IQ4, 32, steps=True),
    39: _Kind(E2M1, 32, dtype=torch.bfloat16),
}
"""Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS and MXFP4 by their numbers."""
_BLOCK_OF_STEPS = 256


class _Repack(ctypes.Structure):
    """``struct Repack`` of ``kernels/native/src/repack.h``."""

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in ("kind", "rows", "inputs", "row_bytes", "span", "run")
        ),
        *((name, ctypes.c_void_p) for name in ("raw", "row_order", "run_order")),
        *((name, ctypes.c_void_p) for name in ("data", "scales", "tops")),
    )


def from_ggml(
    kind: int,
    raw: Tensor,
    inputs: int,
    *,
    rows: Tensor | None = None,
    runs: Tensor | None = None,
) -> QuantizedWeight | None:
    """Return a matrix stored as rows of bytes ``raw [outputs, row bytes]`` of type ``kind``.

    ``rows`` says where the file has each output, ``runs`` where it has each run of ``inputs /
    len(runs)`` inputs. Return None where the compiled path is missing or does not know the type.
    """
    form, library = _KINDS.get(kind), native()
    run = 0 if runs is None else inputs // len(runs)
    if form is None or library is None or run % form.group:
        return None
    outputs, blocks, groups = len(raw), -(-len(raw) // BLOCK), inputs // form.group
    span = 0 if not form.steps else min(_BLOCK_OF_STEPS, run or _BLOCK_OF_STEPS)
    if span and (_BLOCK_OF_STEPS % span or (run and run % span) or span & (span - 1)):
        return None
    width = BLOCK * (2 if form.terms else 1)
    data = torch.empty(blocks, inputs * 2 * form.code.bits, dtype=torch.uint8)
    dtype = torch.int8 if form.steps else form.dtype
    scales = torch.empty(blocks, groups, width, dtype=dtype)
    tops = torch.empty(blocks, inputs // span, width, dtype=torch.float16) if span else None
    raw = raw.contiguous()
    order = [None if part is None else part.to(torch.int64).contiguous() for part in (rows, runs)]
    given = _Repack(kind, outputs, inputs, raw.shape[1], span, run)
    given.raw = raw.data_ptr()
    given.row_order, given.run_order = (None if o is None else o.data_ptr() for o in order)
    given.data, given.scales = data.data_ptr(), scales.data_ptr()
    given.tops = None if tops is None else tops.data_ptr()
    threads, at = torch.get_num_threads(), ctypes.addressof(given)
    size = library.call.tenuto_repack_scratch(at, threads)
    scratch = torch.empty(size, dtype=torch.uint8)
    library.call.tenuto_repack(at, scratch.data_ptr(), threads)
    return QuantizedWeight(form.code, form.group, outputs, inputs, data, scales, tops)
