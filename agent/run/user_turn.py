"""One turn of the user's in an open session: from what the model is told to an outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.loop.budget import Budget
from agent.loop.compaction import Compactor
from agent.loop.limits import Limits
from agent.loop.loop import Loop
from agent.loop.stalls import Stalls, stalls_after
from agent.run import bookkeeping
from agent.run.build import run_limits
from agent.run.parts import Parts
from agent.run.prompter import Prompter
from agent.run.recall import UNFINISHED
from agent.types import Interrupted, LimitReached, Prompt, RunResult
from model.vision.picture import Picture


@dataclass
class UserTurn:
    """Runs the loop as often as a turn needs it: a full context is emptied between two runs."""

    parts: Parts
    prompter: Prompter
    compactor: Compactor = field(init=False)

    def __post_init__(self) -> None:
        self.compactor = self.parts.compactor()

    def run(
        self, text: str | None, pictures: Sequence[Picture] = (), *, compacts: bool = False
    ) -> RunResult:
        """Tell the model ``text``, or let it go on, and run until nothing is left to do.

        ``pictures`` are shown with the text. With ``compacts`` the context is given up for a
        summary first.
        """
        parts, prompter = self.parts, self.prompter
        changed = parts.mirror.look() if parts.mirror is not None else ()
        news = prompter.compose(text, changed, pictures)
        first, limits = len(parts.steps), self._limits(text, goes_on=news is None)
        try:
            prompt = prompter.begin(news, asked=text is not None)
            self._mark_running(text, limits)
            prompter.is_new = False
            loop = Loop(
                parts.conversation,
                parts.tools(),
                parts.journal,
                limits,
                parts.client,
                parts.search,
            )
            if compacts and prompt is not None:
                full, before = parts.conversation.tokens, loop.usage
                summary = self.compactor.compact(loop.conversation, prompt, full, before)
                prompt = summary or prompt
            result = self._settle(loop, loop.go_on() if news is None else loop.run(prompt))
        finally:
            parts.stop.expire_in(None)
        prompter.unheard = result.unheard
        outcome = result.outcome
        full_up = isinstance(outcome, LimitReached) and outcome.limit in ("context", "tokens")
        if parts.client.talks and full_up and len(parts.steps) == first:
            # The user's own message does not fit. It would fit no better before another one.
            prompter.forget_last()
        if parts.mirror is not None:
            parts.mirror.look()
        return result

    def _settle(self, loop: Loop, result: RunResult) -> RunResult:
        """Run on as long as a full context can be emptied, or the user has words after a stop."""
        words = self.parts.client.words
        while True:
            if (prompt := self._emptied(loop, result)) is not None:
                result = loop.run(prompt)
            elif isinstance(result.outcome, Interrupted) and words and (said := words()):
                loop.limits.forgive()
                result = loop.run(self.prompter.interject(result.unheard, said))
            else:
                return result

    def _emptied(self, loop: Loop, result: RunResult) -> Prompt | None:
        """Return the prompt to run on with where a full context ended the run, if there is one."""
        outcome, prompt, limits = result.outcome, result.unheard, loop.limits
        full = isinstance(outcome, LimitReached) and outcome.limit == "context"
        if prompt is None or not full or limits.full_at is None:
            return None
        conversation, length = loop.conversation, limits.budget.context_length
        summary = self.compactor.compact(conversation, prompt, self._full_at(length), loop.usage)
        if summary is not None:
            return summary
        tokens = conversation.tokens + len(prompt.ids)
        if tokens >= length:
            return None
        limits.tolerate(length if self.compactor.gave_up else tokens)
        return prompt

    def _full_at(self, length: int) -> int:
        return int(self.parts.settings.compact_at * length)

    def _limits(self, text: str | None, *, goes_on: bool) -> Limits:
        """Return the limits of the turn; its clock begins to run.

        A turn that was cut short and goes on has the limits that it had.
        """
        parts, steps = self.parts, self.parts.steps
        same = text is None and parts.saved.status in UNFINISHED
        allowed_from = min(parts.saved.info.allowed_from, len(steps)) if same else len(steps)
        limits, length = run_limits(parts.settings), parts.model.engine.context_length
        parts.stop.expire_in(limits.max_wall_time_s)
        return Limits(
            Budget(limits, length),
            parts.client.stop,
            full_at=self._full_at(length) if parts.settings.compact else None,
            stalls=stalls_after(steps[allowed_from:]) if same and goes_on else Stalls(),
            turns=len(steps) - allowed_from,
        )

    def _mark_running(self, text: str | None, limits: Limits) -> None:
        """Write down that a turn runs. The first text of a session is its task."""
        parts = self.parts
        if self.prompter.is_new and text is None:
            return  # that is how it was made
        task = {} if text is None or parts.saved.info.task else {"task": text.strip()}
        parts.saved = bookkeeping.mark_running(
            parts.saved,
            parts.settings,
            parts.model,
            len(parts.steps) - limits.turns,
            check=self.prompter.check,
            **task,
        )
