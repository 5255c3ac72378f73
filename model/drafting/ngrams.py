"""An index of the n-grams of a token sequence: it finds where the sequence's end stood before."""

from __future__ import annotations

from array import array

LEAST = 2
"""Ids that must agree for a place to count. Two predict little, but that shows (``drafts``)."""

_CANDIDATES = 12
LONGEST = 32
"""Agreement beyond so many ids is not counted."""


class NgramIndex:
    """All n-grams of ``LEAST`` ids in a growing list, with the places of each.

    Adding an id costs the same at any length. ``_last`` has where an n-gram ended last, and
    ``_before`` for each place the one before it with the same n-gram.
    """

    def __init__(self) -> None:
        self._last: dict[bytes, int] = {}
        self._before = array("i", [-1] * LEAST)

    def find(self, ids: array[int], length: int) -> tuple[int, int]:
        """Find where the end of ``ids[:length]`` stood before: return the place behind it, and how
        many ids agree there (up to 32). Of the last twelve places take the one where most agree;
        return ``(0, 0)`` if there is none. ``ids`` must have grown from what was given before.
        """
        self._add(ids, length)
        return self._best(ids, length, ids, length)

    def find_other(self, ids: array[int], other: array[int]) -> tuple[int, int]:
        """Find where the end of ``other``, which is not in ``ids``, stands in it, as ``find``."""
        self._add(ids, len(ids))
        return self._best(ids, len(ids), other, len(other))

    def _best(self, ids: array[int], length: int, other: array[int], end: int) -> tuple[int, int]:
        best, most = 0, 0
        if end < LEAST or length <= LEAST:
            return best, most
        place = self._last.get(other[end - LEAST : end].tobytes(), -1)
        for _ in range(_CANDIDATES):
            # Another sequence with the same beginning may have added what lies behind.
            while place >= length:
                place = self._before[place]
            if place < 0:
                break
            agree = LEAST
            limit = min(LONGEST, place, end)
            while agree < limit and ids[place - agree - 1] == other[end - agree - 1]:
                agree += 1
            if agree > most:
                best, most = place, agree
            if most == LONGEST:
                break
            place = self._before[place]
        return best, most

    def _add(self, ids: array[int], length: int) -> None:
        """Take up the n-grams that end before ``length``: something follows each of them."""
        for place in range(len(self._before), length):
            key = ids[place - LEAST : place].tobytes()
            self._before.append(self._last.get(key, -1))
            self._last[key] = place
