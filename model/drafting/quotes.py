"""Texts that a session may quote although they do not stand in it, such as a file as it is now."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence

from model.drafting.ngrams import LONGEST, NgramIndex
from model.drafting.token_history import TokenHistory

MOST_IDS = 200_000
"""Beyond so many ids the texts kept so far are dropped."""

_EDGE = -1
"""Stands between texts: no id, so that nothing is copied over an edge."""


class Quotes:
    """Texts as ids, which sessions in any threads share and search."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._ids = array("i")
        self._index = NgramIndex()

    def add(self, ids: Sequence[int]) -> None:
        """Keep a text; of two that fit, the later one is copied."""
        with self._lock:
            if len(self._ids) + len(ids) > MOST_IDS:
                self._clear()
            self._ids.extend(ids[:MOST_IDS])
            self._ids.append(_EDGE)

    def seen(self, ids: TokenHistory, count: int) -> tuple[list[int], int]:
        """Return what follows the end of ``ids`` in a text, at most ``count`` ids, and how many ids
        agree before it; nothing and 0 if it stands in none."""
        tail = array("i", ids.tail(max(0, len(ids) - LONGEST)))
        with self._lock:
            place, agree = self._index.find_other(self._ids, tail)
            found = self._ids[place : place + count].tolist() if agree else []
        if _EDGE in found:
            found = found[: found.index(_EDGE)]
        return found, agree if found else 0
