"""Notices a model that turns in circles.

No usable call, the same call again and again, two calls in turns, or many steps in which no file
changes: each is counted, and at one bound the model is told, at the next the run ends.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.types import Step
from model.messages import Message, ToolCall
from tools.types import Observation

MALFORMED_IN_A_ROW = 3
IDENTICAL_IN_A_ROW = 5
ALTERNATING_IN_A_ROW = 8
ALTERNATING_END = 10
UNCHANGED_STEPS = 40
UNCHANGED_END = 80
ALTERNATING = (
    "You are making the same two calls in turns, and their results stay the same. Going on like "
    "this ends the session. Do something else."
)


@dataclass
class Stalls:
    """Counts over one run's turns. A count at its bound asks for a correction, past it the end.

    ``alternating`` is how many calls in a row were A B A B, ``unchanged`` how many steps in a row
    left the files as they were.
    """

    malformed: int = 0
    identical: int = 0
    alternating: int = 0
    unchanged: int = 0
    _last: str | None = field(default=None, repr=False)
    _before: str | None = field(default=None, repr=False)
    _results: dict[str, int] = field(default_factory=dict, repr=False)
    _tree: str | None = field(default=None, repr=False)

    def turn(self, message: Message) -> None:
        """Count a turn without a well-formed call; any well-formed call sets the count to zero."""
        usable = any(call.error is None for call in message.tool_calls)
        self.malformed = 0 if usable else self.malformed + 1

    def call(self, call: ToolCall) -> None:
        """Count a well-formed call that equals the one before it, or the one before that."""
        key = json.dumps([call.name, dict(call.arguments)], sort_keys=True, default=repr)
        self.identical = self.identical + 1 if key == self._last else 1
        if key == self._last:
            self.alternating = 1
        elif key == self._before:
            self.alternating += 1
        else:
            self.alternating = 1 if self._last is None else 2
        if key not in (self._last, self._before):
            # Only the two that take turns are compared with what they gave before.
            self._results = {k: v for k, v in self._results.items() if k == self._last}
        self._before, self._last = self._last, key

    def result(self, seen: Observation) -> None:
        """Note what the last call gave; a result that differs from the one before is no circle."""
        assert self._last is not None
        # What a session that goes on has on record may end with our own words.
        given = hash(seen.text.removesuffix(f"\n\n{ALTERNATING}"))
        if self._results.get(self._last, given) != given:
            self.alternating = 1
        self._results[self._last] = given

    def tree(self, tree: str) -> None:
        """Count a step after which the files are ``tree``."""
        self.unchanged = self.unchanged + 1 if tree == self._tree else 0
        self._tree = tree

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
    def alternating_corrects(self) -> bool:
        """Two calls took turns long enough: say that it leads nowhere."""
        return self.alternating == ALTERNATING_IN_A_ROW

    @property
    def repeats_end(self) -> bool:
        """The correction of either repetition did not help."""
        return self.identical > IDENTICAL_IN_A_ROW or self.alternating > ALTERNATING_END

    @property
    def unchanged_corrects(self) -> bool:
        """Many steps changed no file: say so."""
        return self.unchanged == UNCHANGED_STEPS

    @property
    def unchanged_ends(self) -> bool:
        """The correction did not help."""
        return self.unchanged >= UNCHANGED_END


def stalls_after(steps: Sequence[Step]) -> Stalls:
    """Return the counts after ``steps``, as the loop counted them."""
    stalls = Stalls()
    for step in steps:
        if step.ended != "interrupted":
            stalls.turn(step.message)
            calls = step.message.tool_calls[: len(step.observations)]
            for call, seen in zip(calls, step.observations, strict=False):
                if call.error is None:
                    stalls.call(call)
                    stalls.result(seen)
        stalls.tree(step.tree)
    return stalls
