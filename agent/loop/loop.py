"""The loop: the model speaks, its calls run, it reads what they gave, until it submits.

``Loop.run`` is the whole of it; the methods below it are its verbs, in the order it uses them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.events import CallDone, CallPlanned, CallRunning, Listener, StepDone, nobody
from agent.loop import prompts
from agent.loop.budget import Budget
from agent.loop.conversation import Conversation, Turn
from agent.loop.overseer import Overseer, refusal, reviewed
from agent.loop.stalls import ALTERNATING, Guard
from agent.sessions.records import Compaction
from agent.sessions.trajectory import TrajectoryWriter
from agent.types import (
    Answered,
    Failed,
    Interrupted,
    LimitReached,
    Outcome,
    RunResult,
    Step,
    Submitted,
)
from model.errors import ContextFull, ModelError
from model.messages import Message, ToolCall
from model.session import Usage
from sandboxes.errors import SandboxError
from sandboxes.stop import Stop
from sandboxes.workspace.workspace import Workspace
from tools.registry import Registry
from tools.types import Observation


@dataclass(frozen=True)
class Opening:
    """A prompt that is encoded already: ``ids`` are run, ``written`` go into the record.

    With ``at`` they replace the session's ids from there on, and ``tokenizer`` is the fingerprint
    of what they belong to. ``compacted`` says in the record that they took the place of a full
    context, ``messages`` what they spell then.
    """

    ids: Sequence[int]
    written: Sequence[int]
    at: int | None = None
    tokenizer: str | None = None
    compacted: Compaction | None = None
    messages: tuple[Message, ...] = ()


@dataclass
class Loop:
    """One run of one session. ``stop`` is set once the user asked for the end.

    The conversation and the tools must be built with a token that is set then and when the budget
    is out of time, so that a long turn or command ends. With
    ``answers_end`` a turn that has words and no call ends the run: somebody reads it. ``before``
    are the counters at the beginning of the next step, if a part of its prompt has run already.
    ``compact`` is asked before each turn for a prompt that takes the place of a full context.
    """

    conversation: Conversation
    registry: Registry
    workspace: Workspace
    budget: Budget
    trajectory: TrajectoryWriter
    stop: Stop = field(default_factory=Stop)
    listen: Listener = nobody
    save: Callable[[], None] = lambda: None
    mark: Callable[[], None] | None = None
    steps: list[Step] = field(default_factory=list)
    allowed_from: int = 0
    guard: Guard = field(default_factory=Guard)
    counted_s: float = 0.0
    before: Usage | None = None
    overseers: Sequence[Overseer] = ()
    unheard: Sequence[Message] = ()
    opening: Opening | None = None
    compact: Callable[[Loop, Sequence[Message], int], Opening | None] | None = None
    answers_end: bool = False

    def go_on(self) -> RunResult:
        """Go on after the last of ``steps`` as if nothing had happened in between.

        ``guard`` must have seen them, and the conversation must have recalled the last turn.
        """
        last = self.steps[-1]
        turn = Turn(last.message, last.token_ids, last.logprobs, last.ended)
        if end := self._ended(turn, last.observations):
            return RunResult(self._with_patch(end), tuple(self.steps), self.usage)
        if turn.ended == "interrupted":
            return self.run(None)
        return self.run(self._answers(turn, last.observations))

    def say(self, words: str) -> RunResult:
        """Go on after an interrupt with ``words`` of the user, and what was to be told before."""
        told, said = list(self.unheard), Message("user", words)
        self.guard = Guard()
        if (opening := self.opening) is not None:
            longer = self.conversation.lengthened
            opening = dataclasses.replace(
                opening, ids=longer(opening.ids, said), written=longer(opening.written, said)
            )
        if self.steps and (last := self.steps[-1]).ended == "interrupted":
            told = [Message("tool", t) for t in answer_texts(last.message, last.observations)]
        told.append(said)
        self.trajectory.words(told)
        return self.run(told, user_turn=True, opening=opening)

    def run(
        self,
        messages: Sequence[Message] | None,
        *,
        user_turn: bool = False,
        opening: Opening | None = None,
    ) -> RunResult:
        """Go from ``messages`` to an outcome; known errors end in one too.

        None goes on with the turn that was stopped. With ``user_turn`` the messages hold what the
        user wrote, and ``mark`` is called just before the model's answer begins. ``opening``
        replaces their encoding.
        """
        news, self.opening = messages, opening
        mark = self.mark if user_turn else None
        try:
            while True:
                ids = self._encode(news)
                end = self._forbidden(len(ids))
                # No account is asked for where another limit ends the run anyway.
                full = isinstance(end, LimitReached) and end.limit == "context"
                if (
                    news is not None
                    and (full or not end)
                    and (anew := self._compacted(news, len(ids)))
                ):
                    news, ids, self.opening, mark = anew.messages, anew.ids, anew, self.mark
                    end = self._forbidden(len(ids))
                if end:
                    self.unheard = news or ()
                    break
                before, self.before = self.before or self.usage, None
                if news is not None:
                    if not self.conversation.hear(ids, mark):
                        continue
                    self._write_prompt(news, self.opening or Opening(ids, ids))
                    mark = self.opening = None
                turn = self.conversation.speak(self._allowance())
                observations = self._act(turn)
                self._keep(turn, observations, before)
                if end := self._ended(turn, observations):
                    break
                news = self._answers(turn, observations)
        except ContextFull:
            end = LimitReached("context", "")
        except (SandboxError, ModelError) as error:
            end = Failed(str(error), cause=type(error).__name__)
        except (OSError, MemoryError) as error:
            reason = f"the run could not go on: {error or type(error).__name__}"
            end = Failed(reason, cause=type(error).__name__)
        return RunResult(self._with_patch(end), tuple(self.steps), self.usage)

    @property
    def usage(self) -> Usage:
        """The session's counters, with the time up to now."""
        now = self.budget.elapsed_s
        self.conversation.session.count(wall_s=now - self.counted_s)
        self.counted_s = now
        return self.conversation.session.usage

    def _encode(self, news: Sequence[Message] | None) -> Sequence[int]:
        if self.opening is not None:
            return self.opening.ids
        return [] if news is None else self.conversation.encode(news)

    def _compacted(self, news: Sequence[Message], new_tokens: int) -> Opening | None:
        return self.compact(self, news, new_tokens) if self.compact is not None else None

    def _write_prompt(self, news: Sequence[Message], told: Opening) -> None:
        self.trajectory.prompt(
            news, told.written, at=told.at, tokenizer=told.tokenizer, compacted=told.compacted
        )

    def _allowance(self) -> int:
        """How many tokens the next turn may have."""
        session = self.conversation.session
        return self.budget.turn_allowance(session.length, session.usage.compacted_tokens)

    def _forbidden(self, new_tokens: int) -> Outcome | None:
        """What forbids the next turn, if anything."""
        if self.stop.is_set():
            return Interrupted()
        taken = len(self.steps) - self.allowed_from
        gone = self.conversation.session.usage.compacted_tokens
        limit = self.budget.reached(taken, self.conversation.tokens + new_tokens, gone)
        return LimitReached(limit, "") if limit else None

    def _act(self, turn: Turn) -> tuple[Observation, ...]:
        """Run the turn's calls in order, up to one that submits or that repeats once too often."""
        observations: list[Observation] = []
        if turn.ended == "interrupted":
            return ()
        self.guard.turn(turn.message)
        for call in turn.message.tool_calls:
            if self.stop.is_set() or self.budget.out_of_time():
                break
            if call.error is not None:
                seen = self.registry.refuse(call.name, call.error)
            else:
                self.guard.call(call)
                if self.guard.repeats_end:
                    break
                self.listen(CallPlanned(call))
                refused = refusal(self.overseers, call, self.registry)
                if self.stop.is_set():
                    break
                seen = refused or self._run(call)
                self.guard.result(seen)
                if self.guard.identical_corrects:
                    seen = seen.with_note(prompts.REPEATED)
                elif self.guard.alternating_corrects:
                    seen = seen.with_note(ALTERNATING)
            self.listen(CallDone(call, seen))
            observations.append(seen)
            if seen.submitted:
                break
        return tuple(observations)

    def _run(self, call: ToolCall) -> Observation:
        """Run one call that nobody refused, and count its time."""
        self.listen(CallRunning(call))
        start = time.perf_counter()
        try:
            seen = self.registry.run(call.name, call.arguments)
        finally:
            self.conversation.session.count(tool_s=time.perf_counter() - start)
        return reviewed(self.overseers, call, seen)

    def _keep(self, turn: Turn, observations: tuple[Observation, ...], before: Usage) -> None:
        """Keep the files, the record and the model's state of the step, then tell the listener.

        In this order: a record without its state is the step that was under way when a process was
        killed, and is taken back when the session goes on.
        """
        tree = self.workspace.checkpoint()
        self.guard.tree(tree)
        step = Step(
            index=len(self.steps),
            message=turn.message,
            observations=observations,
            usage=self.usage - before,
            token_ids=turn.token_ids,
            logprobs=turn.logprobs,
            ended=turn.ended,
            tree=tree,
        )
        self.steps.append(step)
        self.trajectory.step(step)
        self.save()
        self.listen(StepDone(step))

    def _ended(self, turn: Turn, observations: Sequence[Observation]) -> Outcome | None:
        """The outcome that the turn itself brought about, if any."""
        calls = turn.message.tool_calls
        for call, seen in zip(calls, observations, strict=False):
            if seen.submitted:
                return Submitted("", str(call.arguments.get("summary", "")).strip())
        words = turn.message.content.strip()
        if self.answers_end and turn.ended == "stop" and words and not calls:
            return Answered("", words)
        if self.guard.repeats_end:
            return LimitReached("repeated_calls", "")
        if self.guard.unchanged_ends:
            return LimitReached("no_change", "")
        if self.guard.malformed_ends:
            return LimitReached("malformed_calls", "")
        return None

    def _answers(self, turn: Turn, observations: Sequence[Observation]) -> list[Message]:
        """The messages that answer the turn: one for each call, or what is wrong with it."""
        calls = turn.message.tool_calls
        notes = []
        # A call that was cut says so in its own error.
        if turn.ended == "length" and not (calls and calls[-1].error):
            notes.append(prompts.CUT.format(tokens=len(turn.token_ids)))
        elif not calls:
            notes.append(prompts.NO_CALL)
        if self.guard.malformed_corrects:
            notes.append(prompts.MALFORMED)
        if self.guard.unchanged_corrects:
            notes.append(prompts.UNCHANGED)
        note = "\n\n".join(notes)
        texts = answer_texts(turn.message, observations)
        if not texts:
            return [Message("user", note)]
        if note:
            texts[-1] += f"\n\n{note}"
        return [Message("tool", text) for text in texts]

    def _with_patch(self, end: Outcome) -> Outcome:
        """``end`` with the workspace's diff in it."""
        try:
            return dataclasses.replace(end, patch=self.workspace.diff())
        except (SandboxError, OSError) as error:
            if isinstance(end, Failed):
                return end
            return Failed(f"no patch: {error}", cause=type(error).__name__)


def answer_texts(message: Message, observations: Sequence[Observation]) -> list[str]:
    """What each call of ``message`` gave, also those that the run's end left out."""
    missing = len(message.tool_calls) - len(observations)
    return [seen.text for seen in observations] + [prompts.NOT_RUN] * missing
