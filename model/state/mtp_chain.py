"""The rows that a pass adds to the MTP layer's memory of a sequence.

Single tokens are not run through the layer one by one: a chain owes them until several can share a
pass, or until somebody guesses from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from model.state.pages import MtpChain

MOST_OWED = 8
"""A chain that owes this many ids pays them before the next pass."""


@dataclass(frozen=True)
class ChainRows:
    """A pass over several ``ids``, whose hidden states are ``[ids, hidden]``, and the chain before
    it (None: none yet)."""

    before: MtpChain | None
    ids: Sequence[int]
    hidden: Tensor

    def after(self, count: int) -> MtpChain:
        """Return the chain after the first ``count`` ids, at least one."""
        # A copy: a view would keep the hidden states of the whole pass.
        ids, hidden = self.ids[:count], self.hidden[:count].clone()
        if self.before is None:
            return MtpChain.begin(ids, hidden)
        return self.before.extended(ids, hidden)
