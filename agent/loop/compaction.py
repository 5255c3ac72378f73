"""Giving up a full context for an account of it, so that a long run can go on.

Once the context is nearly full, the model is asked on a fork of the session what it needs to go on.
A new session begins from the system message, the user's own words, the plan, the files it used last
as they are now, its last step, and that account; if there is none of use, the list of its steps
stands in its place. The session as it was before stays in a folder of its own, which can be resumed
and forked. In the trajectory the new prompt takes the place of everything before it
(``compacted``), and rewinding to an earlier step brings the old context back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.errors import StoreError
from agent.events import Compacted, Listener, Notice
from agent.loop import prompts
from agent.loop.first_prompt import Beginning
from agent.loop.loop import Loop, Opening
from agent.sessions.history import history_of
from agent.sessions.records import Compaction
from agent.sessions.store import SavedSession, SessionStore
from agent.sessions.trajectory import read_records
from agent.types import Step
from model.errors import ModelError
from model.messages import Message, ToolCall
from model.usage import Usage
from tools.registry import Registry

COMPACTED = "compacted"
SUMMARY_TOKENS = 1024
FREED = 0.5
"""A compacted context must be no longer than this part of the length that is too long."""

FILES = 8
FILE_SHARE = 0.25
CHARACTERS_A_TOKEN = 3
STEPS_LISTED = 60
LAST_CHARACTERS = 4000
SHORT_CHARACTERS = 600
LINE_CHARACTERS = 160

REQUEST = (
    "Your context is nearly full and will be emptied now. Do not call a tool. Write down in plain "
    "text, in at most 400 words, what you need to go on without it: what you found out (files, "
    "functions, causes), what you changed and why, what you tried in vain, and what is to be done "
    "next. The task, your plan, your last step and the files you used last are kept for you."
)
LEFT_OUT = "(left out: the context is full)"
PREFACE = (
    "You have worked on this for {steps} steps. Your context was full and was emptied; this is all "
    "that is left of it. Go on from here."
)
LATER = "Later the user wrote:\n\n{text}"
NOTES = (prompts.NO_CALL, prompts.MALFORMED, prompts.UNCHANGED, prompts.CUT.partition("{")[0])
"""What user messages begin with that are not the user's."""


@dataclass
class Compactor:
    """Compacts one run's session. Called before each turn.

    ``at`` is the part of the context from which on it does. ``keep`` makes a copy of the session as
    it was and returns its id.
    """

    saved: SavedSession
    beginning: Beginning
    at: float
    listen: Listener
    keep: Callable[[], str]
    gave_up: bool = False

    def __call__(self, loop: Loop, news: Sequence[Message], new_tokens: int) -> Opening | None:
        """The prompt of a new session, if ``news`` would not fit well into the old one.

        None leaves everything as it is. Else the conversation has the new session, and the prompt
        is what its messages and ids are.
        """
        full = int(self.at * self.beginning.model.engine.context_length)
        conversation, steps = loop.conversation, loop.steps
        if self.gave_up or not steps or conversation.tokens + new_tokens < full:
            return None
        live = history_of(loop.trajectory.records, len(steps))
        if live.since_compaction == 0:
            return None
        before, length = loop.usage, conversation.tokens + new_tokens
        told, spent = self._account(loop, news)
        if loop.stop.is_set():
            return None
        asked = [*live.asked, *(m.content for m in news if m.role == "user")]
        words = [text for text in asked if not text.startswith(NOTES)]
        for messages in self._drafts(loop, live.system, words, told, full):
            if len(conversation.fresh().encode(messages)) <= FREED * full:
                break
        else:
            self.gave_up = True
            self.listen(Notice("compaction would free too little; the run ends at the limit"))
            return None
        try:
            kept = self.keep()
        except StoreError as error:
            kept = ""
            self.listen(Notice(f"the session before compaction is not kept: {error}"))
        ids = conversation.fresh().encode(messages)
        rest = self.beginning.enter(conversation, messages) or Opening(ids, ids)
        conversation.session.carry(spent + Usage(compacted_tokens=spent.context_tokens))
        loop.before = before
        self.listen(Compacted(length, len(ids), kept, bool(told)))
        account = Compaction(length, len(ids), kept, told)
        return Opening(rest.ids, ids, at=0, compacted=account, messages=tuple(messages))

    def _account(self, loop: Loop, news: Sequence[Message]) -> tuple[str, Usage]:
        """What the model writes down on a fork, "" if nothing of use; and all that was spent."""
        conversation = loop.conversation
        request = Message("user", REQUEST)
        answers = [message for message in news if message.role == "tool"]
        short = [Message("tool", LEFT_OUT) for _ in answers]
        for told in ([*answers, request], [*short, request]):
            try:
                text, usage = conversation.aside(told, SUMMARY_TOKENS)
            except (ModelError, ValueError):
                continue
            return text.strip(), usage
        return "", conversation.session.usage

    def _drafts(
        self, loop: Loop, system: Sequence[Message], asked: Sequence[str], told: str, full: int
    ) -> list[list[Message]]:
        """Messages to begin anew with, the most complete first."""
        steps = loop.steps
        done = told or listed(steps)
        room = int(FILE_SHARE * full * CHARACTERS_A_TOKEN)
        files = open_files(steps, loop.registry, room)
        began = PREFACE.format(steps=len(steps))
        head = [began, f"# What was done\n\n{done}", *_changed(loop), *_plan(steps)]
        last, short = (_last(steps[-1], size) for size in (LAST_CHARACTERS, SHORT_CHARACTERS))
        first, *later = asked
        words = [first, *(LATER.format(text=text) for text in later)]
        choices = (
            [*head, *files, last],
            [*head, *files, short],
            [*head, *files[-1:], short],
            [*head, short],
            head,
        )
        return [[*system, Message("user", "\n\n".join([*words, *parts]))] for parts in choices]


Compact = Callable[[Loop, Sequence[Message], int], Opening | None]


def either(once: Compact, later: Compact | None) -> Compact:
    """``once`` for the first call, and ``later``, if any, for those where it did nothing."""
    first: list[Compact] = [once]

    def compact(loop: Loop, news: Sequence[Message], new_tokens: int) -> Opening | None:
        if first and (opening := first.pop()(loop, news, new_tokens)):
            return opening
        return later(loop, news, new_tokens) if later is not None else None

    return compact


def keeper(saved: SavedSession) -> str:
    """Copy ``saved`` as it is on disk, or find the copy that a killed process made of the same.

    Returns the copy's id; raises ``StoreError``.
    """
    store = SessionStore(saved.path.parent)
    here = _ids(saved)
    for other in store.sessions():
        ours = other.status == COMPACTED and other.info.parent == saved.id
        if ours and _ids(other) == here:
            return other.id
    copy = store.copy(
        saved,
        parent=saved.id,
        status=COMPACTED,
        steps=len(history_of(list(read_records(saved.trajectory))).steps),
        summary=f"kept as it was before session {saved.id} emptied its context",
    )
    return copy.id


def _ids(saved: SavedSession) -> tuple[int, ...]:
    """The tokens of its live steps; none if its record cannot be read."""
    try:
        return history_of(list(read_records(saved.trajectory))).ids
    except (OSError, StoreError):
        return ()


def listed(steps: Sequence[Step]) -> str:
    """One line for each call of the last steps and what it gave."""
    lines = []
    if len(steps) > STEPS_LISTED:
        lines.append(f"({len(steps) - STEPS_LISTED} earlier steps are left out)")
    for step in steps[-STEPS_LISTED:]:
        for call, seen in zip(step.message.tool_calls, step.observations, strict=False):
            gave = seen.text.strip().splitlines() or [""]
            # The end of a command's output says how it went.
            line = gave[-1] if call.name == "run_shell_command" else gave[0]
            lines.append(f"{step.index + 1}. {_call(call)} -> {_short(line)}")
    return "\n".join(lines)


def open_files(steps: Sequence[Step], registry: Registry, room: int) -> list[str]:
    """The files that were used last, as they are now, the last one at the end.

    Together they are at most ``room`` characters long; those that do not fit are left out.
    """
    used: dict[str, dict[str, object]] = {}
    for step in steps:
        for call in step.message.tool_calls:
            path = call.arguments.get("file_path")
            if not isinstance(path, str) or call.error is not None:
                continue
            known = used.pop(path, {})
            if call.name == "read_file":
                known = {k: v for k, v in call.arguments.items() if k in ("offset", "limit")}
            used[path] = known
    shown: list[str] = []
    for path in list(reversed(used))[:FILES]:
        seen = registry.run("read_file", {"file_path": path, **used[path]})
        text = f"# {path} as it is now\n\n{seen.text}"
        if seen.ok and len(text) <= room:
            room -= len(text)
            shown.append(text)
    return shown[::-1]


def _plan(steps: Sequence[Step]) -> list[str]:
    """The todo list as the model last saw it."""
    for step in reversed(steps):
        done = zip(step.message.tool_calls, step.observations, strict=False)
        for call, seen in reversed(list(done)):
            if call.name == "todo_write" and seen.ok:
                return [f"# Your plan\n\n{seen.text}"]
    return []


def _changed(loop: Loop) -> list[str]:
    """The files that differ from how the session found them."""
    heads = [line for line in loop.workspace.diff().splitlines() if line.startswith("diff --git ")]
    names = [line.partition(" b/")[2] for line in heads]
    return [f"# Files you changed\n\n{', '.join(names)}"] if names else []


def _last(step: Step, most: int) -> str:
    """What the model said and did, each answer cut to ``most`` characters in the middle."""
    parts = ["# Your last step"]
    parts += [step.message.content.strip()] if step.message.content.strip() else []
    for call, seen in zip(step.message.tool_calls, step.observations, strict=False):
        text = seen.text
        if len(text) > most:
            text = f"{text[: most // 2]}\n[...]\n{text[-most // 2 :]}"
        parts.append(f"{_call(call)}\n{text}")
    return "\n\n".join(parts)


def _call(call: ToolCall) -> str:
    arguments = " ".join(f"{k}={_short(str(v))}" for k, v in call.arguments.items())
    return f"{call.name} {arguments}".replace("\n", " ")


def _short(text: str) -> str:
    return text if len(text) <= LINE_CHARACTERS else text[:LINE_CHARACTERS] + "..."
