"""Prompts that the model is told at the beginning of a turn, as tokens that go after its state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from agent.events import Notice, Working
from agent.loop.conversation import Conversation
from agent.loop.loop import answers_to
from agent.loop.overview import overview
from agent.loop.prompts import SYSTEM, WITH_A_PERSON, first_messages, later_text, place_of
from agent.run import bookkeeping
from agent.run.parts import Parts
from agent.run.recall import Recall, recall_turn
from agent.run.standing import standing_text
from agent.sessions.history import History
from agent.sessions.model_states import points
from agent.sessions.pictures import task_pictures
from agent.types import Prompt, Task
from model.messages import Message
from model.session import Session
from model.usage import Usage
from model.vision.picture import Picture

CHANGED = "(Changed by the user meanwhile: {paths})"
EFFORT = "(From here on the reasoning effort is {effort}.)"
NAMED = 20


class Opener(Protocol):
    """Runner of the first part of a session's first prompt."""

    def enter(self, conversation: Conversation, messages: Sequence[Message]) -> Prompt | None:
        """Give ``conversation`` a session with a part of ``messages``; return the rest."""
        ...


@dataclass
class Prompter:
    """Decides what the model is told next, and brings its state to where that goes.

    ``history`` is what the session was when it was opened. The model's state is brought back only
    once it is needed: ``loaded`` says that it is there, and ``newest`` is the state after the last
    step if it had to be looked at before. ``unheard`` is a prompt that a turn ended before,
    ``pending`` are messages of an earlier process that no step answered. ``check`` is the
    session's, ``told_check`` the one that the model knows. ``seed`` replaces the random numbers.
    ``is_new`` is set until the first turn. Without ``writes`` the next thing told is in the record
    already. ``notes`` are what the first prompt tells of the repository, where that is known.
    ``effort`` is a new effort in the template's words, told with the user's next message.
    """

    parts: Parts
    opener: Opener
    history: History = field(default_factory=History)
    loaded: bool = True
    newest: Session | None = None
    seed: int | None = None
    check: str | None = None
    told_check: str | None = None
    unheard: Prompt | None = None
    pending: tuple[Message, ...] = ()
    is_new: bool = False
    writes: bool = True
    notes: str | None = None
    effort: str = ""

    def load(self) -> None:
        """Bring the model's state to the end of the last step, if that was not done yet."""
        if self.loaded:
            return
        # Ids of another tokenizer mean nothing here; the first turn encodes them anew.
        if not self._other_tokenizer(self.parts.history):
            self._recall(None)
        self.loaded = True

    def compose(
        self,
        text: str | None,
        changed: Sequence[str] = (),
        pictures: Sequence[Picture] = (),
    ) -> list[Message] | None:
        """Return what the model is told in a turn; None goes on as if it had not been stopped.

        ``text`` is the user's; without it the session goes on. ``changed`` are the files that the
        user changed since the last turn, ``pictures`` what they show with the text.
        """
        if text is None:
            if self.unheard is not None or self.pending:
                return self._before()
            return None if self.parts.steps else self.first_messages(self.parts.saved.info.task)
        self._tell_of_eyes(pictures)
        said = replace(self._said(text, changed), pictures=tuple(pictures))
        self.told_check = self.check
        if self.unheard is not None or self.pending or self.parts.steps:
            return [*self._before(), said]
        task = self.parts.saved.info.task
        if self.parts.client.talks or not task:
            first, asked = self.first_messages(text)
            return [first, replace(asked, pictures=(*asked.pictures, *pictures))]
        later = Message("user", later_text(text, None), pictures=tuple(pictures))
        return [*self.first_messages(task), later]

    def begin(self, news: Sequence[Message] | None, *, asked: bool) -> Prompt | None:
        """Bring the state to where ``news`` go, write them down, and return them as a prompt.

        With ``asked`` their last is the user's own, of this turn.
        """
        conversation = self.parts.conversation
        earlier, self.unheard, self.pending = self.unheard, None, ()
        prompt: Prompt | None = None
        if news is None:
            self._recall(None, go_on=True)
        elif earlier is not None and not (asked and earlier.plain):
            prompt = conversation.add_words(earlier, news[-1]) if asked else earlier
        elif self._needs_recall():
            prompt = self._recall(news)
        self._write(news if asked or self.parts.steps else None)
        if news is None or prompt is not None:
            return prompt
        if self.parts.steps:
            return conversation.prompt(news, by_user=True)
        self.loaded = True
        entered = self.opener.enter(conversation, news)
        return entered or conversation.prompt(news, by_user=True, before=Usage())

    def interject(self, unheard: Prompt | None, words: str) -> Prompt:
        """Write down what the user said after an interrupt, and return the prompt that goes on.

        ``unheard`` is the prompt that the model has not heard to its end.
        """
        conversation, said = self.parts.conversation, Message("user", words)
        told = [*(self.answers() if unheard is None else unheard.messages), said]
        self.parts.journal.trajectory.words(told)
        if unheard is not None and not unheard.plain:
            return conversation.add_words(unheard, said)
        return conversation.prompt(told, by_user=True)

    def forget_last(self) -> None:
        """Take back what was written down for the model: it does not fit into its context."""
        self.unheard = None
        self._write(())

    def answers(self) -> list[Message]:
        """Return the messages that answer the calls of the last step."""
        last = self.parts.steps[-1]
        return answers_to(last.message, last.observations)

    def first_messages(self, text: str) -> list[Message]:
        """Return the system message and the task that begin a session."""
        parts = self.parts
        repo, settings = parts.saved.info.repo, parts.settings
        pictures = task_pictures(parts.saved.info.pictures, parts.saved.path)
        self._tell_of_eyes(pictures)
        return first_messages(
            Task(text, repo, self.check, pictures=pictures),
            root=place_of(parts.sandbox),
            network=settings.online,
            system=WITH_A_PERSON if parts.client.talks else SYSTEM,
            notes=self.overview() if self.notes is None else self.notes,
        )

    def _tell_of_eyes(self, pictures: Sequence[Picture]) -> None:
        """Tell the user if the model cannot see what they show it."""
        if pictures and not self.parts.model.chat.sees:
            names = ", ".join(picture.name for picture in pictures)
            name = self.parts.model.engine.name
            self.parts.client.listen(
                Notice(f"{name} has no eyes: it is told of {names} in words; use a model that sees")
            )

    def overview(self) -> str:
        """Return what the first prompt tells of the repository: its notes to agents, and a map."""
        parts, info = self.parts, self.parts.saved.info
        parts.client.listen(Working("mapping the repository"))
        stands = standing_text(info.repo, info.folder, self.check)
        own = parts.client.tools.skills if parts.client.tools is not None else ()
        notes = overview(info.place, parts.sandbox, parts.settings, parts.model, parts.stop, own)
        parts.client.listen(Working(""))
        return "\n\n".join(part for part in (stands, notes) if part)

    def _before(self) -> list[Message]:
        """Return what the model is told before the user's words."""
        if self.unheard is not None:
            return list(self.unheard.messages)
        return list(self.pending) or self.answers()

    def _said(self, text: str, changed: Sequence[str]) -> Message:
        """Return the user's words, with what the agent has to say beside them."""
        notes = []
        if self.parts.steps and changed:
            notes.append(CHANGED.format(paths=", ".join(changed[:NAMED])))
        if self.parts.steps and self.effort:
            notes.append(EFFORT.format(effort=self.effort))
        self.effort = ""
        check = self.check if self.check != self.told_check else None
        content = later_text("\n\n".join([text.strip(), *notes]), check)
        if notes and check:
            notes.append(f"Check: {check}")
        return Message("user", content, notes=tuple(notes))

    def _needs_recall(self) -> bool:
        """Tell whether the prompt does not simply go after the state that is there."""
        parts = self.parts
        if not parts.steps:
            spent = self.history.usage != Usage()
            return not self.loaded and (spent or bool(points(parts.saved)))
        return (
            not self.loaded
            or parts.settings.thinking == "drop"
            or self._other_tokenizer(parts.history)
        )

    def _other_tokenizer(self, history: History) -> bool:
        known = history.tokenizer or self.parts.saved.info.tokenizer
        return known not in ("", self.parts.model.chat.tokenizer_fingerprint)

    def _recall(self, news: Sequence[Message] | None, *, go_on: bool = False) -> Prompt | None:
        """Take the state that is nearest to the session with ``news``, unless it is there."""
        parts, prompt = self.parts, None
        history = parts.history
        if not self.loaded or news is not None:
            finder = Recall(parts.saved, parts.settings, parts.model, parts.client, parts.speaker())
            session, prompt = finder.session(history, news, seed=self.seed, newest=self.newest)
            self.seed = self.newest = None
            parts.conversation.adopt(session)
            self.loaded = True
        if history.steps:
            recall_turn(parts.conversation, history, go_on=go_on)
        return prompt

    def _write(self, news: Sequence[Message] | None) -> None:
        """Write down what the model is about to hear; () takes back what was written before.

        A new session with a task has written that down already.
        """
        if self.writes:
            record = bookkeeping.resumed(self.parts.settings, self.parts.model, news)
            self.parts.journal.trajectory.write(record)
        self.writes = True
