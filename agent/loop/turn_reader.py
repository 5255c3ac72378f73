"""Reads one turn as it is sampled, and says what may come next in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.loop.confidence import spans_of
from agent.loop.repetition import Repetition
from agent.loop.thinking_bound import ThinkingBound, ThinkLimits
from agent.types import Spans
from model.chat.parser import TurnParser
from model.chat.turn_events import TurnEvent
from model.constraints.call_steering import CallSteering
from model.messages import ToolCall
from model.steering import ANY, TokenMask


@dataclass
class TurnReader:
    """One turn's parser and what watches over it; it steers the session that samples the turn.

    ``repeats`` is True once the turn only repeats itself. ``closed_mask`` is what holds once the
    reasoning was closed: it cannot be opened again. ``calls`` steers what is written of calls.
    """

    parser: TurnParser
    bound: ThinkingBound
    closed_mask: TokenMask = ANY
    calls: CallSteering | None = None
    repeats: bool = False
    _repetition: Repetition = field(default_factory=Repetition)
    _counted: int = 0
    _before: int = 0

    def begin(self, limits: ThinkLimits, spent: int, unfinished: Sequence[int]) -> None:
        """Read the ``unfinished`` ids of a turn that goes on; none are there of a new one.

        ``spent`` are the session's tokens of reasoning, with those of ``unfinished``.
        """
        opened = self.parser.in_thinking
        seen = []
        for token_id in unfinished:
            self.parser.push(token_id)
            self._repetition.push(token_id)
            self._follow(token_id)
            seen.append((token_id, self.parser.in_thinking, self.parser.thinking_tokens))
        self._counted = self.parser.thinking_tokens
        self._before = len(self.parser.written[1])
        self.bound.begin(limits.allowance(spent - self._counted), thinking=opened)
        for token_id, thinking, count in seen:
            self.bound.push(token_id, thinking=thinking, count=count)

    def push(self, token_id: int) -> list[TurnEvent]:
        """Take the next id and return what became known by it."""
        parser = self.parser
        events = parser.push(token_id)
        self._follow(token_id)
        self.bound.push(token_id, thinking=parser.in_thinking, count=parser.thinking_tokens)
        self.repeats = self._repetition.push(token_id, in_value=parser.in_value)
        return events

    def mask(self) -> TokenMask:
        """Return what the next token may be."""
        if self.bound.forced is not None:
            return TokenMask(forced=self.bound.forced)
        if self.calls is not None and not self.calls.lost:
            return self.calls.mask()
        return self.closed_mask if self.bound.closed else ANY

    def _follow(self, token_id: int) -> None:
        if self.calls is not None:
            self.calls.push(token_id, thinking=self.parser.in_thinking)

    def spans(
        self, calls: Sequence[ToolCall], logprobs: Sequence[float]
    ) -> tuple[Mapping[str, Spans], ...]:
        """Return the text values of ``calls`` in pieces; ``logprobs`` are of what ``push`` read."""
        text, starts = self.parser.written
        return spans_of(text, starts[self._before :], logprobs, calls)

    @property
    def thinking_tokens(self) -> int:
        """The tokens of reasoning read by ``push``."""
        return self.parser.thinking_tokens - self._counted
