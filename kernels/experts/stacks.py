"""The forms in which one projection of all experts of a layer is held.

A plain tensor ``[experts, outputs, inputs]``, or a stack: one weight an expert, each in whatever
form a weight has, so that experts that lie apart in a file stay where they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.fp8_linear import Fp8Weight
from kernels.linear import QuantizedWeight, Weight


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


@dataclass(frozen=True, eq=False)
class DeviceStack:
    """The matrices of ``count`` experts as one for the device kernels, expert below expert.

    An expert has a multiple of 16 outputs, in fp8 of 128: so none shares a block with another.
    """

    count: int
    whole: QuantizedWeight | Fp8Weight

    @property
    def shape(self) -> torch.Size:
        """The shape of the whole, ``[experts, outputs, inputs]``."""
        return torch.Size((self.count, self.whole.outputs // self.count, self.whole.inputs))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.whole.nbytes

    def __getitem__(self, expert: int) -> Weight:
        whole, each = self.whole, self.whole.outputs // self.count
        if isinstance(whole, QuantizedWeight):
            return whole.rows(expert * each, (expert + 1) * each)
        data = whole.data[expert * each : (expert + 1) * each]
        rows = len(whole.scales) // self.count
        scales = whole.scales[expert * rows : (expert + 1) * rows]
        return Fp8Weight(data, scales)


ExpertWeight = Tensor | ExpertStack | DeviceStack
