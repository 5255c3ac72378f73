"""Find the run of lines in a file that is most like a given text."""

from __future__ import annotations

import difflib
import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass

MIN_SIMILARITY = 0.6
_CANDIDATES = 15
_BY_CHARACTER_BELOW = 1000
_BY_TOKEN_BELOW = 3000


@dataclass(frozen=True)
class LineSpan:
    """Lines ``first`` to ``last`` of the file, both counted from 1 and included."""

    first: int
    last: int

    def named(self) -> str:
        if self.first == self.last:
            return f"line {self.first}"
        return f"lines {self.first}-{self.last}"


def find_nearest_lines(lines: Sequence[str], old: str) -> tuple[LineSpan, float] | None:
    """Find the run of lines most like ``old``, if at least ``MIN_SIMILARITY`` alike.

    Shared trigrams, a sliding sum over the file, choose a few candidates; difflib judges them.
    """
    wanted = old.strip("\n")
    size = min(wanted.count("\n") + 1, count_lines(lines))
    grams = {wanted[at : at + 3] for at in range(len(wanted) - 2)} or {wanted}
    hits = [sum(line[at : at + 3] in grams for at in range(len(line))) for line in lines]
    scores: list[tuple[float, int]] = []
    shared = sum(hits[:size])
    length = sum(map(len, lines[:size]))
    for start in range(count_lines(lines) - size + 1):
        if start:
            shared += hits[start + size - 1] - hits[start - 1]
            length += len(lines[start + size - 1]) - len(lines[start - 1])
        scores.append((2 * shared / (len(wanted) + length + 1), -start))
    matcher: difflib.SequenceMatcher[str] = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(_split_units(wanted, len(wanted)))
    best: tuple[float, int] | None = None
    for _, negative in heapq.nlargest(_CANDIDATES, scores):
        start = -negative
        matcher.set_seq1(_split_units("\n".join(lines[start : start + size]), len(wanted)))
        least = best[0] if best else MIN_SIMILARITY
        if matcher.real_quick_ratio() < least or matcher.quick_ratio() < least:
            continue
        ratio = matcher.ratio()
        if ratio >= MIN_SIMILARITY and (best is None or (ratio, -start) > (best[0], -best[1])):
            best = (ratio, start)
    if best is None:
        return None
    return LineSpan(best[1] + 1, best[1] + size), best[0]


def _split_units(text: str, length: int) -> Sequence[str]:
    """Split ``text`` into units that keep the comparison fast: characters, words, or lines."""
    if length < _BY_CHARACTER_BELOW:
        return text
    if length < _BY_TOKEN_BELOW:
        return re.findall(r"\w+|\s+|[^\w\s]", text)
    return text.split("\n")


def count_lines(lines: Sequence[str]) -> int:
    """Count lines as a reader does: a final line feed does not begin another."""
    return len(lines) - 1 if len(lines) > 1 and not lines[-1] else len(lines)
