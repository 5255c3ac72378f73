"""The time that a decode pass takes, by its number of rows: measured as passes run."""

from __future__ import annotations

_FORGET = 0.97
_PRIOR_SHARE = 0.1
_PRIOR_WEIGHT = 2.0
_OUTLIER = 2.0


class PassCosts:
    """The times of the last passes: seconds by rows.

    A line through all of them, and for each number of rows by how much its passes are off that
    line: rows are multiplied several at once, so that the cost rises in steps. Reading the weights,
    which all rows share, is the line's constant; what each row adds is the slope. Until wider
    passes have been seen a row counts as a tenth of the first one. Old passes fade, and one that
    took unusually long counts no more than twice what was expected.
    """

    def __init__(self) -> None:
        self._weight = self._rows = self._squares = 0.0
        self._seconds = self._products = 0.0
        self._constant = self._slope = 0.0
        self._off: dict[int, tuple[float, float]] = {}

    def note(self, rows: int, seconds: float) -> None:
        """Note that a pass of ``rows`` took ``seconds``."""
        if self._weight:
            seconds = min(seconds, _OUTLIER * self.seconds(rows))
        self._weight = self._weight * _FORGET + 1
        self._rows = self._rows * _FORGET + rows
        self._squares = self._squares * _FORGET + rows * rows
        self._seconds = self._seconds * _FORGET + seconds
        self._products = self._products * _FORGET + rows * seconds
        mean, mean_s = self._rows / self._weight, self._seconds / self._weight
        spread = self._squares - self._rows * mean
        together = self._products - self._rows * mean_s
        # The slope that is assumed counts as a pass or two a row away from the mean.
        assumed = _PRIOR_SHARE * mean_s / (1 + _PRIOR_SHARE * (mean - 1))
        slope = (together + _PRIOR_WEIGHT * assumed) / (spread + _PRIOR_WEIGHT)
        self._slope = max(slope, 0.0)
        self._constant = mean_s - self._slope * mean
        if (line := self._line(rows)) > 0:
            weight, total = self._off.get(rows, (_PRIOR_WEIGHT, _PRIOR_WEIGHT))
            self._off[rows] = weight * _FORGET + 1, total * _FORGET + seconds / line

    def seconds(self, rows: int) -> float:
        """Estimate how many seconds a pass of ``rows`` will take; 0 before the first."""
        weight, total = self._off.get(rows, (1.0, 1.0))
        return self._line(rows) * total / weight

    def _line(self, rows: int) -> float:
        return max(self._constant + self._slope * rows, 0.0)
