"""Notice a turn that says the same over and over, so that it is stopped inside the turn."""

from __future__ import annotations

from collections import Counter, deque

MAX_PERIOD = 256
MIN_REPEATED = 512
"""How many tokens of a repetition end a turn: data and tables repeat themselves too, but less."""
MIN_REPEATED_IN_VALUE = 4096
"""The same inside a value of a call: a file may hold long rows that are all alike."""
MIN_TIMES = 4


class Repetition:
    """Counts, for each period, how many of the last tokens equal the one a period before."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._counts = [0] * (MAX_PERIOD + 1)

    def push(self, token_id: int, *, in_value: bool = False) -> bool:
        """Take the turn's next token and return whether the turn now only repeats itself."""
        least = MIN_REPEATED_IN_VALUE if in_value else MIN_REPEATED
        ids, counts = self._ids, self._counts
        found = False
        for period in range(1, min(MAX_PERIOD, len(ids)) + 1):
            if ids[-period] == token_id:
                counts[period] += 1
                found = found or counts[period] >= max(least, MIN_TIMES * period)
            else:
                counts[period] = 0
        ids.append(token_id)
        return found


GRAM = 8
"""Tokens of a phrase whose return counts."""
CIRCLE = 192
"""So many tokens in a row that hardly say anything new are a circle."""
SAID_BEFORE = 2
SHARE = 0.9


class Circles:
    """Notices reasoning that comes back to the same phrases, in whatever order and distance."""

    def __init__(self) -> None:
        self._last: deque[int] = deque(maxlen=GRAM)
        self._said: Counter[tuple[int, ...]] = Counter()
        self._known: deque[bool] = deque(maxlen=CIRCLE)
        self._count = 0

    def push(self, token_id: int) -> bool:
        """Take the next token and return whether nearly all of the last ones were said before."""
        self._last.append(token_id)
        gram = tuple(self._last)
        known = len(gram) == GRAM and self._said[gram] >= SAID_BEFORE
        self._said[gram] += 1
        if len(self._known) == CIRCLE:
            self._count -= self._known[0]
        self._known.append(known)
        self._count += known
        return self._count >= SHARE * CIRCLE
