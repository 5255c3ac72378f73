"""Keeps each step of a session on disk, in the order that a kill at any moment allows for."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.loop.conversation import Turn
from agent.sessions.model_states import keep_point
from agent.sessions.store import SavedSession
from agent.sessions.trajectory import TrajectoryWriter
from agent.types import Prompt, Step
from model.session import Session
from model.usage import Usage
from sandboxes.workspace.workspace import Workspace
from tools.types import Observation


@dataclass
class Journal:
    """The steps of one session, in memory and on disk. ``steps`` are the live ones.

    Without ``keeps_state`` the model's state is not saved, only files and records.
    """

    saved: SavedSession
    workspace: Workspace
    trajectory: TrajectoryWriter
    steps: list[Step] = field(default_factory=list)
    keeps_state: bool = True

    def note(self, prompt: Prompt) -> None:
        """Write down what the model has just been told."""
        self.trajectory.prompt(
            prompt.messages,
            prompt.written,
            at=prompt.at,
            tokenizer=prompt.tokenizer,
            compacted=prompt.compacted,
        )

    def mark(self, session: Session) -> None:
        """Save the state just before the model answers the user, as a point to return to."""
        if self.keeps_state:
            keep_point(self.saved, session)

    def keep(
        self, turn: Turn, observations: tuple[Observation, ...], usage: Usage, session: Session
    ) -> Step:
        """Keep the files, then the record, then the model's state of a step.

        In this order: a record without its state is the step that was under way when a process was
        killed, and is taken back when the session goes on.
        """
        step = Step(
            index=len(self.steps),
            message=turn.message,
            observations=observations,
            usage=usage,
            token_ids=turn.token_ids,
            logprobs=turn.logprobs,
            ended=turn.ended,
            forced=turn.forced,
            closed=turn.closed,
            masked_logprobs=turn.masked_logprobs,
            spans=turn.spans,
            tree=self.workspace.checkpoint(),
        )
        self.steps.append(step)
        self.trajectory.step(step)
        if self.keeps_state:
            session.save(self.saved.path)
        return step
