"""Replace a full context by a summary, so that a long run can go on.

Once the context is nearly full, the model is asked on a fork of the session what it needs to go on.
A new session begins from the system message, the user's own words, the plan, the files it used last
as they are now, its last step, and that summary; if there is none of use, the list of its steps
stands in its place. The session as it was before stays in a folder of its own, which can be resumed
and forked. In the trajectory the new prompt takes the place of everything before it
(``compacted``), and rewinding to an earlier step brings the old context back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.client import Client
from agent.errors import StoreError
from agent.events import Compacted, Notice
from agent.loop.conversation import Conversation
from agent.loop.first_prompt import Beginning
from agent.loop.journal import Journal
from agent.sessions.history import history_of
from agent.sessions.info import COMPACTED
from agent.sessions.store import SavedSession, SessionStore
from agent.sessions.trajectory import read_records
from agent.types import Compaction, Prompt, Step
from model.errors import ModelError
from model.messages import Message, ToolCall
from model.usage import Usage
from tools.registry import Registry

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


@dataclass
class Compactor:
    """Compacts one session. It does not know the loop: an open session asks it between two runs.

    ``gave_up`` is set once compaction would free too little. Without ``keeps_state`` no copy of the
    session as it was is kept.
    """

    beginning: Beginning
    journal: Journal
    registry: Registry
    client: Client
    keeps_state: bool = True
    gave_up: bool = False

    def compact(
        self, conversation: Conversation, prompt: Prompt, full: int, before: Usage
    ) -> Prompt | None:
        """Give ``conversation`` a new session, and return its prompt in place of ``prompt``.

        ``full`` is the number of tokens that is too long, ``before`` what the session has cost.
        None leaves everything as it is.
        """
        steps = self.journal.steps
        if self.gave_up or not steps:
            return None
        live = history_of(self.journal.trajectory.records, len(steps))
        if live.since_compaction == 0:
            return None
        length = conversation.tokens + len(prompt.ids)
        summary, spent = self._summarise(conversation, prompt.messages)
        if conversation.stop.is_set():
            return None
        asked = [*live.asked, *(m.content for m in prompt.messages if m.said)]
        for messages in self._drafts(live.system, asked, summary, full):
            ids = conversation.fresh().encode(messages)
            if len(ids) <= FREED * full:
                break
        else:
            self.gave_up = True
            self.client.listen(
                Notice("compaction would free too little; the run ends at the limit")
            )
            return None
        kept = self._keep()
        entered = self.beginning.enter(conversation, messages)
        conversation.session.carry(spent + Usage(compacted_tokens=spent.context_tokens))
        self.client.listen(Compacted(length, len(ids), kept, bool(summary)))
        return Prompt(
            tuple(messages),
            entered.ids if entered is not None else tuple(ids),
            tuple(ids),
            at=0,
            compacted=Compaction(length, len(ids), kept, summary),
            before=before,
            by_user=True,
        )

    def _keep(self) -> str:
        """Copy the session as it is on disk; return the copy's id, "" if there is none."""
        if not self.keeps_state:
            return ""
        try:
            return keep_copy(self.journal.saved)
        except StoreError as error:
            self.client.listen(Notice(f"the session before compaction is not kept: {error}"))
            return ""

    def _summarise(self, conversation: Conversation, told: Sequence[Message]) -> tuple[str, Usage]:
        """Return a summary that the model writes on a fork, "" if of no use; and all that cost."""
        request = Message("user", REQUEST, author="agent")
        answers = [message for message in told if message.role == "tool"]
        short = [Message("tool", LEFT_OUT) for _ in answers]
        for messages in ([*answers, request], [*short, request]):
            try:
                text, usage = conversation.aside(messages, SUMMARY_TOKENS)
            except (ModelError, ValueError):
                continue
            return text.strip(), usage
        return "", conversation.session.usage

    def _drafts(
        self, system: Sequence[Message], asked: Sequence[str], summary: str, full: int
    ) -> list[list[Message]]:
        """Return messages to begin anew with, the most complete first."""
        steps = self.journal.steps
        done = summary or listed(steps)
        room = int(FILE_SHARE * full * CHARACTERS_A_TOKEN)
        files = open_files(steps, self.registry, room)
        began = PREFACE.format(steps=len(steps))
        changed = _changed(self.journal.workspace.diff())
        head = [began, f"# What was done\n\n{done}", *changed, *_plan(steps)]
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


def keep_copy(saved: SavedSession) -> str:
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
    """Return the tokens of its live steps; none if its record cannot be read."""
    try:
        return history_of(list(read_records(saved.trajectory))).ids
    except (OSError, StoreError):
        return ()


def listed(steps: Sequence[Step]) -> str:
    """Return one line for each call of the last steps and what it gave."""
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
    """Return the files that were used last, as they are now, the last one at the end.

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
    """Return the todo list as the model last saw it."""
    for step in reversed(steps):
        done = zip(step.message.tool_calls, step.observations, strict=False)
        for call, seen in reversed(list(done)):
            if call.name == "todo_write" and seen.ok:
                return [f"# Your plan\n\n{seen.text}"]
    return []


def _changed(diff: str) -> list[str]:
    """Name the files that differ from how the session found them."""
    heads = [line for line in diff.splitlines() if line.startswith("diff --git ")]
    names = [line.partition(" b/")[2] for line in heads]
    return [f"# Files you changed\n\n{', '.join(names)}"] if names else []


def _last(step: Step, most: int) -> str:
    """Return what the model said and did, each answer cut to ``most`` characters in the middle."""
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
