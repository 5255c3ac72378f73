"""The linear map on the compiled CPU path.

Inputs of bfloat16 weights are rounded to bfloat16, those of quantised weights to int8 by groups
(the weight's own), so that their products are sums of integers; sums over groups are float32.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.backend import KernelError
from kernels.linear.formats import Part, QuantizedWeight, StackedWeight, Weight
from kernels.native import Native

_FORMATS = {torch.float32: 0, torch.bfloat16: 1}
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
    )


def matrices(weight: Weight) -> list[Matrix]:
    """Return ``weight`` as the library takes it, without a copy: runs of plain parts share one
    matrix.

    The tensors must outlive it. Raises ``KernelError``.
    """
    if isinstance(weight, StackedWeight):
        groups: list[list[Part]] = []
        for part in weight.parts:
            joins = groups and isinstance(part, Tensor) and isinstance(groups[-1][0], Tensor)
            if joins and len(groups[-1]) < _PARTS:
                groups[-1].append(part)
            else:
                groups.append([part])
        return [_matrix(group) for group in groups]
    return [_matrix([weight])]


def _matrix(parts: Sequence[Part]) -> Matrix:
    first = parts[0]
    if isinstance(first, QuantizedWeight):
        tensors = [first.data]
        made = Matrix(2 if first.bits == 8 else 3, first.inputs, first.group, 1)
        made.rows[0] = first.outputs
        made.scales = first.scales.data_ptr()
    elif not isinstance(first, Tensor):
        raise KernelError("the compiled path takes no weights in the layouts of the device kernels")
    else:
        tensors = [part for part in parts if isinstance(part, Tensor)]
        if first.dtype not in _FORMATS or any(t.dtype != first.dtype for t in tensors):
            raise KernelError(f"the compiled path has no products in {first.dtype}; use torch")
        if first.shape[1] % 32:
            raise KernelError(f"{first.shape[1]} inputs are no multiple of 32; use torch")
        made = Matrix(_FORMATS[first.dtype], first.shape[1], 0, len(tensors))
        for index, tensor in enumerate(tensors):
            made.rows[index] = tensor.shape[0]
    for index, tensor in enumerate(tensors):
        if tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise KernelError("the compiled path takes contiguous weights on the CPU")
        made.data[index] = tensor.data_ptr()
    return made


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
