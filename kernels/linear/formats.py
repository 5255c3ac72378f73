"""The forms in which a weight matrix is held, beside a plain tensor ``[outputs, inputs]``.

One general form holds nearly every quantisation there is: codes of 4, 5, 6 or 8 bits that stand for
integers, and for each group of inputs of an output a scale and sometimes an additive term. It lies
in blocks of 16 outputs, the way the compiled path multiplies it (``kernels/native/src/prepare.h``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.backend import KernelError
from kernels.fp8_linear.reference import Fp8Weight
from kernels.linear.stored_rows import StoredRows

BLOCK = 16
SIZES = (16, 32, 64, 128)
"""Inputs that may share a scale."""


@dataclass(frozen=True)
class Code:
    """A way in which a code of ``bits`` stands for an integer: ``code - zero`` or ``table[code]``.

    A table has 16 integers from -128 to 127. Codes of 5 bits need groups of 32 inputs or more.
    """

    bits: int
    zero: int = 0
    table: tuple[int, ...] | None = None

    def integers(self, codes: Tensor) -> Tensor:
        """Return the integers of codes, int16."""
        if self.table is not None:
            table = torch.tensor(self.table, dtype=torch.int16, device=codes.device)
            return table[codes.int()]
        return codes.to(torch.int16) - self.zero

    def codes(self, integers: Tensor) -> Tensor:
        """Return the codes of integers, uint8. Raises ``KernelError`` if one has none."""
        if self.table is None:
            found = integers.to(torch.int16) + self.zero
            if bool(((found < 0) | (found >= 1 << self.bits)).any()):
                raise KernelError(f"a code of {self.bits} bits cannot hold these integers")
            return found.to(torch.uint8)
        place = torch.full((256,), 255, dtype=torch.uint8)
        for code, value in reversed(list(enumerate(self.table))):
            place[value + 128] = code
        found = place[integers.int() + 128]
        if bool((found == 255).any()):
            raise KernelError("the table lacks one of these integers")
        return found


INT4, INT8 = Code(4, 8), Code(8, 128)


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A matrix ``[outputs, inputs]``: weight = integer * scale, plus a term where there are terms.

    ``data`` is uint8 ``[blocks, inputs * bits / 8 * 16]``: for each four inputs, four neighbours of
    each of 16 outputs; in 4 bits two such words share their bytes, the earlier one in the low
    halves; in 6 (5) bits four (eight) words lie as in 4, then their upper bits, first word lowest.
    ``scales`` is ``[blocks, groups, 16]``, or ``[blocks, groups, 32]`` with the terms behind them,
    in bfloat16, float16 or float32; or int8, and then the numbers are those times the float16 or
    bfloat16 ``tops`` of the same form, ``[blocks, spans, 16 or 32]``. Outputs that fill the last
    block have scales and terms of zero.
    """

    code: Code
    group: int
    outputs: int
    inputs: int
    data: Tensor
    scales: Tensor
    tops: Tensor | None = None

    @property
    def bits(self) -> int:
        """The bits of a code."""
        return self.code.bits

    @property
    def has_terms(self) -> bool:
        """Tell whether groups have additive terms."""
        return self.scales.shape[-1] == 2 * BLOCK

    @property
    def shape(self) -> torch.Size:
        """The shape of the matrix, ``[outputs, inputs]``."""
        return torch.Size((self.outputs, self.inputs))

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The tensors held."""
        return (
            (self.data, self.scales) if self.tops is None else (self.data, self.scales, self.tops)
        )

    def to(self, device: torch.device) -> QuantizedWeight:
        """Return the same weight on ``device``."""
        tops = None if self.tops is None else self.tops.to(device)
        return replace(self, data=self.data.to(device), scales=self.scales.to(device), tops=tops)

    @property
    def nbytes(self) -> int:
        """Bytes held, scales included."""
        return sum(part.nbytes for part in self.parts)

    def rows(self, first: int, last: int) -> QuantizedWeight:
        """Return outputs ``first`` to ``last`` as a weight of its own, without a copy.

        ``first`` is a multiple of 16: so a stack of matrices ``[n, outputs, inputs]`` held as one
        of ``n * outputs`` outputs gives each of them. Raises ``KernelError``.
        """
        if first % BLOCK or not 0 <= first < last <= self.outputs:
            raise KernelError(f"rows {first} to {last} do not begin with one of {BLOCK} outputs")
        run = slice(first // BLOCK, -(-last // BLOCK))
        tops = None if self.tops is None else self.tops[run]
        held = (self.data[run], self.scales[run], tops)
        return QuantizedWeight(self.code, self.group, last - first, self.inputs, *held)

    def same_form(self, other: QuantizedWeight) -> bool:
        """Tell whether both could be parts of one weight."""
        return (
            (self.code, self.group, self.inputs) == (other.code, other.group, other.inputs)
            and (self.scales.dtype, self.scales.shape[1:])
            == (other.scales.dtype, other.scales.shape[1:])
            and (None if self.tops is None else self.tops.shape[1:])
            == (None if other.tops is None else other.tops.shape[1:])
        )


Part = Tensor | QuantizedWeight | Fp8Weight | StoredRows


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


def join(parts: Sequence[QuantizedWeight]) -> list[QuantizedWeight]:
    """Copy neighbours of the same form into one, where all but the last fill their blocks."""
    runs: list[list[QuantizedWeight]] = []
    for part in parts:
        last = runs[-1][-1] if runs else None
        if last is not None and last.outputs % BLOCK == 0 and last.same_form(part):
            runs[-1].append(part)
        else:
            runs.append([part])
    return [_joined(run) for run in runs]


def join_exactly(parts: Sequence[QuantizedWeight]) -> QuantizedWeight:
    """Copy parts of one matrix into one, with float32 scales where theirs are of several dtypes."""
    if len({part.scales.dtype for part in parts}) > 1:
        parts = [replace(part, scales=part.scales.float()) for part in parts]
    return _joined(list(parts))


def _joined(run: list[QuantizedWeight]) -> QuantizedWeight:
    if len(run) == 1:
        return run[0]
    first, outputs = run[0], sum(part.outputs for part in run)
    held = [torch.cat(each) for each in zip(*(part.parts for part in run), strict=True)]
    return QuantizedWeight(first.code, first.group, outputs, first.inputs, *held)
