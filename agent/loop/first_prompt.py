"""The beginning of a session: its first prompt, from a stored beginning where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from agent.loading import LoadedModel
from agent.loop.conversation import Conversation
from agent.loop.prompts import fixed_part
from agent.sessions.model_states import common
from agent.sessions.prefix_cache import MIN_TOKENS, PrefixCache
from agent.types import Prompt
from model.errors import ModelError
from model.messages import Message
from model.session import Session
from model.usage import Usage

LOOK_S = 0.1
"""How often who waits for another's beginning looks whether to stop."""


@dataclass(frozen=True)
class Beginning:
    """The way first prompts run: in the same pieces whether or not a state is stored."""

    model: LoadedModel
    cache: PrefixCache
    seed: int

    def enter(
        self, conversation: Conversation, messages: Sequence[Message], trunk: Trunk | None = None
    ) -> Prompt | None:
        """Give ``conversation`` a session with the part of ``messages`` that tasks have in common.

        Return the rest. ``trunk`` keeps the session as it begins and at each cut. None if it was
        cancelled, or the prompt does not fit: the conversation is then new, and whoever runs the
        messages finds out why.
        """
        fresh = conversation.fresh()
        ids = fresh.encode(messages)
        cuts = self.cuts(fresh, messages, ids)
        if len(ids) >= self.model.engine.context_length:
            cuts = []
        with self._first(conversation, ids, cuts):
            if not self._enter(conversation, ids, cuts, trunk):
                return None
        rest = ids[conversation.tokens :]
        return Prompt(tuple(messages), tuple(rest), tuple(ids), before=Usage(), by_user=True)

    @contextmanager
    def _first(
        self, conversation: Conversation, ids: Sequence[int], cuts: Sequence[int]
    ) -> Iterator[None]:
        """Hold the model's ``beginning`` if what ``cuts`` end is to be run and stored."""
        if not cuts or self.cache.has(ids, cuts) is not False:
            yield
            return
        lock = self.model.beginning
        while not (held := lock.acquire(timeout=LOOK_S)) and not conversation.stop.is_set():
            pass
        try:
            yield
        finally:
            if held:
                lock.release()

    def _enter(
        self,
        conversation: Conversation,
        ids: Sequence[int],
        cuts: Sequence[int],
        trunk: Trunk | None,
    ) -> bool:
        conversation.adopt(self.cache.start(ids, cuts, seed=self.seed))
        if trunk is not None:
            trunk.add(conversation.session)
        for number, cut in enumerate(cuts):
            if cut <= conversation.tokens:
                continue
            before = conversation.tokens
            try:
                heard = conversation.hear(ids[before:cut])
            except ModelError:
                heard = False
            if not heard:
                conversation.adopt(self.model.engine.session(seed=self.seed))
                return False
            # One prompt in pieces: what the piece before left is not a second use of it.
            conversation.session.carry(Usage(reused_tokens=-before))
            self.cache.keep(conversation.session, cuts[: number + 1])
            if trunk is not None:
                trunk.add(conversation.session)
        return True

    def cuts(
        self, fresh: Conversation, messages: Sequence[Message], ids: Sequence[int]
    ) -> list[int]:
        """Return where in ``ids`` the parts end that other tasks will have too, in order.

        They are found by rendering the same system message before another user's words, and, for
        tasks in other repositories, its fixed part alone.
        """
        if len(messages) < 2 or messages[0].role != "system":
            return []
        other = fresh.encode([messages[0], Message("user", "?")])
        cut = common(ids, other)
        # The words of the two may begin with the same tokens; a turn's start is the same always.
        cut = self.model.chat.turn_cut(ids[:cut])
        fixed = 0
        if part := fixed_part(messages[0].content):
            fixed = common(ids, fresh.encode([Message("system", part), Message("user", "?")]))
        return [at for at in (fixed, cut) if at >= MIN_TOKENS]


@dataclass
class Trunk:
    """The common beginning of several attempts: states of one session, by length."""

    ids: list[int]
    states: dict[int, Session]

    def add(self, session: Session) -> None:
        """Keep ``session`` as it is now."""
        self.states[session.length] = session.fork()

    def branch(self, ids: Sequence[int], *, seed: int, first: bool) -> Session:
        """Return a session with the longest kept beginning of ``ids``.

        The ``first`` branch has paid for it; for the others it is shared.
        """
        known = common(self.ids, ids)
        at = max(length for length in self.states if length <= known)
        base = self.states[at]
        branch = base.fork(seed=seed)
        if not first:
            branch.carry(Usage(shared_tokens=at) - base.usage)
        return branch

    def close(self) -> None:
        """Let go of the states."""
        for session in self.states.values():
            session.close()


@dataclass(frozen=True)
class Branch:
    """The beginning of one of several attempts: from the trunk, with random numbers of its own."""

    trunk: Trunk
    seed: int
    first: bool

    def enter(self, conversation: Conversation, messages: Sequence[Message]) -> Prompt:
        """Give ``conversation`` a session that branches off, and return the rest of the prompt."""
        ids = tuple(conversation.fresh().encode(messages))
        conversation.adopt(self.trunk.branch(ids, seed=self.seed, first=self.first))
        rest = ids[conversation.tokens :]
        return Prompt(tuple(messages), rest, ids, before=Usage(), by_user=True)
