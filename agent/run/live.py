"""A session that stays open between a user's turns: its sandbox runs, its state is in memory.

``agent solve`` and ``agent resume`` are one run each; a front end in which a person goes on
talking (an editor) holds a ``LiveSession``. It writes the same record, and saves the state after
each step, so that a kill at any moment leaves a session that ``agent resume`` and
``LiveSession.open`` go on with. A turn ends when the model submits or says something without a
call. The user's files follow the copy call by call (``agent.run.mirror``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from agent.control.hooks import Hooks
from agent.errors import ConfigError
from agent.events import CheckDone, CommandOutput
from agent.loading import LoadedModel
from agent.loop.agents_md import Memory
from agent.loop.budget import Budget
from agent.loop.compaction import Compact, Compactor, either, keeper
from agent.loop.conversation import Conversation
from agent.loop.first_prompt import Beginning
from agent.loop.loop import Loop, Opening, answer_texts
from agent.loop.overview import overview
from agent.loop.prompts import WITH_A_PERSON, first_messages, later_text, place_of
from agent.run import report as reporting
from agent.run.build import run_limits, sampling_of
from agent.run.check import run_check
from agent.run.live_open import Opened, opened_new, opened_saved
from agent.run.live_record import begun, ending, pulled_after, resumed, turn_starts
from agent.run.mirror import Mirror
from agent.run.resume import Resumption, recall
from agent.run.surroundings import Surroundings
from agent.sessions.history import History, history_of
from agent.sessions.model_states import catch_up, keep_point, nearest
from agent.sessions.prefix_cache import PrefixCache
from agent.sessions.records import ASKED_FOR, CheckRecord, PulledRecord, RewindRecord, SessionRecord
from agent.sessions.store import SavedSession, SessionStore, new_session_id, now
from agent.sessions.trajectory import TrajectoryWriter
from agent.settings.table import Settings
from agent.types import CheckRun, Failed, LimitReached, RunResult, Step, Task
from model.messages import Message
from model.session import Session, Snapshot, Usage
from sandboxes.base import Sandbox
from sandboxes.errors import SandboxError
from sandboxes.workspace.workspace import Workspace
from tools.registry import Registry
from tools.types import ToolContext

CHANGED = "(Changed by the user meanwhile: {paths})"
SNAPSHOTS = 8
NAMED = 20


@dataclass(frozen=True)
class Turn:
    """How one turn of the user's ended; ``usage`` is what it cost."""

    result: RunResult
    status: str
    usage: Usage


class LiveSession:
    """One session, claimed by this process; one thread at a time uses it.

    A turn that could not go on (``Failed``) leaves the session ``broken``: close it and open it
    again from what is saved. With ``compacts`` the next turn begins by giving up the context for an
    account of it.
    """

    def __init__(
        self,
        saved: SavedSession,
        settings: Settings,
        model: LoadedModel,
        around: Surroundings,
        stack: ExitStack,
    ) -> None:
        """Used by ``begin`` and ``open``, which fill in the rest."""
        self.saved = saved
        self.settings = settings
        self.model = model
        self.broken = False
        self.compacts = False
        self.steps: list[Step] = []
        self._around = around
        self._stack = stack
        self._stop = around.stop.joined()
        self._unheard: tuple[Message, ...] = ()
        self._begun: Opening | None = None
        self._told_check = saved.info.check
        self._snapshots: dict[int, Snapshot] = {}
        self._snapshots_of: Session | None = None
        self._sandbox: Sandbox
        self._workspace: Workspace
        self._mirror: Mirror
        self._trajectory: TrajectoryWriter
        self._registry: Registry
        self._conversation: Conversation

    @classmethod
    def begin(
        cls,
        repo: Path,
        settings: Settings,
        model: LoadedModel,
        *,
        store: SessionStore,
        name: str | None = None,
        around: Surroundings | None = None,
    ) -> Self:
        """A new session on ``repo``, which nobody has spoken in yet.

        Raises ``StoreError``, ``SandboxError``; nothing is left behind then.
        """
        around = around or Surroundings()
        parts = opened_new(repo, settings, model, store=store, name=name or new_session_id())
        live = cls(parts.saved, settings, model, around, parts.stack)
        with live._or_closed():
            live._furnish(parts)
            live._trajectory.write(SessionRecord(parts.saved.info))
        return live

    @classmethod
    def open(
        cls,
        saved: SavedSession,
        settings: Settings,
        model: LoadedModel,
        *,
        around: Surroundings | None = None,
    ) -> Self:
        """Go on with a saved session: its files as its last step left them, then the user's.

        A state that fits is read, not computed; what it lacks is prefilled. Raises
        ``ConfigError``, ``StoreError``, ``SandboxError``; the session is as it was then.
        """
        around = around or Surroundings()
        parts = opened_saved(saved, settings, model, around)
        live = cls(parts.saved, settings, model, around, parts.stack)
        with live._or_closed():
            live._furnish(parts)
            if parts.abandons:
                abandoned = RewindRecord(len(parts.history.steps), "not completed", now())
                live._trajectory.write(abandoned)
            live._adopt(parts.history)
            live._remember()
        return live

    @property
    def id(self) -> str:
        """The session's id."""
        return self.saved.id

    @property
    def repo(self) -> Path:
        """The user's folder."""
        return self.saved.info.repo

    @property
    def root(self) -> str:
        """The copy's root as calls name it."""
        return self._sandbox.root

    @property
    def registry(self) -> Registry:
        """The session's tools."""
        return self._registry

    @property
    def used(self) -> int:
        """How many tokens the context holds."""
        return self._conversation.tokens

    def turns(self) -> list[int]:
        """How many steps there were when each of the user's turns began."""
        return turn_starts(self._trajectory.records)

    def touch(self, paths: Sequence[str]) -> None:
        """The user speaks of these files: also an editor's unsaved text of them is looked at."""
        self._mirror.touch(paths)

    def say(self, text: str) -> Turn:
        """One turn of the user's, until the model has nothing more to do. Raises ``ConfigError``.

        An error on the way is an outcome, as in ``Loop.run``.
        """
        if not text.strip():
            raise ConfigError("the message is empty: say what to do")
        before = self._conversation.session.usage
        try:
            result = self._turn(text)
        except SandboxError as error:
            result = RunResult(Failed(str(error)), tuple(self.steps), before)
        except BaseException:
            self.broken = True
            raise
        self.broken = isinstance(result.outcome, Failed)
        status = self._finish(result)
        return Turn(result, status, result.usage - before)

    def rewind(self, step: int) -> tuple[int, list[str]]:
        """Go back to the end of live step ``step``: conversation, state and files together.

        Files that the user changed since then are left alone. Returns how many tokens had to be
        prefilled, and those files. Raises ``ConfigError`` if there is no such step.
        """
        if not 0 <= step <= len(self.steps):
            raise ConfigError(f"there is no step {step}; there are {len(self.steps)}")
        self._mirror.look()
        records = self._trajectory.records
        back = RewindRecord(step, ASKED_FOR, now())
        target = history_of([*records, back])
        users = pulled_after(records, step)
        self._trajectory.write(back)
        self.saved = self.saved.update(status="interrupted", summary=f"rewound to step {step}")
        cost = self._restore(step, target)
        kept = self._mirror.take_back(target.tree or self.saved.info.first_tree, users)
        self._workspace.rebase(self._mirror.base)
        self.saved = self.saved.update(steps=step, baseline=self._mirror.base)
        return cost, kept

    def fork(self, store: SessionStore) -> SavedSession:
        """A new saved session that is as this one is now. Raises ``StoreError``."""
        return store.copy(self.saved, parent=self.id)

    def check(self, command: str | None = None) -> CheckRun:
        """Run ``command``, or the session's check, apart from the model's shell.

        A command given becomes the session's check. Raises ``ConfigError`` if there is none,
        ``SandboxError``.
        """
        command = command or self.saved.info.check or self.settings.check
        if not command:
            raise ConfigError("there is no check yet: write /check COMMAND")
        if command != self.saved.info.check:
            self.saved = self.saved.update(check=command)
        self._mirror.look()
        run = run_check(
            command,
            self._sandbox,
            timeout_s=self.settings.check_timeout,
            stop=self._around.stop,
        )
        self._trajectory.write(CheckRecord("asked", reporting.shorten(run)))
        self._around.listen(CheckDone("asked", run))
        return run

    def set_thinking(self, thinking: str) -> None:
        """Change how the next turns reason. Raises ``ConfigError`` for a word that is none."""
        if thinking not in ("preserve", "drop", "off"):
            raise ConfigError(f"{thinking!r} is no way of thinking; use preserve, drop or off")
        self.settings = self.settings.model_copy(update={"thinking": thinking})
        self.saved = self.saved.update(thinking=thinking, settings=self.settings.model_dump())
        session = self._conversation.session
        self._conversation = self._new_conversation(session)
        history = history_of(self._trajectory.records)
        if history.steps:
            recall(self._conversation, history)

    def close(self) -> None:
        """Take everything down; what was said is saved. May be called twice."""
        self._stack.close()

    def _or_closed(self) -> ExitStack:
        """Close the session if the block raises."""
        stack = ExitStack()
        stack.push(lambda kind, error, trace: self.close() if kind is not None else None)
        return stack

    def _furnish(self, parts: Opened) -> None:
        workspace, sandbox = parts.workspace, parts.sandbox
        self._workspace, self._sandbox = workspace, sandbox
        self._trajectory = self._stack.enter_context(self.saved.writer(parts.records))
        self._stack.callback(lambda: self._conversation.session.close())
        around = self._around
        context = ToolContext(
            sandbox,
            command_timeout_s=self.settings.command_timeout,
            stop=self._stop,
            on_output=lambda text: around.listen(CommandOutput(text)),
            count_tokens=self.model.chat.count_tokens,
        )
        tools = around.control.toolbox.tools(around.listen, self._stop)
        self._registry = Registry(context, tools)
        # Its parsers are processes.
        self._stack.callback(context.code.close)
        self._conversation = self._new_conversation(parts.session)
        self._mirror = Mirror(workspace, around.files, pulled=self._note_pulled)

    def _new_conversation(self, session: Session) -> Conversation:
        return Conversation(
            session,
            self.model.chat,
            self._registry.schemas(),
            sampling_of(self.settings, self.model.engine.generation),
            thinking=self.settings.thinking != "off",
            listen=self._around.listen,
            stop=self._stop,
        )

    def _hooks(self) -> Hooks:
        around = self._around
        return Hooks(around.control.hooks, self.repo, self.id, around.listen, self._stop)

    def _save(self) -> None:
        self._conversation.session.save(self.saved.path)

    def _note_pulled(self, paths: Sequence[str]) -> None:
        self._trajectory.write(PulledRecord(tuple(paths), now()))

    def _adopt(self, history: History) -> None:
        """Be where ``history`` is; the conversation's session holds its ids."""
        self.steps = list(history.steps)
        self._unheard = history.pending
        if history.steps:
            recall(self._conversation, history)

    def _turn(self, text: str) -> RunResult:
        limits = run_limits(self.settings)
        self._stop.expire_in(limits.max_wall_time_s)
        budget = Budget(limits, self.model.engine.context_length)
        pulled = self._mirror.look()
        if self.steps and pulled:
            text = f"{text.strip()}\n\n{CHANGED.format(paths=', '.join(pulled[:NAMED]))}"
        news = self._news(text)
        self._told(news)
        named = {} if self.saved.info.task else {"task": text.strip()}
        self.saved = begun(self.saved, self.settings, self.model, len(self.steps), **named)
        opening = self._resumed(news[-1]) or self._opening(news)
        first = len(self.steps)
        loop = Loop(
            self._conversation,
            self._registry,
            self._workspace,
            budget,
            self._trajectory,
            stop=self._around.stop,
            listen=self._around.listen,
            save=self._save,
            mark=lambda: keep_point(self.saved, self._conversation.session),
            steps=self.steps,
            allowed_from=first,
            compact=self._compactor(),
            overseers=(
                self._hooks(),
                self._mirror,
                self._around.control.approvals.kept_in(self.saved.path),
                Memory(self._sandbox, lambda: loop.steps),
            ),
            answers_end=True,
        )
        try:
            if first:
                result = loop.run(news, user_turn=True, opening=opening)
            else:
                warm = PrefixCache(self.model.engine, self.settings.warm_cache_mb)
                result = Beginning(self.model, warm, self.settings.seed).run(loop, news)
        finally:
            self.steps = loop.steps
        self._unheard = self._left_unheard(loop, result, first)
        self._begun = loop.opening if self._unheard else None
        self._mirror.look()
        return result

    def _compactor(self) -> Compact | None:
        """What gives up a context that is full, or, once, one that the user wants given up."""
        forced, self.compacts = self.compacts, False
        settings, engine = self.settings, self.model.engine
        warm = PrefixCache(engine, settings.warm_cache_mb)
        beginning = Beginning(self.model, warm, self.saved.info.seed)

        def at(share: float) -> Compactor:
            listen = self._around.listen
            return Compactor(self.saved, beginning, share, listen, lambda: keeper(self.saved))

        when_full = at(settings.compact_at) if settings.compact else None
        if not forced:
            return when_full
        return either(at(self._conversation.tokens / engine.context_length), when_full)

    def _left_unheard(self, loop: Loop, result: RunResult, first: int) -> tuple[Message, ...]:
        """What the model must be told before the next message."""
        outcome = result.outcome
        full = isinstance(outcome, LimitReached) and outcome.limit in ("context", "tokens")
        if not full or len(loop.steps) > first:
            return tuple(loop.unheard)
        # The user's own message does not fit. It would fit no better before another one.
        self._told(())
        return ()

    def _news(self, text: str) -> list[Message]:
        """What the model is told: what it was not told yet, and the user's words."""
        check = self.saved.info.check
        said = Message("user", later_text(text, check if check != self._told_check else None))
        self._told_check = check
        if self._unheard:
            return [*self._unheard, said]
        if not self.steps:
            return first_messages(
                Task(text, self.repo, check),
                root=place_of(self._sandbox),
                network=self.settings.online,
                system=WITH_A_PERSON,
                notes=overview(self.repo, self._sandbox, self.settings, self.model),
            )
        last = self.steps[-1]
        answers = answer_texts(last.message, last.observations)
        return [*(Message("tool", answer) for answer in answers), said]

    def _told(self, news: Sequence[Message]) -> None:
        """Write down what the model is about to hear, before it does."""
        self._trajectory.write(resumed(self.settings, self.model, news))

    def _resumed(self, said: Message) -> Opening | None:
        """A prompt for an emptied context that was not heard to its end, with ``said`` in it."""
        begun, self._begun = self._begun, None
        if begun is None or begun.compacted is None:
            return None
        longer = self._conversation.lengthened
        return dataclasses.replace(
            begun, ids=longer(begun.ids, said), written=longer(begun.written, said)
        )

    def _opening(self, news: Sequence[Message]) -> Opening | None:
        """The encoded prompt where it is not simply appended: old reasoning dropped, other ids."""
        if not self.steps:
            return None
        history = history_of(self._trajectory.records)
        other = history.tokenizer not in ("", self.model.chat.tokenizer_fingerprint)
        if self.settings.thinking != "drop" and not other:
            return None
        around = self._around
        parts = Resumption(
            self.saved, "", self.settings, self.model, around.listen, around.stop, around.control
        )
        plan = parts.plan(history, news, self._sandbox, None)
        self._conversation.session.close()
        self._snapshots.clear()
        self._conversation = self._new_conversation(plan.session)
        recall(self._conversation, history)
        return plan.opening

    def _finish(self, result: RunResult) -> str:
        """Write down how the turn ended; returns its status."""
        end = ending(result, len(self.steps))
        self._trajectory.write(end)
        facts = end.facts()
        if not self.broken:
            self._workspace.rebase(self._mirror.base)
            facts["baseline"] = self._mirror.base
            self._remember()
        self.saved = self.saved.update(**facts)
        self._hooks().end({**facts, "patch": end.patch})
        return end.status

    def _remember(self) -> None:
        """Keep the state as it is after the last step, so that a rewind to it prefills nothing."""
        if self._snapshots_of is not self._conversation.session:
            self._snapshots.clear()
        self._snapshots_of = self._conversation.session
        self._snapshots[len(self.steps)] = self._snapshots_of.snapshot()
        for old in sorted(self._snapshots)[:-SNAPSHOTS]:
            del self._snapshots[old]

    def _restore(self, step: int, target: History) -> int:
        """Bring the model's state back to the end of ``step``; returns the tokens prefilled."""
        session, cost = self._conversation.session, 0
        point = self._snapshots.get(step) if session is self._snapshots_of else None
        if point is not None and point.length == len(target.ids):
            session.restore(point)
        else:
            seed = self.saved.info.seed
            found = nearest(self.model.engine, self.saved, target.ids, seed=seed)
            cost = catch_up(found, target.ids, target.usage)
            session.close()
            session = found.session
            self._snapshots.clear()
        if step:
            session.save(self.saved.path)
        self._snapshots = {at: kept for at, kept in self._snapshots.items() if at <= step}
        self._conversation = self._new_conversation(session)
        self._adopt(dataclasses.replace(target, pending=()))
        return cost
