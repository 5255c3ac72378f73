"""Rows of a matrix as they lie in a GGUF file, mapped and never copied.

Only the compiled path multiplies them (``kernels/native/src/stored.h``). The layouts are ggml's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.backend import KernelError
from kernels.native import native

KINDS = {"Q8_0": (16, 64, 68, 32), "Q4_K": (17, 256, 144, 32), "Q5_K": (18, 256, 176, 32)}
KINDS |= {"Q6_K": (19, 256, 210, 16)}
"""The kinds: the library's number, weights and bytes of a unit, weights that share a scale."""


@dataclass(frozen=True, eq=False)
class StoredRows:
    """A matrix ``[outputs, inputs]`` as blocks of ``kind``, uint8 ``[outputs, bytes]``."""

    kind: str
    inputs: int
    data: Tensor

    @classmethod
    def of(cls, kind: str, inputs: int, data: Tensor) -> StoredRows | None:
        """Wrap the bytes of a matrix; return None where the compiled path cannot multiply them."""
        if kind not in KINDS or native() is None:
            return None
        _, unit, nbytes, _ = KINDS[kind]
        if inputs % unit or data.shape[-1] != inputs // unit * nbytes:
            return None
        return cls(kind, inputs, data)

    @property
    def shape(self) -> torch.Size:
        """The shape of the matrix, ``[outputs, inputs]``."""
        return torch.Size((self.data.shape[0], self.inputs))

    @property
    def nbytes(self) -> int:
        """Bytes mapped."""
        return self.data.nbytes

    def floats(self) -> Tensor:
        """Return the matrix in float32. Raises ``KernelError`` without the compiled path."""
        library = native()
        if library is None:
            raise KernelError("the compiled path is not built; run make setup")
        out = torch.empty(self.shape)
        library.call.tenuto_unpack(
            self.data.data_ptr(), KINDS[self.kind][0], len(out), self.inputs, out.data_ptr()
        )
        return out
