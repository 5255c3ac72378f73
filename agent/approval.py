"""Which calls a person is asked about before they run, and what becomes of the answer.

A mode says what is asked for where no rule decides:

==========  ==============================================================
never       nothing
edits       calls that change files: ``edit``, ``write_file``, ``apply_patch``
commands    shell commands, and tools that act outside the sandbox (MCP)
all         both
==========  ==============================================================

Reading, planning and submitting are never asked for by a mode. What a person answered "always" or
"never" to holds for as long as the ``Approvals`` live, and is not written down.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal, Protocol

from model.messages import ToolCall
from tools.preview import Change
from tools.registry import Registry
from tools.types import Observation, ToolKind

Mode = Literal["never", "edits", "commands", "all"]
Verdict = Literal["allow", "allow_always", "reject", "reject_always", "cancelled"]

ASKED: dict[Mode, frozenset[ToolKind]] = {
    "never": frozenset(),
    "edits": frozenset({"edit"}),
    "commands": frozenset({"command", "external"}),
    "all": frozenset({"edit", "command", "external"}),
}

REFUSED = (
    "Not run: the user refused this call. Do not try the same in another way; go on without it, "
    "or submit what you have."
)
REFUSED_WITH_WORDS = "Not run: the user refused this call and says: {words}"
REFUSED_BEFORE = (
    "Not run: the user has refused {subject} for the rest of this session. Go on without it."
)
NOBODY = (
    "Not run: this call needs the user's approval ({reason}), and nobody can be asked in this run. "
    "Go on without it."
)
CANCELLED = "Not run: the session was stopped while the user was asked."


@dataclass(frozen=True)
class Request:
    """What a person is asked about: one call.

    ``subjects`` are the parts that need an answer, each as a rule names it: ``git push``,
    ``edit(src/a.py)``, ``mcp(server.tool)``. ``changes`` are the files that an edit would change.
    ``reason`` is why it is asked, in a few words. ``always`` are the patterns that "always" would
    allow for the rest of the session, to be shown beside that choice.
    """

    call: ToolCall
    kind: ToolKind
    subjects: tuple[str, ...]
    reason: str
    changes: tuple[Change, ...] = ()
    always: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What the person answered. ``words`` are for the model and count with a rejection only.

    ``cancelled`` is no answer: the run was interrupted meanwhile, or the one asked went away.
    """

    verdict: Verdict
    words: str = ""


class Approver(Protocol):
    """Whoever can be asked. Called on the run's own thread, one request at a time."""

    def ask(self, request: Request) -> Answer:
        """The answer, however long that takes; ``cancelled`` once the run is to stop."""
        ...


@dataclass
class Approvals:
    """The overseer that asks. ``mode`` may be changed at any time, from any thread.

    Without an ``approver`` a call that would be asked for is refused, in words that say so.
    """

    mode: Mode = "never"
    approver: Approver | None = None
    _allowed: set[str] = field(default_factory=set, repr=False)
    _refused: set[str] = field(default_factory=set, repr=False)
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def before(self, call: ToolCall, registry: Registry) -> Observation | None:
        """See ``oversight.Overseer``."""
        kind = registry.kind(call.name)
        if kind is None or kind not in ASKED[self.mode]:
            return None
        with self._one_at_a_time:
            return self._decide(call, kind, registry)

    def after(self, call: ToolCall, seen: Observation) -> Observation:
        """Nothing to add."""
        return seen

    def _decide(self, call: ToolCall, kind: ToolKind, registry: Registry) -> Observation | None:
        subjects = (_subject(call, kind),)
        for subject in subjects:
            if subject in self._refused:
                return _refusal(REFUSED_BEFORE.format(subject=subject))
        if all(subject in self._allowed for subject in subjects):
            return None
        changes = registry.preview(call.name, call.arguments)
        if kind == "edit" and not changes:
            # It will fail, or change nothing: the tool says which.
            return None
        reason = f"--approve {self.mode}"
        if self.approver is None:
            return _refusal(NOBODY.format(reason=reason))
        answer = self.approver.ask(Request(call, kind, subjects, reason, changes, subjects))
        match answer.verdict:
            case "allow":
                return None
            case "allow_always":
                self._allowed.update(subjects)
                return None
            case "reject_always":
                self._refused.update(subjects)
            case "cancelled":
                return _refusal(CANCELLED)
        words = answer.words.strip()
        return _refusal(REFUSED_WITH_WORDS.format(words=words) if words else REFUSED)


def _subject(call: ToolCall, kind: ToolKind) -> str:
    """The call as a rule names it."""
    if kind == "edit":
        return f"edit({call.arguments.get('file_path', '')})"
    if kind == "command":
        return str(call.arguments.get("command", ""))
    return call.name


def _refusal(text: str) -> Observation:
    return Observation(text, ok=False)
