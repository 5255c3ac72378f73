"""A sequence of token ids that only grows, shared by all that have the same beginning."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence

from model.drafting.ngrams import NgramIndex


class _Buffer:
    """Ids that are filled up from the front."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = array("i", ids)
        self.lock = threading.Lock()
        self.ngrams = NgramIndex()


class TokenHistory:
    """An immutable sequence of ids.

    Growing costs the new ids, unless another has grown from the same point before: then one copy.
    """

    def __init__(self, ids: Sequence[int] = ()) -> None:
        self._buffer = _Buffer(ids)
        self._length = len(ids)

    def __len__(self) -> int:
        return self._length

    def tail(self, start: int) -> list[int]:
        """Return the ids from position ``start`` on."""
        return self._buffer.ids[start : self._length].tolist()

    def seen_before(self, count: int) -> tuple[list[int], int]:
        """Return what followed the last place where these ids ended as they do now, at most
        ``count`` ids, and how many ids agreed there; nothing and 0 if there is no such place (see
        ``ngrams``).
        """
        with self._buffer.lock:
            place, agree = self._buffer.ngrams.find(self._buffer.ids, self._length)
            end = min(place + count, self._length)
            found = self._buffer.ids[place:end].tolist() if agree else []
            # A picture's tokens are never sampled.
            return found[: next((n for n, i in enumerate(found) if i < 0), count)], agree

    def extended(self, ids: Sequence[int]) -> TokenHistory:
        """These ids and ``ids`` after them."""
        grown = TokenHistory.__new__(TokenHistory)
        grown._length = self._length + len(ids)
        with self._buffer.lock:
            if len(self._buffer.ids) == self._length:
                self._buffer.ids.extend(ids)
                grown._buffer = self._buffer
                return grown
        grown._buffer = _Buffer(self.tail(0))
        grown._buffer.ids.extend(ids)
        return grown
