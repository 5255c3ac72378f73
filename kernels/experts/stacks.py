"""The forms in which one projection of all experts of a layer is held.

A plain tensor ``[experts, outputs, inputs]``, or a stack: one weight an expert, each in whatever
form a weight has, so that experts that lie apart in a file stay where they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.linear import Weight


@dataclass(frozen=True, eq=False)
class ExpertStack:
    """One weight ``[outputs, inputs]`` for each expert, all of one shape."""

    members: tuple[Weight, ...]

    @property
    def shape(self) -> torch.Size:
        """The shape of the whole, ``[experts, outputs, inputs]``."""
        return torch.Size((len(self.members), *self.members[0].shape))

    @property
    def nbytes(self) -> int:
        """Bytes held, or mapped from a file."""
        return sum(member.nbytes for member in self.members)

    def __getitem__(self, expert: int) -> Weight:
        return self.members[expert]


ExpertWeight = Tensor | ExpertStack
