"""The limits of a run: an interrupt, a spent budget, a full context, a model that stalls."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.loop.budget import Budget
from agent.loop.stalls import Stalls
from agent.types import Interrupted, LimitReached, Outcome
from sandboxes.stop import Stop


@dataclass
class Limits:
    """The limits of one run; create it when the run begins.

    ``stop`` is the client's. ``full_at`` is the number of tokens from which on the context counts
    as full, None where only the model's own length bounds it. ``turns`` are those that count.
    """

    budget: Budget
    stop: Stop
    full_at: int | None = None
    stalls: Stalls = field(default_factory=Stalls)
    turns: int = 0
    _counted_s: float = field(default=0.0, repr=False)

    def before_turn(self, tokens: int, gone: int, *, can_empty: bool) -> Outcome | None:
        """Return what forbids another turn at a context of ``tokens``, the next prompt included.

        ``gone`` tokens of the session are in its context no longer. ``full_at`` counts only if the
        context ``can_empty``: while a turn that was cut short goes on it cannot.
        """
        if self.stop.is_set():
            return Interrupted()
        limit = self.budget.reached(self.turns, tokens, gone)
        if limit is None and can_empty and self.full_at is not None and tokens >= self.full_at:
            limit = "context"
        return LimitReached(limit, "") if limit else None

    def after_turn(self) -> LimitReached | None:
        """Return the stall that ends the run after this turn, if any."""
        if self.stalls.repeats_end:
            return LimitReached("repeated_calls", "")
        if self.stalls.unchanged_ends:
            return LimitReached("no_change", "")
        if self.stalls.malformed_ends:
            return LimitReached("malformed_calls", "")
        return None

    @property
    def over(self) -> bool:
        """True once nothing more may be started in this turn."""
        return self.stop.is_set() or self.budget.out_of_time()

    def tolerate(self, tokens: int) -> None:
        """Let the next turn begin at ``tokens`` although the context counts as full."""
        if self.full_at is not None:
            self.full_at = max(self.full_at, tokens + 1)

    def forgive(self) -> None:
        """Begin to look for stalls anew: the user has spoken."""
        self.stalls = Stalls()

    def lap(self) -> float:
        """Return the seconds since it was last asked."""
        now = self.budget.elapsed_s
        passed, self._counted_s = now - self._counted_s, now
        return passed
