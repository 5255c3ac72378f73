"""Notice a turn that says the same over and over, so that it is stopped inside the turn."""

from __future__ import annotations

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
