"""The tools of a run, and the overseers that watch over each call.

The overseers are asked in order before each call, and in the reverse order after it. Approvals, the
user's hooks, the mirror of the user's files, and the notes of nested AGENTS.md files are overseers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from model.messages import ToolCall
from tools.registry import Registry
from tools.types import Observation


class Overseer(Protocol):
    """A watcher that sees each well-formed call before it runs, and its result afterwards."""

    def before(self, call: ToolCall, registry: Registry) -> Observation | None:
        """Return what the model is told in place of running ``call``; None lets it run.

        May wait for a person. Raises ``SandboxGone`` only.
        """
        ...

    def after(self, call: ToolCall, seen: Observation) -> Observation:
        """Return ``seen``, or the same with more said. Asked only of calls that ran."""
        ...


@dataclass(frozen=True)
class OverseenTools:
    """The tools that the model may call, and who watches over them."""

    registry: Registry
    overseers: Sequence[Overseer] = ()

    def refuse(self, call: ToolCall) -> Observation | None:
        """Return the first refusal of ``call``, if any; the overseers after it are not asked."""
        for overseer in self.overseers:
            refused = overseer.before(call, self.registry)
            if refused is not None:
                return refused
        return None

    def run(self, call: ToolCall) -> Observation:
        """Run a call that nobody refused."""
        return self.registry.run(call.name, call.arguments)

    def review(self, call: ToolCall, seen: Observation) -> Observation:
        """Return ``seen`` with what the overseers add."""
        for overseer in reversed(self.overseers):
            seen = overseer.after(call, seen)
        return seen
