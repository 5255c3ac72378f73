"""Checkpoints as sources of tensors, whatever form each tensor is stored in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from kernels.linear import Code, Part, from_integers, join_exactly

PIECE = 1 << 22
"""Weights that are turned into floats at a time, so that little beside the result is in memory."""


@dataclass(frozen=True, eq=False)
class Coded:
    """A run of rows as integers: ``weight = codes * scale``, plus ``term`` if there is one.

    ``codes`` is int16 ``[rows, inputs]``; ``scales`` and ``term`` are float32 ``[rows, groups]``.
    """

    codes: Tensor
    scales: Tensor
    term: Tensor | None = None

    def floats(self) -> Tensor:
        """Return the weights in float32 ``[rows, inputs]``."""
        rows, inputs = self.codes.shape
        grouped = self.codes.reshape(rows, self.scales.shape[1], -1).float()
        grouped *= self.scales.unsqueeze(-1)
        if self.term is not None:
            grouped += self.term.unsqueeze(-1)
        return grouped.reshape(rows, inputs)


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """One tensor as a file holds it, and the ways to read it.

    ``form`` names the stored form for people, ``parts`` are the stored tensors themselves, mapped,
    by suffix. ``rows(first, last)`` gives rows in float32, ``coded`` gives them as integers where
    that loses nothing; ``code`` is how a quantised weight holds these, if it can. ``held`` makes
    the weight without going by integers. ``plain`` is the tensor itself where it is stored as
    floating point numbers. ``members`` are the matrices of each expert, one below the other, of a
    tensor ``[experts, outputs, inputs]`` that is stored in pieces.
    """

    name: str
    form: str
    shape: tuple[int, ...]
    parts: Mapping[str, Tensor]
    plain: Tensor | None = None
    rows: Callable[[int, int], Tensor] | None = None
    coded: Callable[[int, int], Coded] | None = None
    code: Code | None = None
    held: Callable[[], Part | None] | None = None
    members: tuple[tuple[StoredTensor, ...], ...] = ()

    @property
    def nbytes(self) -> int:
        """The number of stored bytes, scales included."""
        if self.members:
            return sum(part.nbytes for member in self.members for part in member)
        return sum(part.nbytes for part in self.parts.values())

    def read(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the tensor; a plain one as it is stored, others turned into ``dtype``."""
        if self.plain is not None:
            return self.plain
        made = torch.empty(self.shape, dtype=dtype or torch.float32)
        if self.members:
            for own, member in zip(made, self.members, strict=True):
                torch.cat([part.read(made.dtype).to(made.dtype) for part in member], out=own)
            return made
        for first, last in pieces(self.shape):
            made[first:last] = self.piece(first, last)
        return made

    def piece(self, first: int, last: int) -> Tensor:
        """Return rows in float32, of a tensor that is not plain."""
        if self.rows is not None:
            return self.rows(first, last)
        assert self.coded is not None
        return self.coded(first, last).floats()

    @property
    def is_half(self) -> bool:
        """Tell whether it is stored as float16 numbers."""
        return self.plain is not None and self.plain.dtype == torch.float16

    @property
    def native(self) -> bool:
        """Tell whether the compiled path can multiply the matrix in a form of its own."""
        return self.held is not None or self.code is not None

    def weight(self) -> Part | None:
        """Return the matrix in a form of fewer bits with exactly its values; None if there is none.

        Raises ``CheckpointError`` if the file's numbers are not usable.
        """
        made = self.held() if self.held is not None else None
        if made is not None or self.code is None or self.coded is None:
            return made
        parts = []
        for first, last in pieces(self.shape):
            run = self.coded(first, last)
            part = from_integers(run.codes, run.scales, self.code, run.term)
            if part is None:
                return None
            parts.append(part)
        return join_exactly(parts)


class TensorSource(Protocol):
    """The tensors of one checkpoint, under the names of ``weights.tensor_shapes``."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the tensors."""
        ...

    @property
    def has_mtp(self) -> bool:
        """Tell whether any tensor of the MTP layer is there."""
        ...

    def find(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        """Return one tensor. Raises ``CheckpointError`` if it is missing or cannot be read."""
        ...


class ReadTensors(Mapping[str, Tensor]):
    """Tensors that are turned into ``dtype`` each time they are asked for, and not kept."""

    def __init__(self, stored: Mapping[str, StoredTensor], dtype: torch.dtype) -> None:
        self._stored = stored
        self._dtype = dtype

    def __getitem__(self, name: str) -> Tensor:
        return self._stored[name].read(self._dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def pieces(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield runs of rows of about ``PIECE`` numbers each."""
    width = 1
    for size in shape[1:]:
        width *= size
    step = max(16, PIECE // max(1, width) // 16 * 16)
    for first in range(0, shape[0], step):
        yield first, min(shape[0], first + step)


def stored_parts(stored: Iterable[StoredTensor]) -> dict[str, Tensor]:
    """Return every stored part by a name of its own, for the fingerprint; plain ones by theirs."""
    found = {}
    for tensor in stored:
        if tensor.plain is not None:
            found[tensor.name] = tensor.plain
        else:
            found |= {f"{tensor.name} {key} {tensor.form}": p for key, p in tensor.parts.items()}
    return found
