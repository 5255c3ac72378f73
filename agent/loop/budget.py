"""The budget that a run may still spend: steps, tokens, time, and room in the model's context."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.loop.thinking_bound import NO_LIMITS, ThinkLimits
from agent.types import LimitName


@dataclass(frozen=True)
class RunLimits:
    """The limits of one run. None means that only the model's context length bounds it.

    ``max_tokens`` counts every token of the session, prompt and observations included;
    ``max_turn_tokens`` those sampled in one turn; ``max_wall_time_s`` runs from the first turn,
    ``thinking`` bounds the reasoning in it.
    """

    max_steps: int = 100
    max_tokens: int | None = None
    max_turn_tokens: int = 8192
    thinking: ThinkLimits = NO_LIMITS
    max_wall_time_s: float | None = None


class Budget:
    """Holds the limits against what was used. Create it when the run begins: its clock runs."""

    def __init__(
        self,
        limits: RunLimits,
        context_length: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.context_length = context_length
        self._clock = clock
        self._start = clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._start

    def out_of_time(self) -> bool:
        """True once the wall time is spent."""
        most = self.limits.max_wall_time_s
        return most is not None and self.elapsed_s >= most

    def reached(self, steps: int, tokens: int, gone: int = 0) -> LimitName | None:
        """Return the limit that forbids another turn after ``steps`` turns and ``tokens`` tokens.

        A turn needs room for one sampled token, so ``tokens`` includes the next prompt. ``gone``
        tokens of the session are in its context no longer.
        """
        if steps >= self.limits.max_steps:
            return "steps"
        if self.out_of_time():
            return "wall_time"
        if tokens >= self.context_length:
            return "context"
        if self.limits.max_tokens is not None and tokens + gone >= self.limits.max_tokens:
            return "tokens"
        return None

    def turn_allowance(self, tokens: int, gone: int = 0) -> int:
        """Return how many tokens the next turn may sample when the session holds ``tokens``.

        ``gone`` is as for ``reached``.
        """
        room = self.context_length - tokens
        if self.limits.max_tokens is not None:
            room = min(room, self.limits.max_tokens - tokens - gone)
        return max(0, min(room, self.limits.max_turn_tokens))
