"""The linear map on the compiled CPU path.

Inputs of bfloat16 weights are rounded to bfloat16, those of quantised weights to int8 by groups of
32 (16 where the weight's groups have 16), so that their products are sums of integers; sums over
groups are float32. Inputs of float32, float16 and e4m3 weights stay as they are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from kernels.backend import KernelError
from kernels.fp8_linear.reference import GROUP, Fp8Weight
from kernels.linear.formats import Part, QuantizedWeight, StackedWeight, Weight
from kernels.linear.stored_rows import KINDS, StoredRows
from kernels.native import Native

_FORMATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 9}
_CODES = {8: 2, 4: 3, 5: 4, 6: 5}
_TABLE, _NARROW, _E4M3 = 6, 7, 8
_SCALES = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}
_TOPS = {torch.float16: 3, torch.bfloat16: 4}
_PARTS = 4


class Matrix(ctypes.Structure):
    """``struct Matrix`` of ``src/products.h``."""

    _fields_ = (
        ("format", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("group", ctypes.c_int64),
        ("parts", ctypes.c_int64),
        ("rows", ctypes.c_int64 * _PARTS),
        ("data", ctypes.c_void_p * _PARTS),
        ("scales", ctypes.c_void_p),
        ("tops", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
        ("scale_kind", ctypes.c_int64),
        ("terms", ctypes.c_int64),
        ("zero", ctypes.c_int64),
        ("span", ctypes.c_int64),
    )


def matrices(weight: Weight) -> list[Matrix]:
    """Return ``weight`` as the library takes it, without a copy: runs of plain parts share one
    matrix.

    The tensors must outlive it. Raises ``KernelError``.
    """
    if isinstance(weight, StackedWeight):
        groups: list[list[Part]] = []
        for part in weight.parts:
            joins = groups and _joins(groups[-1][0], part)
            if joins and len(groups[-1]) < _PARTS:
                groups[-1].append(part)
            else:
                groups.append([part])
        return [_matrix(group) for group in groups]
    return [_matrix([weight])]


def _joins(first: Part, part: Part) -> bool:
    """Tell whether two parts that lie apart may share a matrix."""
    if isinstance(first, StoredRows):
        return isinstance(part, StoredRows) and part.kind == first.kind
    if not (isinstance(first, Tensor) and isinstance(part, Tensor)):
        return False
    return first.dtype == part.dtype


def _matrix(parts: Sequence[Part]) -> Matrix:
    first = parts[0]
    if isinstance(first, StoredRows):
        return _in_file([part for part in parts if isinstance(part, StoredRows)])
    if isinstance(first, QuantizedWeight):
        return _quantized(first)
    if isinstance(first, Fp8Weight):
        return _e4m3(first)
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if first.dtype not in _FORMATS or any(t.dtype != first.dtype for t in tensors):
        raise KernelError(f"the compiled path has no products in {first.dtype}; use torch")
    made = Matrix(_FORMATS[first.dtype], _inputs(first), 0, len(tensors))
    for index, tensor in enumerate(tensors):
        made.rows[index] = tensor.shape[0]
        made.data[index] = _address(tensor)
    return made


def _in_file(parts: Sequence[StoredRows]) -> Matrix:
    form, _, _, group = KINDS[parts[0].kind]
    made = Matrix(form, _inputs(parts[0]), group, len(parts))
    for index, part in enumerate(parts):
        made.rows[index], made.data[index] = part.shape[0], _address(part.data)
    return made


def _quantized(weight: QuantizedWeight) -> Matrix:
    table = weight.code.table
    made = Matrix(_CODES[weight.bits], _inputs(weight), weight.group, 1)
    made.rows[0], made.data[0] = weight.outputs, _address(weight.data)
    made.scales = _address(weight.scales)
    made.terms, made.zero = weight.has_terms, weight.code.zero
    if weight.tops is None:
        made.scale_kind = _SCALES[weight.scales.dtype]
    else:
        made.scale_kind, made.tops = _TOPS[weight.tops.dtype], _address(weight.tops)
        made.span = weight.inputs // weight.tops.shape[1]
    if table is not None:
        # Entries that are unsigned numbers of 6 bits once shifted are multiplied faster.
        least = min(table)
        narrow = max(table) - least < 64
        made.format, made.zero = (_NARROW, -least) if narrow else (_TABLE, 0)
        shifted = tuple(value - least for value in table) if narrow else table
        made.table = ctypes.addressof(_table(shifted))
    return made


@cache
def _table(values: tuple[int, ...]) -> ctypes.Array[ctypes.c_int8]:
    """Return a table as the library reads it; kept for good, since there are only a few."""
    return (ctypes.c_int8 * 16)(*values)


def _e4m3(weight: Fp8Weight) -> Matrix:
    if weight.scales.dtype != torch.float32:
        raise KernelError("the compiled path takes e4m3 numbers with scales in float32 alone")
    made = Matrix(_E4M3, _inputs(weight), GROUP, 1)
    made.rows[0], made.data[0] = weight.outputs, _address(weight.data)
    made.scales = _address(weight.scales)
    made.span = 1 if weight.by_rows else GROUP
    return made


def _inputs(weight: Part) -> int:
    inputs = weight.shape[1]
    if inputs % 32:
        raise KernelError(f"{inputs} inputs are no multiple of 32; use torch")
    return inputs


def _address(tensor: Tensor) -> int:
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise KernelError("the compiled path takes contiguous weights on the CPU")
    return tensor.data_ptr()


def linear(library: Native, x: Tensor, weight: Weight, *, exact_rows: bool = False) -> Tensor:
    """Multiply ``x [..., inputs]`` by ``weight``, in float32 whatever ``x`` is.

    With ``exact_rows``, or up to 16 rows, the bits of a row do not depend on the others.
    """
    rows = x.detach().reshape(-1, x.shape[-1]).float().contiguous()
    threads = torch.get_num_threads()
    outputs = []
    for matrix in matrices(weight):
        size = library.call.tenuto_product_scratch(ctypes.addressof(matrix), len(rows), threads)
        scratch = torch.empty(size, dtype=torch.uint8)
        out = torch.empty(len(rows), sum(matrix.rows))
        library.call.tenuto_product(
            ctypes.addressof(matrix),
            rows.data_ptr(),
            len(rows),
            out.data_ptr(),
            exact_rows,
            scratch.data_ptr(),
            threads,
        )
        outputs.append(out)
    joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
    return joined.reshape(*x.shape[:-1], -1)
