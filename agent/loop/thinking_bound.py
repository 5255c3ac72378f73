"""The bound on one turn's reasoning: a budget, and an end to reasoning that goes round in circles.

Near the budget the reasoning is closed where a sentence ends, at the budget wherever it is: a
closing sentence and ``</think>`` are put there as forced tokens, after which the model goes on by
itself. What is decided depends on the turn's ids alone.
Budgets with a forced end are from "s1: Simple test-time scaling" (2025) and the Qwen3 report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.loop.repetition import Circles
from agent.types import ThinkingEnd
from model.chat.tokenizer import Decoder

CLOSING: Mapping[ThinkingEnd, str] = {
    "budget": "\n\nI have thought about this for long enough and act now on what I know.",
    "circles": "\n\nI am going round in circles, so I stop here and act on what I know.",
}
CLOSED_NOTICE: Mapping[ThinkingEnd, str] = {
    "budget": "the thinking budget is spent: closed after {tokens:,} tokens (--think-budget)",
    "circles": "the model thinks in circles: its thinking was closed after {tokens:,} tokens",
}
SOFT_PART = 8
SOFT_MOST = 256
"""From this part of the budget before its end, but no earlier than so many tokens, a sentence's end
closes the reasoning."""
_ENDS = ".!?。！？\n"
_QUOTES = "\"'”’)]*`"


@dataclass(frozen=True)
class ThinkLimits:
    """The most tokens of reasoning in a turn, and in all turns of a session; None is no limit."""

    turn: int | None = None
    session: int | None = None

    def allowance(self, spent: int) -> int | None:
        """Return what the next turn may take once the session has ``spent``."""
        left = [self.turn] if self.turn is not None else []
        if self.session is not None:
            left.append(max(0, self.session - spent))
        return min(left, default=None)


NO_LIMITS = ThinkLimits()


@dataclass
class ThinkingBound:
    """Watches one turn. ``closings`` are the ids for each reason to close, ``bare`` those of the
    end tag alone."""

    closings: Mapping[ThinkingEnd, Sequence[int]]
    bare: Sequence[int]
    decoder: Decoder
    closed: ThinkingEnd = ""
    most: int | None = None
    _due: list[int] = field(default_factory=list)
    _tail: str = ""
    _circles: Circles = field(default_factory=Circles)

    def begin(self, most: int | None, *, thinking: bool) -> None:
        """Start a turn of at most ``most`` tokens of reasoning, which the prompt opened if it is
        ``thinking``."""
        self.most = most
        if most == 0:
            self.closed, self._due = "budget", list(self.bare) if thinking else []

    @property
    def forced(self) -> int | None:
        """The id that comes next, None if the model chooses."""
        return self._due[0] if self._due else None

    def push(self, token_id: int, *, thinking: bool, count: int) -> None:
        """Take the turn's next id, after which the model is ``thinking`` with ``count`` tokens."""
        if self._due and self._due.pop(0) == token_id:
            return
        self._due = []
        if not thinking:
            return
        self._tail = (self._tail + self.decoder.push(token_id))[-16:]
        circling = self._circles.push(token_id)
        if self.closed:
            # It was closed before and has been opened again.
            self._due = list(self.bare)
        elif self._is_spent(count):
            self._close("budget")
        elif circling:
            self._close("circles")

    def _is_spent(self, count: int) -> bool:
        if self.most is None:
            return False
        soft = self.most - min(self.most // SOFT_PART, SOFT_MOST)
        return count >= self.most or (count >= soft and self._ends_sentence())

    def _ends_sentence(self) -> bool:
        return self._tail.rstrip(" ").rstrip(_QUOTES).endswith(tuple(_ENDS))

    def _close(self, why: ThinkingEnd) -> None:
        self.closed, self._due = why, list(self.closings[why])
