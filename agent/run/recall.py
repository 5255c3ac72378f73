"""Bring a saved session back: its files as its last complete step left them, and its model state.

The trajectory says what a session is: which steps are live, their tokens, and the tree of the files
after each. The model's state on disk only saves computing: where it is not the one of the last live
step, the nearest state before it is taken and the rest of the tokens are prefilled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.client import Client
from agent.errors import ConfigError, StoreError
from agent.events import Notice
from agent.loading import LoadedModel
from agent.loop.conversation import Conversation
from agent.run.build import open_workspace
from agent.sessions.history import History, history_of
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
from agent.sessions.records import Record
from agent.sessions.store import SavedSession
from agent.settings.table import Settings
from agent.types import Prompt
from model import persist
from model.errors import StateError
from model.messages import Message
from model.session import Session
from model.usage import Usage
from sandboxes.workspace.kept_tree import Origin
from sandboxes.workspace.workspace import Workspace

UNFINISHED = (RUNNING, KILLED, "interrupted", "cancelled", "compacted", "failed")
SHOWN = 5


def complete_history(
    saved: SavedSession, records: Sequence[Record], keeps_state: bool, model: LoadedModel
) -> tuple[History, Session | None]:
    """Return the history without a last step that was under way, and the newest state if loaded.

    A step whose state was not saved any more is taken back, so that the session goes on bit for bit
    from the step before. With a state further back, or none, the steps stand and the state is
    rebuilt.
    """
    check_records(saved, records)
    history = history_of(records)
    if (
        saved.status not in UNFINISHED
        or not history.steps
        or foreign(saved, history, *model.prints)
    ):
        return history, None
    try:
        session = model.engine.resume(saved.path)
    except StateError:
        # Before the first step there is none, if states are kept at all.
        never = len(history.steps) == 1 and not (saved.path / persist.RECORD).exists()
        return history_of(records, 0) if never and keeps_state else history, None
    at_earlier = session.ids == history.earlier
    return history_of(records, len(history.steps) - 1) if at_earlier else history, session


def reopen_workspace(saved: SavedSession, history: History, settings: Settings) -> Workspace:
    """Lay out the files after the last live step. Raises ``SandboxError``."""
    info = saved.info
    origin = Origin(saved.files, info.baseline, info.head)
    tree = history.tree or info.first_tree
    return open_workspace(settings, info.repo, origin, tree)


def tell_what_changed(saved: SavedSession, workspace: Workspace, client: Client) -> None:
    """Tell the user which of their files changed since the session began, if any did."""
    info = saved.info
    changed = workspace.changed_since(Origin(saved.files, info.baseline, info.head))
    if changed:
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        client.listen(
            Notice(
                f"{info.repo} has changed since the session began ({', '.join(changed[:SHOWN])}"
                f"{more}); the session goes on with the files it had, and its patch is "
                "against those"
            )
        )


@dataclass(frozen=True)
class Recall:
    """Finds the model's state of one claimed session, and what of a prompt it still lacks.

    ``speaker`` is a conversation about which nothing is known yet; it only encodes.
    """

    saved: SavedSession
    settings: Settings
    model: LoadedModel
    client: Client
    speaker: Conversation

    def session(
        self,
        history: History,
        news: Sequence[Message] | None,
        *,
        seed: int | None = None,
        newest: Session | None = None,
    ) -> tuple[Session, Prompt | None]:
        """Return the session to go on with, from the nearest saved state, and ``news`` as a prompt.

        ``newest`` is the state after the last step if it was loaded already. Raises ``ConfigError``
        if the tokens cannot be used, ``StoreError`` if the conversation cannot be encoded anew.
        """
        saved, engine = self.saved, self.model.engine
        why = foreign(saved, history, *self.model.prints)
        self.speaker.take_in(history.messages)
        target = self._target(history, news, "tokenizer" in why)
        found = nearest(
            engine, saved, target, seed=saved.info.seed, foreign=bool(why), newest=newest
        )
        known = 0 if "tokenizer" in why else common(history.ids, target)
        lacking = known - found.session.length
        reason = changed_text(why) if why else found.damage
        if lacking > 0 or (reason and history.steps):
            reason = reason or "that state is not on disk"
            self.client.listen(Notice(f"{reason}; {max(lacking, 0):,} tokens are prefilled again"))
        session = found.session
        had = session.usage
        catch_up(found, target if news is None else target[: session.length], history.usage)
        if why:
            disown(saved)
        prompt = None
        if news is not None:
            before = session.usage
            if not found.current:
                uncounted = _uncounted(had, history.usage)
                session.carry(uncounted + _regained(history.usage, -lacking, uncounted))
            prompt = Prompt(
                tuple(news),
                tuple(target[session.length :]),
                tuple(target[known:]),
                before=before,
                by_user=True,
            )
            if known != len(history.ids):
                tokenizer = self.model.chat.tokenizer_fingerprint
                prompt = replace(prompt, at=known, tokenizer=tokenizer)
        elif lacking:
            session.save(saved.path)
        return (session if seed is None else session.fork(seed=seed)), prompt

    def _target(
        self, history: History, news: Sequence[Message] | None, other_tokenizer: bool
    ) -> Sequence[int]:
        """Return the ids that the session is to hold, ``news`` included."""
        if news is None:
            if other_tokenizer:
                raise ConfigError(
                    f"the tokenizer changed since session {self.saved.id} was saved: its tokens "
                    "cannot be used; give a message, and the conversation is encoded anew"
                )
            return history.ids
        drop = self.settings.thinking == "drop"
        if history.steps and (drop or other_tokenizer):
            whole = [*history.messages, *news]
            try:
                return self.speaker.whole(whole, preserve_thinking=not drop)
            except ValueError as error:
                raise StoreError(
                    f"session {self.saved.id} cannot be encoded anew: {error}"
                ) from error
        if history.steps:
            recall_turn(self.speaker, history)
        return [*history.ids, *self.speaker.encode(news)]


def recall_turn(conversation: Conversation, history: History, *, go_on: bool = False) -> None:
    """Tell ``conversation`` how its last turn ended; with ``go_on`` a stopped one is continued."""
    stopped = history.steps[-1].ended == "interrupted"
    thinking = history.thinking != "off"
    conversation.recall(history.turn_ids, thinking=thinking, go_on=go_on and stopped)


def _regained(spent: Usage, beyond: int, uncounted: Usage) -> Usage:
    """Return the counters for tokens that were abandoned and are in the context again.

    ``beyond`` is how much longer the state is than the live history. What no step counts was never
    abandoned.
    """
    tokens = beyond - uncounted.prefilled_tokens - uncounted.shared_tokens
    return Usage(abandoned_tokens=-max(0, min(tokens, spent.abandoned_tokens)))


def _uncounted(had: Usage, steps: Usage) -> Usage:
    """Return what a state ``had`` cost and no step counts, as its process was killed before."""
    return Usage(
        prefilled_tokens=max(0, had.prefilled_tokens - steps.prefilled_tokens),
        shared_tokens=max(0, had.shared_tokens - steps.shared_tokens),
    )
