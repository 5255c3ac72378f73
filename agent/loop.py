"""The loop: the model speaks, its calls run, it reads what they gave, until it submits.

``Loop.run`` is the whole of it; the methods below it are its verbs, in the order it uses them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent import prompt
from agent.context import Budget
from agent.conversation import Conversation, Turn
from agent.events import CallDone, CallRunning, Listener, StepDone, nobody
from agent.guard import Guard
from agent.trajectory import TrajectoryWriter
from agent.types import Failed, Interrupted, LimitReached, Outcome, RunResult, Step, Submitted
from model.errors import ContextFull, ModelError
from model.messages import Message
from model.session import Usage
from sandboxes.errors import SandboxError
from sandboxes.workspace import Workspace
from tools.registry import Registry
from tools.types import Observation


@dataclass
class Loop:
    """One run of one session. ``interrupted`` says whether the user asked for the end.

    The conversation and the tools must be built with a ``halt`` that is True when the user asked
    for the end or the budget is out of time, so that a long turn or command stops then.
    """

    conversation: Conversation
    registry: Registry
    workspace: Workspace
    budget: Budget
    trajectory: TrajectoryWriter
    interrupted: Callable[[], bool] = lambda: False
    listen: Listener = nobody
    steps: list[Step] = field(default_factory=list)
    guard: Guard = field(default_factory=Guard)
    counted_s: float = 0.0

    def run(self, messages: Sequence[Message]) -> RunResult:
        """Go from the first ``messages`` to an outcome; known errors end in one too."""
        news = messages
        try:
            while True:
                ids = self.conversation.encode(news)
                if end := self._forbidden(len(ids)):
                    break
                before = self.usage
                if not self.conversation.hear(ids):
                    continue
                self.trajectory.prompt(news, ids)
                turn = self.conversation.speak(self.budget.turn_allowance(self.conversation.tokens))
                observations = self._act(turn)
                self._keep(turn, observations, before)
                if end := self._ended(turn, observations):
                    break
                news = self._answers(turn, observations)
        except ContextFull:
            end = LimitReached("context", "")
        except (SandboxError, ModelError) as error:
            end = Failed(str(error))
        except (OSError, MemoryError) as error:
            end = Failed(f"the run could not go on: {error or type(error).__name__}")
        return RunResult(self._with_patch(end), tuple(self.steps), self.usage)

    @property
    def usage(self) -> Usage:
        """The session's counters, with the time up to now."""
        now = self.budget.elapsed_s
        self.conversation.session.count(wall_s=now - self.counted_s)
        self.counted_s = now
        return self.conversation.session.usage

    def _forbidden(self, new_tokens: int) -> Outcome | None:
        """What forbids the next turn, if anything."""
        if self.interrupted():
            return Interrupted()
        limit = self.budget.reached(len(self.steps), self.conversation.tokens + new_tokens)
        return LimitReached(limit, "") if limit else None

    def _act(self, turn: Turn) -> tuple[Observation, ...]:
        """Run the turn's calls in order, up to one that submits or that repeats once too often."""
        observations: list[Observation] = []
        if turn.ended == "interrupted":
            return ()
        self.guard.turn(turn.message)
        for call in turn.message.tool_calls:
            if self.interrupted() or self.budget.out_of_time():
                break
            if call.error is not None:
                seen = Observation(call.error, ok=False)
            else:
                self.guard.call(call)
                if self.guard.identical_ends:
                    break
                self.listen(CallRunning(call))
                start = time.perf_counter()
                try:
                    seen = self.registry.run(call.name, call.arguments)
                finally:
                    self.conversation.session.count(tool_s=time.perf_counter() - start)
                if self.guard.identical_corrects:
                    seen = _with_note(seen, prompt.REPEATED)
            self.listen(CallDone(call, seen))
            observations.append(seen)
            if seen.submitted:
                break
        return tuple(observations)

    def _keep(self, turn: Turn, observations: tuple[Observation, ...], before: Usage) -> None:
        """Write the step down before anything else happens, then tell the listener."""
        step = Step(
            index=len(self.steps),
            message=turn.message,
            observations=observations,
            usage=self.usage - before,
            token_ids=turn.token_ids,
            logprobs=turn.logprobs,
            ended=turn.ended,
        )
        self.steps.append(step)
        self.trajectory.step(step)
        self.listen(StepDone(step))

    def _ended(self, turn: Turn, observations: Sequence[Observation]) -> Outcome | None:
        """The outcome that the turn itself brought about, if any."""
        calls = turn.message.tool_calls
        for call, seen in zip(calls, observations, strict=False):
            if seen.submitted:
                return Submitted("", str(call.arguments.get("summary", "")).strip())
        if self.guard.identical_ends:
            return LimitReached("repeated_calls", "")
        if self.guard.malformed_ends:
            return LimitReached("malformed_calls", "")
        return None

    def _answers(self, turn: Turn, observations: Sequence[Observation]) -> list[Message]:
        """The messages that answer the turn: one for each call, or what is wrong with it."""
        calls = turn.message.tool_calls
        notes = []
        # A call that was cut says so in its own error.
        if turn.ended == "length" and not (calls and calls[-1].error):
            notes.append(prompt.CUT.format(tokens=len(turn.token_ids)))
        elif not calls:
            notes.append(prompt.NO_CALL)
        if self.guard.malformed_corrects:
            notes.append(prompt.MALFORMED)
        note = "\n\n".join(notes)
        if not observations:
            return [Message("user", note)]
        *first, last = observations
        last = _with_note(last, note) if note else last
        return [Message("tool", seen.text) for seen in (*first, last)]

    def _with_patch(self, end: Outcome) -> Outcome:
        """``end`` with the workspace's diff in it."""
        try:
            return dataclasses.replace(end, patch=self.workspace.diff())
        except (SandboxError, OSError) as error:
            return end if isinstance(end, Failed) else Failed(f"no patch: {error}")


def _with_note(seen: Observation, note: str) -> Observation:
    return dataclasses.replace(seen, text=f"{seen.text}\n\n{note}")
