"""Notices a model that turns in circles: no usable call, or the same call again and again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.types import Step
from model.messages import Message, ToolCall

MALFORMED_IN_A_ROW = 3
IDENTICAL_IN_A_ROW = 5


@dataclass
class Guard:
    """Counts over one run's turns. A count at its bound asks for a correction, past it the end."""

    malformed: int = 0
    identical: int = 0
    _last: str | None = field(default=None, repr=False)

    def turn(self, message: Message) -> None:
        """Count a turn without a well-formed call; any well-formed call sets the count to zero."""
        usable = any(call.error is None for call in message.tool_calls)
        self.malformed = 0 if usable else self.malformed + 1

    def call(self, call: ToolCall) -> None:
        """Count a well-formed call that equals the one before it, argument for argument."""
        key = json.dumps([call.name, dict(call.arguments)], sort_keys=True, default=repr)
        self.identical = self.identical + 1 if key == self._last else 1
        self._last = key

    @property
    def malformed_corrects(self) -> bool:
        """This turn was the last that is forgiven: say plainly what a call looks like."""
        return self.malformed == MALFORMED_IN_A_ROW

    @property
    def malformed_ends(self) -> bool:
        """The correction did not help."""
        return self.malformed > MALFORMED_IN_A_ROW

    @property
    def identical_corrects(self) -> bool:
        """This call was the last repetition that is run: say that it leads nowhere."""
        return self.identical == IDENTICAL_IN_A_ROW

    @property
    def identical_ends(self) -> bool:
        """The correction did not help."""
        return self.identical > IDENTICAL_IN_A_ROW


def guard_after(steps: Sequence[Step]) -> Guard:
    """A guard that has seen ``steps`` as the loop showed them to it."""
    guard = Guard()
    for step in steps:
        if step.ended != "interrupted":
            guard.turn(step.message)
            for call in step.message.tool_calls[: len(step.observations)]:
                if call.error is None:
                    guard.call(call)
    return guard
