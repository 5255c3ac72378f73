"""One live sequence and the network state behind it.

A session only grows: its ids are never re-encoded and nothing is computed twice. The network's
state is an immutable value, so a snapshot or a fork shares it at no cost, and an interrupted call
leaves the state it started from. A token is sampled from the logits of the position before it and
runs through the network with the next step, so the ids may be ahead of the state: what is pending.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Protocol

import torch
from torch import Tensor

from model import persist
from model.errors import ContextFull, SessionClosed, StateError
from model.sampling import SamplingParams, choose
from model.usage import Usage

__all__ = ["Network", "Progress", "Session", "Snapshot", "State", "TokenEvent", "Usage"]

Progress = Callable[[int, int], None]
"""Told ``(done, total)`` tokens as a prefill advances."""


@dataclass(frozen=True)
class TokenEvent:
    """One sampled token and its log-probability under the model (see ``sampling.choose``)."""

    id: int
    logprob: float


class State(Protocol):
    """What a network remembers of the tokens it has run. An immutable value."""

    @property
    def length(self) -> int:
        """How many tokens went in."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Everything needed to rebuild it, for saving."""
        ...


class Network(Protocol):
    """What a session needs of a model: from token ids and a state to logits and the next state."""

    @property
    def vocab_size(self) -> int:
        """The length of the logits; ids are below it."""
        ...

    @property
    def context_length(self) -> int:
        """The most tokens a sequence may hold."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal for two networks whose saved states are interchangeable."""
        ...

    def new_state(self) -> State:
        """The state before the first token."""
        ...

    def forward(
        self, ids: Sequence[int], state: State, *, on_progress: Progress | None = None
    ) -> tuple[Tensor, State]:
        """Run ``ids`` (at least one) after ``state``.

        Returns the logits ``[vocab]`` that follow the last id, in float32, and the new state.
        ``state`` stays as it was and may be run from again.
        """
        ...

    def load_state(self, tensors: Mapping[str, Tensor], length: int) -> State:
        """The state whose ``tensors()`` these are. Raises ``StateError`` if they do not fit."""
        ...


@dataclass(frozen=True)
class _Point:
    """Where a session is; replaced as a whole, so that an interrupt cannot leave half a step.

    ``logits`` follow the last token of ``state`` (None before the first). ``ids`` are at least
    those in ``state``; sampled ids are appended. ``turn_start`` is where the last input ended.
    """

    ids: list[int]
    turn_start: int
    state: State
    logits: Tensor | None

    @property
    def pending(self) -> list[int]:
        """The ids that the network has not run yet."""
        return self.ids[self.state.length :]


@dataclass(frozen=True)
class Snapshot:
    """A point to come back to. Costs a copy of the token ids; states and KV are shared."""

    ids: tuple[int, ...]
    turn_start: int
    state: State
    logits: Tensor | None
    generator: Tensor
    family: object

    @property
    def length(self) -> int:
        """How many tokens the session held."""
        return len(self.ids)


class Session:
    """One sequence of tokens over one network. Made by ``Engine.session`` and ``Engine.resume``."""

    def __init__(self, network: Network, *, seed: int = 0) -> None:
        self._network = network
        self._at = _Point([], 0, network.new_state(), None)
        self._generator = torch.Generator().manual_seed(seed)
        self._usage = Usage()
        self._family = object()
        self._changes = 0
        self.closed = False

    @property
    def ids(self) -> tuple[int, ...]:
        """All ids, prefilled and sampled, in order."""
        return tuple(self._at.ids)

    @property
    def length(self) -> int:
        """``len(ids)`` without the copy."""
        return len(self._at.ids)

    @property
    def usage(self) -> Usage:
        """Totals since the session began. A rewind lowers ``context_tokens`` alone."""
        return replace(self._usage, context_tokens=len(self._at.ids))

    def count(self, *, thinking_tokens: int = 0, tool_s: float = 0.0, wall_s: float = 0.0) -> None:
        """Add to the counters that only the caller can know; they are saved with the rest."""
        self._usage += Usage(thinking_tokens=thinking_tokens, tool_s=tool_s, wall_s=wall_s)

    def carry(self, usage: Usage) -> None:
        """Add what an earlier life of this conversation has cost and this session does not know."""
        self._usage += replace(usage, context_tokens=0)

    def extend(self, ids: Sequence[int], *, on_progress: Progress | None = None) -> None:
        """Run ``ids`` after what is there (prefill); then ``generate`` may go on from them.

        ``on_progress`` is told ``(done, total)`` tokens after each part. Raises ``ContextFull`` if
        they do not fit and ``ValueError`` for ids outside the vocabulary. After these, and after
        any exception or interrupt on the way, the session is as it was.
        """
        self._open()
        new = list(ids)
        if not new:
            return
        if min(new) < 0 or max(new) >= self._network.vocab_size:
            raise ValueError(f"token ids must be from 0 to {self._network.vocab_size - 1}")
        there, limit = self.length, self._network.context_length
        if there + len(new) > limit:
            raise ContextFull(
                f"{len(new)} more tokens do not fit: {there} of {limit} are used;"
                " shorten the input or start a new session"
            )
        started = perf_counter()
        logits, state = self._network.forward(
            self._at.pending + new, self._at.state, on_progress=on_progress
        )
        self._changes += 1
        self._at = _Point(self._at.ids + new, there + len(new), state, logits)
        self._usage += Usage(
            prefilled_tokens=len(new), reused_tokens=there, prefill_s=perf_counter() - started
        )

    def generate(
        self,
        params: SamplingParams,
        *,
        max_tokens: int,
        stop_ids: frozenset[int],
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[TokenEvent]:
        """Sample tokens one by one.

        Ends after a stop id was sampled (it is part of ``ids``), after ``max_tokens``, when
        ``should_stop()`` says True (asked before each token), or at the context limit. What was
        yielded stays in the session, also if the iterator is abandoned. Raises ``ValueError`` if
        the session is empty, and ``SessionClosed`` if it is closed or changed from elsewhere while
        the iterator is in use.
        """
        self._open()
        if not self._at.ids:
            raise ValueError("the session is empty: extend it before generating")
        self._changes += 1
        return self._generate(params, max_tokens, stop_ids, should_stop, self._changes)

    def _generate(
        self,
        params: SamplingParams,
        max_tokens: int,
        stop_ids: frozenset[int],
        should_stop: Callable[[], bool] | None,
        change: int,
    ) -> Iterator[TokenEvent]:
        for _ in range(max_tokens):
            self._open()
            if self._changes != change:
                raise SessionClosed("the session was changed while generating; generate again")
            if self.length >= self._network.context_length:
                return
            if should_stop is not None and should_stop():
                return
            event = self._step(params)
            yield event
            if event.id in stop_ids:
                return

    def _step(self, params: SamplingParams) -> TokenEvent:
        """Run what is pending and sample one token."""
        started = perf_counter()
        if pending := self._at.pending:
            logits, state = self._network.forward(pending, self._at.state)
            self._at = replace(self._at, state=state, logits=logits)
        assert self._at.logits is not None
        seen = self._at.ids[self._at.turn_start :] if params.presence_penalty else ()
        token, logprob = choose(self._at.logits, params, seen, self._generator)
        self._at.ids.append(token)
        self._usage += Usage(generated_tokens=1, decode_s=perf_counter() - started)
        return TokenEvent(token, logprob)

    def snapshot(self) -> Snapshot:
        """This point of the session, random numbers included, for ``restore``."""
        self._open()
        at = self._at
        return Snapshot(
            self.ids, at.turn_start, at.state, at.logits, self._generator.get_state(), self._family
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back (or forth) to ``snapshot``; what follows is bit for bit what followed it.

        The snapshot may be this session's or that of a session it was forked from or into; any
        other raises ``SessionClosed``. It can be restored any number of times.
        """
        self._open()
        if snapshot.family is not self._family:
            raise SessionClosed("the snapshot belongs to another session")
        self._changes += 1
        self._at = _Point(list(snapshot.ids), snapshot.turn_start, snapshot.state, snapshot.logits)
        self._generator.set_state(snapshot.generator)

    def fork(self, *, seed: int | None = None) -> Session:
        """A second session that continues from here, independent of this one.

        It continues exactly as this one would; with ``seed`` it draws other random numbers. It
        starts with this session's usage: subtract that to get its own.
        """
        self._open()
        twin = Session(self._network, seed=0 if seed is None else seed)
        twin._family = self._family
        twin._usage = self._usage
        drawn = twin._generator.get_state()
        twin.restore(self.snapshot())
        if seed is not None:
            twin._generator.set_state(drawn)
        return twin

    def save(self, directory: Path) -> None:
        """Write the session into ``directory`` (made if missing): all of it or, if killed, none.

        Writes ``session_state.json`` and one file under ``state/``; an earlier save there stays
        valid until the new one is complete. Raises ``StateError`` if it cannot be written.
        """
        self._open()
        at = self._at
        tensors = {f"network.{name}": t for name, t in at.state.tensors().items()}
        if at.logits is not None:
            tensors["logits"] = at.logits
        tensors["generator"] = self._generator.get_state()
        record = {
            "fingerprint": self._network.fingerprint,
            "ids": at.ids,
            "state_length": at.state.length,
            "turn_start": at.turn_start,
            "usage": self.usage.as_dict(),
        }
        persist.write(directory, record, tensors)

    @classmethod
    def resume(cls, network: Network, directory: Path) -> Session:
        """The session saved in ``directory``; what follows is bit for bit what would have followed.

        Raises ``StateError`` if the save is missing, damaged, or of other weights.
        """
        record, tensors = persist.read(directory, network.fingerprint)
        session = cls(network)
        try:
            ids = [int(i) for i in record["ids"]]
            turn_start = int(record["turn_start"])
            session._usage = Usage(**record["usage"])
            session._generator.set_state(tensors.pop("generator"))
            logits = tensors.pop("logits", None)
            length = int(record["state_length"])
            state = network.load_state(
                {name.removeprefix("network."): t for name, t in tensors.items()}, length
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise StateError(f"the saved session in {directory} is malformed: {error}") from error
        fits = length <= len(ids) and (logits is None) == (length == 0)
        if not fits or (logits is not None and logits.shape != (network.vocab_size,)):
            raise StateError(f"the saved session in {directory} contradicts itself; delete it")
        session._at = _Point(ids, turn_start, state, logits)
        return session

    def close(self) -> None:
        """Let go of the state. May be called twice; any other use then raises ``SessionClosed``."""
        self.closed = True
        self._at = replace(self._at, state=self._network.new_state(), logits=None)

    def _open(self) -> None:
        if self.closed:
            raise SessionClosed("the session is closed; start or resume another")
