"""The loop: read, speak, act, keep, until the model submits or a limit ends the run.

``Loop.run`` is the whole of it; the methods below it are its verbs, in the order it uses them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

from agent.client import Client
from agent.events import CallDone, CallPlanned, CallRunning, Notice, StepDone
from agent.loop import prompts
from agent.loop.conversation import Conversation, Turn
from agent.loop.journal import Journal
from agent.loop.limits import Limits
from agent.loop.looking import is_read
from agent.loop.overseer import OverseenTools
from agent.loop.stalls import ALTERNATING
from agent.loop.untried import MOST_AGAIN, Untried
from agent.types import (
    Answered,
    Failed,
    LimitReached,
    Outcome,
    Prompt,
    RunResult,
    Submitted,
)
from model.errors import ContextFull, ModelError
from model.messages import Message, ToolCall
from model.usage import Usage
from sandboxes.errors import SandboxError
from tools.types import Observation

AGAIN = "these edits were tested before: another answer is sampled"


@dataclass
class Loop:
    """One run of one session.

    ``conversation`` and ``tools`` must be built with a token that is set once ``limits`` are over,
    so that a long turn or command ends then. With ``search`` no turn tests what was tested before.
    """

    conversation: Conversation
    tools: OverseenTools
    journal: Journal
    limits: Limits
    client: Client
    search: Untried | None = None

    def run(self, prompt: Prompt | None) -> RunResult:
        """Go on from ``prompt`` to an outcome; known errors are one too.

        None goes on with the turn that was cut short.
        """
        try:
            while (end := self._forbidden(prompt)) is None:
                before = (prompt and prompt.before) or self.usage
                if prompt is not None and not self._read(prompt):
                    continue
                turn, prompt = self._speak(), None
                observations = self._act(turn)
                self._keep(turn, observations, before)
                if end := self._ended(turn, observations):
                    break
                prompt = self._answer(turn, observations)
        except ContextFull:
            end, prompt = LimitReached("context", ""), None
        except (SandboxError, ModelError, OSError, MemoryError) as error:
            end, prompt = _failed(error), None
        return self._result(end, prompt)

    def go_on(self) -> RunResult:
        """Go on after the last step as if nothing had happened in between.

        ``limits`` must have seen the steps, and the conversation must have recalled the last turn.
        """
        last = self.journal.steps[-1]
        turn = Turn.of(last)
        if end := self._ended(turn, last.observations):
            return self._result(end, None)
        if turn.ended == "interrupted":
            return self.run(None)
        return self.run(self._answer(turn, last.observations))

    @property
    def usage(self) -> Usage:
        """The session's counters, with the time up to now."""
        self.conversation.session.count(wall_s=self.limits.lap())
        return self.conversation.session.usage

    def _forbidden(self, prompt: Prompt | None) -> Outcome | None:
        """Return what forbids the next turn, if anything."""
        tokens = self.conversation.tokens + (len(prompt.ids) if prompt is not None else 0)
        gone = self.conversation.session.usage.compacted_tokens
        return self.limits.before_turn(tokens, gone, can_empty=prompt is not None)

    def _read(self, prompt: Prompt) -> bool:
        """Run the prompt through the model and write it down; False if it was cancelled."""
        mark = self.journal.mark if prompt.by_user else None
        if not self.conversation.hear(prompt.ids, mark):
            return False
        self.journal.note(prompt)
        return True

    def _speak(self) -> Turn:
        """Let the model write one turn; in a search, one that tests nothing again."""
        if self.search is None:
            return self._sample()
        point = self.conversation.session.snapshot()
        for _ in range(MOST_AGAIN):
            turn = self._sample()
            if turn.ended != "stop" or self.search.takes(turn.message):
                return turn
            self.conversation.take_back(point)
            self.client.listen(Notice(AGAIN))
        return self._sample()

    def _sample(self) -> Turn:
        """Let the model write one turn, as long as the limits allow."""
        session = self.conversation.session
        allowance = self.limits.budget.turn_allowance(
            session.length, session.usage.compacted_tokens
        )
        return self.conversation.speak(allowance, self.limits.budget.limits.thinking)

    def _act(self, turn: Turn) -> tuple[Observation, ...]:
        """Run the turn's calls in order, up to one that submits or that repeats once too often."""
        observations: list[Observation] = []
        if turn.ended == "interrupted":
            return ()
        stalls = self.limits.stalls
        stalls.turn(turn.message)
        for call in turn.message.tool_calls:
            if self.limits.over:
                break
            if call.error is not None:
                seen = self.tools.registry.refuse(call.name, call.error)
            else:
                stalls.call(call)
                if stalls.repeats_end:
                    break
                self.client.listen(CallPlanned(call))
                refused = self.tools.refuse(call)
                if self.client.stop.is_set():
                    break
                seen = refused or self._run(call)
                stalls.result(seen)
                if stalls.identical_corrects:
                    seen = seen.with_note(prompts.REPEATED)
                elif stalls.alternating_corrects:
                    seen = seen.with_note(ALTERNATING)
            self.client.listen(CallDone(call, seen))
            observations.append(seen)
            if seen.submitted:
                break
        return tuple(observations)

    def _run(self, call: ToolCall) -> Observation:
        """Run one call that nobody refused, and count its time."""
        self.client.listen(CallRunning(call))
        start = time.perf_counter()
        try:
            seen = self.conversation.look(self.tools.run(call))
        finally:
            self.conversation.session.count(tool_s=time.perf_counter() - start)
        return self.tools.review(call, seen)

    def _keep(self, turn: Turn, observations: tuple[Observation, ...], before: Usage) -> None:
        """Keep the step, then tell the listener."""
        session = self.conversation.session
        step = self.journal.keep(turn, observations, self.usage - before, session)
        self.limits.turns += 1
        self.limits.stalls.tree(step.tree)
        self.client.listen(StepDone(step))

    def _ended(self, turn: Turn, observations: Sequence[Observation]) -> Outcome | None:
        """Return the outcome that the turn itself brought about, if any."""
        calls = turn.message.tool_calls
        for call, seen in zip(calls, observations, strict=False):
            if seen.submitted:
                return Submitted("", str(call.arguments.get("summary", "")).strip())
        words = turn.message.content.strip()
        answers = words and not calls and not prompts.shows_only_calls(words)
        if self.client.talks and turn.ended == "stop" and answers:
            return Answered("", words)
        return self.limits.after_turn()

    def _answer(self, turn: Turn, observations: Sequence[Observation]) -> Prompt:
        """Return the prompt that answers the turn: each call's result, or what is wrong with it."""
        calls = turn.message.tool_calls
        notes = []
        # A call that was cut says so in its own error.
        if turn.ended == "length" and not (calls and calls[-1].error):
            notes.append(prompts.CUT.format(tokens=len(turn.token_ids)))
        elif not calls:
            shown = prompts.shows_a_call(turn.message.content)
            notes.append(prompts.SHOWN if shown else prompts.NO_CALL)
        if self.limits.stalls.malformed_corrects:
            notes.append(prompts.MALFORMED)
        if self.limits.stalls.unchanged_corrects:
            notes.append(prompts.UNCHANGED)
        note = "\n\n".join(notes)
        answers = answers_to(turn.message, observations)
        if not answers:
            return self.conversation.prompt([Message("user", note, author="agent")])
        if note:
            last = answers[-1]
            answers[-1] = dataclasses.replace(last, content=f"{last.content}\n\n{note}")
        return self.conversation.prompt(answers)

    def _result(self, end: Outcome, unheard: Prompt | None) -> RunResult:
        """Return the run's result, with the workspace's diff in the outcome."""
        try:
            end = dataclasses.replace(end, patch=self.journal.workspace.diff())
        except (SandboxError, OSError) as error:
            if not isinstance(end, Failed):
                end = Failed(f"no patch: {error}", cause=type(error).__name__)
        steps = tuple(self.journal.steps)
        if steps and steps[-1].ended == "interrupted" and unheard and not unheard.by_user:
            unheard = None  # a turn that was cut short is not answered: it may go on
        return RunResult(end, steps, self.usage, unheard)


def answers_to(message: Message, observations: Sequence[Observation]) -> list[Message]:
    """Return what each call of ``message`` gave, also those that the run's end left out."""
    missing = len(message.tool_calls) - len(observations)
    given = [
        Message("tool", seen.text, pictures=tuple(p for p in seen.pictures if is_read(p)))
        for seen in observations
    ]
    return [*given, *[Message("tool", prompts.NOT_RUN)] * missing]


def _failed(error: Exception) -> Failed:
    reason = str(error)
    if not isinstance(error, SandboxError | ModelError):
        reason = f"the run could not go on: {reason or type(error).__name__}"
    return Failed(reason, cause=type(error).__name__)
