"""Masks for a session's next token: any, one of some, or exactly one.

Whoever steers decides from the ids alone, so a turn that was saved in its middle, forked or drafted
goes on under the same masks once its ids are told again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class TokenMask:
    """Bound on the next token: ``forced``, one of ``only``, or any but those of ``without``.

    Both are int64 ids without repeats, ``only`` at least one, ``without`` not the whole
    vocabulary. A mask with none of the three allows any token.
    """

    forced: int | None = None
    only: Tensor | None = None
    without: Tensor | None = None


ANY = TokenMask()
"""The mask that allows any token."""


class Steering(Protocol):
    """Gives the mask for each token of one turn."""

    def mask(self) -> TokenMask:
        """Return the mask for the token after all that were sampled."""
        ...
