"""Answers from the record: a change that was tried and failed the same check is not checked again.

A model that goes in circles makes the same change twice, with others in between, and runs the check
on it twice. The second run is answered at once with what the first one gave. It counts as the same
if the files are the same, to the byte, as git sees them: what it ignores is not looked at.
"""

from __future__ import annotations

from agent.loop.journal import Journal
from model.messages import ToolCall
from tools.registry import Registry
from tools.types import Observation

NOTE = "[not run again: tried in step {step}, the check failed the same way]"
_PASSED = "[exit code 0"
_ENDED = "[exit code "


class CheckedBefore:
    """An overseer of the session's own ``check``; without one it does nothing."""

    def __init__(self, journal: Journal, check: str | None) -> None:
        self._journal, self._check = journal, (check or "").strip()
        self._failed: dict[str, tuple[int, Observation]] = {}
        self._last = ""
        self._tree = ""

    def before(self, call: ToolCall, registry: Registry) -> Observation | None:
        """Return what the check gave on these files before, if others were checked since."""
        self._tree = ""
        command = call.arguments.get("command")
        if not self._check or registry.subject(call.name) != "run_shell_command":
            return None
        if not isinstance(command, str) or command.strip() != self._check:
            return None
        self._tree = self._journal.workspace.checkpoint()
        known = self._failed.get(self._tree)
        if known is None or self._last == self._tree:
            return None
        step, seen = known
        return seen.with_note(NOTE.format(step=step))

    def after(self, call: ToolCall, seen: Observation) -> Observation:
        """Keep what a check that failed has given."""
        if self._tree:
            self._last = self._tree
            if _ENDED in seen.text and _PASSED not in seen.text:
                self._failed[self._tree] = len(self._journal.steps) + 1, seen
        return seen
