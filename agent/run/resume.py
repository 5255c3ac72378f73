"""Going on with saved sessions.

The trajectory says what a session is: which steps are live, their tokens, and the checkpoint of the
files after each. The model's state on disk only saves computing; where it is not the one of the
last live step, the nearest state before it is taken and the rest of the tokens are prefilled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import version
from agent.control.toolbox import Toolbox
from agent.errors import ConfigError, StoreError
from agent.events import Listener, Notice, RunStarted, nobody
from agent.loading import LoadedModel
from agent.loop.conversation import Conversation
from agent.loop.loop import Loop, Opening, answer_texts
from agent.loop.overview import overview
from agent.loop.prompts import first_messages, later_text, place_of
from agent.loop.stalls import guard_after
from agent.run.build import open_box, run_limits, sampling_of
from agent.run.frontend import Control
from agent.run.live_record import resumed
from agent.run.run import Run, marks_its_end
from agent.sessions.history import History, history_of, records_of
from agent.sessions.info import KILLED, RUNNING
from agent.sessions.model_states import (
    catch_up,
    changed_text,
    check_records,
    common,
    disown,
    foreign,
    nearest,
)
from agent.sessions.records import Record, RewindRecord
from agent.sessions.store import SavedSession, now
from agent.settings.load import check_settings
from agent.settings.table import Settings
from agent.types import RunResult, SolveReport, Task
from model import persist
from model.errors import StateError
from model.messages import Message
from model.session import Session, Usage
from sandboxes.base import Sandbox
from sandboxes.paths import Owner
from sandboxes.stop import Stop
from sandboxes.workspace.kept_tree import Origin
from sandboxes.workspace.workspace import Workspace
from tools.registry import Registry
from tools.types import ToolContext

UNFINISHED = (RUNNING, KILLED, "interrupted", "cancelled", "compacted", "failed")
ENDED = ("submitted", "answered", "no_patch", "check_failed")
SHOWN = 5


def resume(
    saved: SavedSession,
    message: str | None,
    settings: Settings,
    model: LoadedModel,
    *,
    check: str | None = None,
    seed: int | None = None,
    listen: Listener = nobody,
    stop: Stop | None = None,
    apply: bool = False,
    control: Control | None = None,
) -> SolveReport:
    """Go on with ``saved`` in a fresh sandbox whose files are those of its last complete step.

    Without ``message`` a session that was stopped goes on as if it had not been. ``check`` replaces
    its check, ``seed`` its random numbers from here on. Raises ``ConfigError`` if there is nothing
    to go on with, ``StoreError`` (in use, damaged), ``SandboxError`` when a run cannot begin.
    """
    with ExitStack() as stack:
        saved = stack.enter_context(saved.claim())
        resumption = Resumption(
            saved,
            message,
            settings,
            model,
            listen,
            stop or Stop(),
            control or Control(toolbox=Toolbox(profile=settings.tools)),
        )
        return resumption.run(stack, check=check, seed=seed, apply=apply)


def stored_settings(saved: SavedSession, flags: Mapping[str, Any]) -> Settings:
    """The settings the session ran with last, and the flags that were given over them.

    Raises ``StoreError`` if the session does not say, ``ConfigError`` for a flag that cannot be.
    """
    if not saved.info.complete:
        raise StoreError(
            f"session {saved.id} is damaged or of an older version; start anew with agent solve"
        )
    stored = dict(saved.info.settings)
    given = {key: value for key, value in flags.items() if value is not None}
    layers = [("the command line", given), (f"session {saved.id}", stored)]
    return check_settings({**stored, "n": 1, **given}, layers)


@dataclass(frozen=True)
class Resumption:
    """One claimed session that goes on: its parts are used by ``agent.run.live`` too."""

    saved: SavedSession
    message: str | None
    settings: Settings
    model: LoadedModel
    listen: Listener
    stop: Stop
    control: Control

    def run(
        self, stack: ExitStack, *, check: str | None, seed: int | None, apply: bool
    ) -> SolveReport:
        saved, settings, info = self.saved, self.settings, self.saved.info
        records = records_of(saved)
        history, newest = self.without_half_a_step(records, history_of(records))
        if newest is not None:
            stack.callback(newest.close)
        asked = self.message is not None or history.pending or not history.steps
        if not asked and saved.status in ENDED:
            raise ConfigError(
                f"session {saved.id} has ended ({saved.status}); give a message to go on with, or "
                f"take its patch with agent sessions patch {saved.id}"
            )
        repo = info.repo
        workspace = self.workspace(repo, history, stack)
        sandbox = stack.enter_context(open_box(settings, workspace, saved.id))
        fresh = self.message is not None or saved.status not in UNFINISHED
        other_check = check if check not in (None, info.check) else None
        task = Task(info.task, repo, check or info.check)
        news = self._news(history, task, sandbox, other_check) if asked else None
        plan = self.plan(history, news, sandbox, seed, newest)
        stack.callback(plan.session.close)
        trajectory = stack.enter_context(saved.writer(records))
        if history.loose or len(history.steps) < len(history_of(records).steps):
            trajectory.write(RewindRecord(len(history.steps), "not completed", now()))
        told = news if news and (history.steps or self.message) else None
        name = self.model.engine.name
        trajectory.write(resumed(settings, self.model, told))
        allowed_from = len(history.steps) if fresh else info.allowed_from
        saved = saved.update(
            status=RUNNING,
            owner=str(Owner.of_this_process()),
            check=task.check,
            thinking=settings.thinking,
            settings=settings.model_dump(),
            limits=dataclasses.asdict(run_limits(settings)),
            allowed_from=allowed_from,
            model=name,
            fingerprint=self.model.engine.fingerprint,
            version=version(),
        )
        stack.enter_context(marks_its_end(saved))
        self.listen(RunStarted(saved.id, name, settings.sandbox))
        run = Run(
            task,
            settings,
            self.model,
            sampling_of(settings, self.model.engine.generation),
            saved,
            self.listen,
            self.stop,
            apply,
            self.control,
            check_before=history.check if other_check is None else None,
            checks_first=not history.steps,
        )

        def work(loop: Loop) -> RunResult:
            loop.steps = list(history.steps)
            loop.allowed_from = allowed_from
            if history.steps:
                recall(loop.conversation, history, go_on=news is None)
            if news is not None:
                loop.before = plan.before
                return loop.run(news, user_turn=True, opening=plan.opening)
            if not fresh:
                loop.guard = guard_after(history.steps[allowed_from:])
            return loop.go_on()

        return run.go(workspace, sandbox, plan.session, trajectory, work)

    def without_half_a_step(
        self, records: Sequence[Record], history: History
    ) -> tuple[History, Session | None]:
        """Take back a last step whose state was not saved any more: it was under way.

        Returns the history without it, and the state after the last step if it was loaded.

        So the session goes on bit for bit from the step before. A state further back, or none, is
        another matter: then the steps stand and the state is rebuilt.
        """
        check_records(self.saved, records)
        if self.saved.status not in UNFINISHED or not history.steps:
            return history, None
        if foreign(self.saved, history, self.model):
            return history, None
        try:
            session = self.model.engine.resume(self.saved.path)
        except StateError:
            # Before the first step there is none, if states are kept at all.
            never = len(history.steps) == 1 and not (self.saved.path / persist.RECORD).exists()
            return history_of(records, 0) if never and self.settings.keep_state else history, None
        at_earlier = session.ids == history.earlier
        return history_of(records, len(history.steps) - 1) if at_earlier else history, session

    def workspace(self, repo: Path, history: History, stack: ExitStack) -> Workspace:
        """The files after the last live step, and a word if the user's have changed since."""
        info = self.saved.info
        origin = Origin(self.saved.files, info.baseline, info.head)
        workspace = Workspace.reopen(
            repo, origin, history.tree or origin.baseline, ignored=self.settings.ignored_files
        )
        stack.callback(workspace.close)
        if changed := workspace.changed_since(origin):
            more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
            self.listen(
                Notice(
                    f"{repo} has changed since the session began ({', '.join(changed[:SHOWN])}"
                    f"{more}); the session goes on with the files it had, and its patch is "
                    "against those"
                )
            )
        return workspace

    def _news(
        self, history: History, task: Task, sandbox: Sandbox, other_check: str | None
    ) -> list[Message]:
        """What the model is told first: the task, or the answers to its last turn and a message."""
        if self.message is None and history.pending:
            return list(history.pending)
        if not history.steps:
            first = first_messages(
                task,
                root=place_of(sandbox),
                network=self.settings.online,
                notes=overview(task.repo, sandbox, self.settings, self.model),
            )
            if self.message is not None:
                first.append(Message("user", later_text(self.message, None)))
            return first
        assert self.message is not None
        last = history.steps[-1]
        texts = answer_texts(last.message, last.observations)
        said = Message("user", later_text(self.message, other_check))
        return [*(Message("tool", text) for text in texts), said]

    def plan(
        self,
        history: History,
        news: Sequence[Message] | None,
        sandbox: Sandbox,
        seed: int | None,
        newest: Session | None = None,
    ) -> Plan:
        """Return the session to go on with, from the nearest saved state.

        ``newest`` is the state after the last step if it was loaded already.
        """
        saved, engine = self.saved, self.model.engine
        why = foreign(saved, history, self.model)
        other_tokenizer = "tokenizer" in why
        first_seed = saved.info.seed
        if other_tokenizer and news is None:
            raise ConfigError(
                f"the tokenizer changed since session {saved.id} was saved: its tokens cannot be "
                "used; give a message, and the conversation is encoded anew"
            )
        target: Sequence[int] = history.ids
        if news is not None:
            speaker = Conversation(
                engine.session(),
                self.model.chat,
                Registry(ToolContext(sandbox), self.control.toolbox.tools(self.listen)).schemas(),
                engine.generation,
                thinking=self.settings.thinking != "off",
            )
            drop = self.settings.thinking == "drop"
            if history.steps and (drop or other_tokenizer):
                try:
                    target = speaker.whole([*history.messages, *news], preserve_thinking=not drop)
                except ValueError as error:
                    raise StoreError(
                        f"session {saved.id} cannot be encoded anew: {error}"
                    ) from error
            else:
                if history.steps:
                    recall(speaker, history)
                target = [*history.ids, *speaker.encode(news)]
        found = nearest(engine, saved, target, seed=first_seed, foreign=bool(why), newest=newest)
        known = 0 if other_tokenizer else common(history.ids, target)
        lacking = known - found.session.length
        reason = changed_text(why) if why else found.damage
        if lacking > 0 or (reason and history.steps):
            reason = reason or "that state is not on disk"
            self.listen(Notice(f"{reason}; {max(lacking, 0):,} tokens are prefilled again"))
        session, opening, before = found.session, None, None
        if news is None:
            catch_up(found, target, history.usage)
            if why:
                disown(saved)
            if lacking:
                session.save(saved.path)
        else:
            had = session.usage
            catch_up(found, target[: session.length], history.usage)
            before = session.usage
            if not found.current:
                session.carry(_uncounted(had, history.usage))
            if why:
                disown(saved)
            written = list(target[known:])
            opening = Opening(target[session.length :], written)
            if known != len(history.ids):
                tokenizer = self.model.chat.tokenizer_fingerprint
                opening = dataclasses.replace(opening, at=known, tokenizer=tokenizer)
        if seed is not None:
            session = session.fork(seed=seed)
        return Plan(session, opening, before)


@dataclass(frozen=True)
class Plan:
    """A session to go on with, and what it is told next; ``opening`` is None without news.

    ``before`` are the counters at the beginning of the next step, part of whose prompt may have
    run already.
    """

    session: Session
    opening: Opening | None
    before: Usage | None = None


def _uncounted(had: Usage, steps: Usage) -> Usage:
    """What a state ``had`` cost and no step counts: a process was killed before its step ended."""
    return Usage(
        prefilled_tokens=max(0, had.prefilled_tokens - steps.prefilled_tokens),
        shared_tokens=max(0, had.shared_tokens - steps.shared_tokens),
    )


def recall(conversation: Conversation, history: History, *, go_on: bool = False) -> None:
    """Tell ``conversation`` how its last turn ended; with ``go_on`` a stopped one is continued."""
    stopped = history.steps[-1].ended == "interrupted"
    thinking = history.thinking != "off"
    conversation.recall(history.turn_ids, thinking=thinking, go_on=go_on and stopped)
