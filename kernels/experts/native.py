"""The experts of a layer on the compiled CPU path (``kernels/native/src/experts.h``).

A chosen expert's weights are read once, for all rows that chose it; the others are not touched.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kernels.backend import KernelError
from kernels.experts.stacks import ExpertWeight
from kernels.linear import Weight
from kernels.linear.native import Matrix, matrices
from kernels.native import Native

_I64, _PTR = ctypes.c_int64, ctypes.c_void_p
_PAIR = 2


class ExpertsStruct(ctypes.Structure):
    """``struct Experts`` of ``src/experts.h``."""

    _fields_ = (
        *((name, _I64) for name in ("count", "chosen", "hidden", "inner", "shared")),
        *((name, Matrix) for name in ("router", "shared_gate")),
        ("shared_gate_up", Matrix * _PAIR),
        ("shared_down", Matrix),
        ("gate_up", _PTR),
        ("down", _PTR),
    )


@dataclass(frozen=True, eq=False)
class NativeExperts:
    """One layer's experts as the library takes them, with the tables that it points to.

    The weights must outlive it.
    """

    struct: ExpertsStruct
    tables: tuple[object, ...] = field(repr=False)

    @classmethod
    def of(
        cls,
        chosen: int,
        router: Weight,
        gate_up: ExpertWeight,
        down: ExpertWeight,
        shared_gate: Weight,
        shared_gate_up: Weight,
        shared_down: Weight,
    ) -> NativeExperts:
        """Describe a layer. Raises ``KernelError`` where the library cannot run it."""
        count, hidden, inner = down.shape
        ups, downs = (Matrix * (_PAIR * count))(), (Matrix * count)()
        forms = set()
        for expert in range(count):
            own, (last,) = matrices(gate_up[expert]), _at_most(1, down[expert])
            for place, matrix in enumerate(own[:_PAIR]):
                ups[expert * _PAIR + place] = matrix
            downs[expert] = last
            forms.add(tuple((m.format, m.group, m.parts, *m.rows) for m in (*own, last)))
            if len(own) > _PAIR or len(forms) > 1:
                raise KernelError("the experts of a layer are not all stored in one form")
        struct = ExpertsStruct(count, chosen, hidden, inner, shared_down.shape[1])
        (struct.router,) = _at_most(1, router)
        (struct.shared_gate,) = _at_most(1, shared_gate)
        (struct.shared_down,) = _at_most(1, shared_down)
        for place, matrix in enumerate(_at_most(_PAIR, shared_gate_up)):
            struct.shared_gate_up[place] = matrix
        struct.gate_up, struct.down = ctypes.addressof(ups), ctypes.addressof(downs)
        return cls(struct, (ups, downs))

    @property
    def address(self) -> int:
        """The address of the struct, valid while this object is held."""
        return ctypes.addressof(self.struct)

    def __call__(self, library: Native, x: Tensor, *, exact_rows: bool = False) -> Tensor:
        """Run the experts on ``x [rows, hidden]``; return the same shape in float32.

        With ``exact_rows``, or up to 16 rows, the bits of a row do not depend on the others.
        """
        rows, threads = x.detach().float().contiguous(), torch.get_num_threads()
        out = torch.zeros_like(rows)
        size = library.call.tenuto_experts_scratch(self.address, len(rows), threads)
        scratch = torch.empty(size, dtype=torch.uint8)
        library.call.tenuto_experts(
            self.address,
            rows.data_ptr(),
            len(rows),
            out.data_ptr(),
            exact_rows,
            scratch.data_ptr(),
            threads,
        )
        return out


def _at_most(count: int, weight: Weight) -> list[Matrix]:
    found = matrices(weight)
    if len(found) > count:
        raise KernelError(f"the compiled path takes this projection in {count} piece(s)")
    return found
