"""Rows of a table by ids, from a tensor of the model's dtype or from a weight in another form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.linear.blocks import rows_at
from kernels.linear.formats import QuantizedWeight


@dataclass(frozen=True, eq=False)
class StoredTable:
    """A table ``[rows, width]`` whose rows are turned into ``dtype`` as they are looked up."""

    weight: QuantizedWeight | Tensor
    dtype: torch.dtype

    @property
    def device(self) -> torch.device:
        """The device that holds it."""
        weight = self.weight
        return weight.device if isinstance(weight, Tensor) else weight.data.device

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.weight.nbytes


Table = Tensor | StoredTable


def embed(ids: Tensor, table: Table) -> Tensor:
    """Return the rows ``[..., width]`` of ``ids [...]``."""
    if isinstance(table, Tensor):
        return F.embedding(ids, table)
    if isinstance(table.weight, Tensor):
        return F.embedding(ids, table.weight).to(table.dtype)
    if table.device.type == "cuda":
        from kernels.linear.triton import coded_rows

        found = coded_rows(ids.reshape(-1), table.weight, table.dtype)
    else:
        found = rows_at(table.weight, ids.reshape(-1)).to(table.dtype)
    return found.reshape(*ids.shape, -1)
