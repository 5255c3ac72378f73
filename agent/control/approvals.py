"""Approvals: the calls a person is asked about before they run, and what an answer changes.

A mode says what is asked for where no rule decides:

==========  ==============================================================
never       nothing
edits       calls that change files: ``edit``, ``write_file``, ``apply_patch``
commands    shell commands, and tools that act outside the sandbox (MCP)
all         both
plan        nothing: what would change files or run commands is refused
==========  ==============================================================

Reading, planning and submitting are never asked for by a mode. Rules (``agent.control.rules``) come
before the mode: what one denies never runs, what one asks for is asked for in every mode, what one
allows is not asked for. What a person answered "always" or "never" to holds for the session, also
when it is resumed or forked (``agent.control.answers``); "always" does not lift a rule that denies.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, Self

from agent.control.answers import Answers
from agent.control.rules import Judgement, RuleKind, Rules
from agent.control.subjects import Subject, Subjects, subjects_of
from model.messages import ToolCall
from tools.edits.preview import Change
from tools.registry import Registry
from tools.types import Observation, ToolKind

Mode = Literal["never", "edits", "commands", "all", "plan"]
Verdict = Literal["allow", "allow_always", "reject", "reject_always", "cancelled"]

ASKED: dict[Mode, frozenset[ToolKind]] = {
    "never": frozenset(),
    "edits": frozenset({"edit"}),
    "commands": frozenset({"command", "external"}),
    "all": frozenset({"edit", "command", "external"}),
    "plan": frozenset({"edit", "command", "external"}),
}

_RULE_KINDS: dict[ToolKind, tuple[RuleKind, ...]] = {
    "read": ("read",),
    "edit": ("edit",),
    "command": ("command", "edit"),
    "external": ("mcp",),
    "session": (),
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
FORBIDDEN = "Not run: the rule {rule} forbids {subject}. Find another way, or go on without it."
PLANNING = (
    "Not run: the user is in plan mode, in which nothing is changed and no command runs. Read what "
    "you need, then answer with a plan in words."
)
CANCELLED = "Not run: the session was stopped while the user was asked."


@dataclass(frozen=True)
class Request:
    """A question to a person about one call.

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
    """The person's answer. ``words`` are for the model and count with a rejection only.

    ``cancelled`` is no answer: the run was interrupted meanwhile, or the one asked went away.
    """

    verdict: Verdict
    words: str = ""


class Approver(Protocol):
    """Anyone who can be asked.

    Called on the run's own thread, one request at a time.
    """

    def ask(self, request: Request) -> Answer:
        """Return the answer, however long it takes; ``cancelled`` once the run is to stop."""
        ...


@dataclass
class Approvals:
    """The overseer that asks. ``mode`` may be changed at any time, from any thread.

    Without an ``approver`` a call that would be asked for is refused, in words that say so.
    """

    mode: Mode = "never"
    approver: Approver | None = None
    rules: Rules = field(default_factory=Rules)
    _answers: Answers = field(default_factory=Answers, repr=False)
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def kept_in(self, folder: Path) -> Self:
        """Return these approvals with the answers kept in the session in ``folder``.

        New answers go there too.
        """
        with self._one_at_a_time:
            self._answers.keep_in(folder)
        return self

    def before(self, call: ToolCall, registry: Registry) -> Observation | None:
        kind = registry.kind(call.name, call.arguments)
        if kind is None:
            return None
        if self.mode == "plan" and kind in ASKED["plan"]:
            return _refusal(PLANNING)
        with self._one_at_a_time:
            call_subjects = self._subjects(call, kind, registry)
            asked = []
            for subject in call_subjects.subjects:
                judged = self._judge(subject, kind)
                if judged.ruling == "deny":
                    return _refusal(judged.why)
                if judged.ruling == "ask":
                    asked.append((subject, judged.why))
            return self._ask(call, kind, asked, call_subjects.changes) if asked else None

    def after(self, call: ToolCall, seen: Observation) -> Observation:
        return seen

    def _subjects(self, call: ToolCall, kind: ToolKind, registry: Registry) -> Subjects:
        """Return the subjects of ``call``, or none where neither mode nor rules could object."""
        asks = ASKED[self.mode]
        concerned = kind in asks or self.rules.forbids("tool", *_RULE_KINDS[kind])
        # A redirection in a command writes a file.
        concerned = concerned or (kind == "command" and "edit" in asks)
        return subjects_of(call, kind, registry) if concerned else Subjects()

    def _judge(self, subject: Subject, kind: ToolKind) -> Judgement:
        """Judge one subject: denied, asked for (``why`` says the reason), or let go."""
        ruled = subject.judged(self.rules)
        if ruled.ruling == "deny":
            return Judgement("deny", FORBIDDEN.format(subject=subject.shown, rule=ruled.why))
        answered = self._answers.given.get(subject.shown)
        if answered is False:
            return Judgement("deny", REFUSED_BEFORE.format(subject=subject.shown))
        if answered or subject.judged(self._answers.allowed).ruling == "allow":
            return Judgement("allow")
        if ruled.ruling == "ask":
            return Judgement("ask", f"rule {ruled.why}")
        if ruled.ruling == "allow":
            return ruled
        if subject.kind in ASKED[self.mode]:
            return Judgement("ask", f"--approve {self.mode}")
        return Judgement("open")

    def _ask(
        self,
        call: ToolCall,
        kind: ToolKind,
        asked: Sequence[tuple[Subject, str]],
        changes: tuple[Change, ...],
    ) -> Observation | None:
        """Ask the person, if there is one, and keep what holds for longer."""
        reason = ", ".join(dict.fromkeys(why for _, why in asked))
        if self.approver is None:
            return _refusal(NOBODY.format(reason=reason))
        subjects = [subject for subject, _ in asked]
        shown = tuple(dict.fromkeys(subject.shown for subject in subjects))
        always = tuple(dict.fromkeys(subject.always for subject in subjects))
        answer = self.approver.ask(Request(call, kind, shown, reason, changes, always))
        match answer.verdict:
            case "allow":
                return None
            case "allow_always":
                for subject in subjects:
                    self._answers.allow(subject.shown, subject.rule)
                return None
            case "reject_always":
                self._answers.refuse(*shown)
            case "cancelled":
                return _refusal(CANCELLED)
        words = answer.words.strip()
        return _refusal(REFUSED_WITH_WORDS.format(words=words) if words else REFUSED)


def _refusal(text: str) -> Observation:
    return Observation(text, ok=False)
