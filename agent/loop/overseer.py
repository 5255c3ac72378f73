"""Who watches over the calls of a run: may this one run, and is there more to say of what it gave.

The loop asks its overseers in order before each call, and in the reverse order after it. Approvals,
the user's hooks, and the notes of nested AGENTS.md files are overseers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from model.messages import ToolCall
from tools.registry import Registry
from tools.types import Observation


class Overseer(Protocol):
    """Sees each well-formed call before it runs and what it gave afterwards."""

    def before(self, call: ToolCall, registry: Registry) -> Observation | None:
        """What the model is told in place of running ``call``; None lets it run.

        May wait for a person. Raises ``SandboxGone`` only.
        """
        ...

    def after(self, call: ToolCall, seen: Observation) -> Observation:
        """``seen``, or the same with more said. Only for calls that ran."""
        ...


def refusal(
    overseers: Sequence[Overseer], call: ToolCall, registry: Registry
) -> Observation | None:
    """The first refusal of ``call``, if any; those after it are not asked."""
    for overseer in overseers:
        refused = overseer.before(call, registry)
        if refused is not None:
            return refused
    return None


def reviewed(overseers: Sequence[Overseer], call: ToolCall, seen: Observation) -> Observation:
    """``seen`` with what the overseers add."""
    for overseer in reversed(overseers):
        seen = overseer.after(call, seen)
    return seen
