"""Rows of a table by ids, from a plain tensor or from a quantised weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.linear.blocks import rows_at
from kernels.linear.formats import QuantizedWeight


@dataclass(frozen=True, eq=False)
class QuantizedTable:
    """A table ``[rows, width]`` whose rows are turned into ``dtype`` as they are looked up."""

    weight: QuantizedWeight
    dtype: torch.dtype

    @property
    def device(self) -> torch.device:
        """The device that holds it."""
        return self.weight.data.device

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.weight.nbytes


Table = Tensor | QuantizedTable


def embed(ids: Tensor, table: Table) -> Tensor:
    """Return the rows ``[..., width]`` of ``ids [...]``."""
    if isinstance(table, Tensor):
        return F.embedding(ids, table)
    found = rows_at(table.weight, ids.reshape(-1)).to(table.dtype)
    return found.reshape(*ids.shape, -1)
