"""A task that is a conversation: the model has tools of the task's own and answers in words.

It is over when the model answers without a call and the task's user, if it has one, has nothing
more to say, or when a limit ends it. What was said is the work that is graded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.client import Client
from agent.control.toolbox import Toolbox
from agent.loading import LoadedModel
from agent.run.open_session import OpenSession
from agent.sessions.store import SessionStore
from agent.settings.table import Settings
from agent.types import Answered, SolveReport, Step, Submitted, Task
from model.messages import Message
from model.vision.picture import Picture
from sandboxes.base import Sandbox
from tools.types import ToolSpec

Transcript = Sequence[Message | Step]
"""The user's messages and the model's steps, in order."""


@dataclass(frozen=True)
class Talk:
    """The other side of a conversation.

    ``tools`` are the task's own, ``pictures`` are shown with its text. ``reply`` is what its user
    says to what was said so far, None when satisfied. ``end`` is called while the sandbox is still
    open and returns files to keep with the attempt.
    """

    end: Callable[[Sandbox, Transcript], Mapping[str, bytes]]
    reply: Callable[[Transcript], str | None] = lambda said: None
    tools: tuple[ToolSpec, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Talked:
    """The last turn's report and the files to keep."""

    report: SolveReport
    files: Mapping[str, bytes]


def talk(
    task: Task,
    other: Talk,
    settings: Settings,
    model: LoadedModel,
    client: Client,
    *,
    store: SessionStore,
) -> Talked:
    """Hold the conversation. Raises what ``OpenSession.new`` does, and what ``other`` does."""
    toolbox = Toolbox(profile=settings.tools, more=other.tools)
    client = dataclasses.replace(client, tools=toolbox)
    said: list[Message | Step] = []
    told = task.text
    with OpenSession.new(
        dataclasses.replace(task, text=""), settings, model, client, store=store
    ) as session:
        session.announce()
        while True:
            before = len(session.steps)
            pictures = () if said else other.pictures
            said.append(Message("user", told, pictures=tuple(pictures)))
            report = session.turn(told, pictures)
            said += session.steps[before:]
            ended = isinstance(report.result.outcome, Answered | Submitted)
            words = other.reply(said) if ended else None
            if words is None:
                return Talked(report, other.end(session.parts.sandbox, said))
            told = words
