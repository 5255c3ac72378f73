"""One live sequence and the network state behind it.

A session only grows: its ids are never re-encoded and nothing is computed twice. The network's
state is an immutable value, so a snapshot or a fork shares it at no cost, and an interrupted call
leaves the state it started from. A token is sampled from the logits of the position before it and
runs through the network with the next step, so the ids may be ahead of the state: what is pending.
With it go drafts where they pay, which are kept as far as the next samples agree with them.

One session may be used from several threads: each call waits for the one under way, which for a
session that is generating is one token.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from model import persist
from model.drafting.drafts import MOST_GUESSES, Ahead, Draft, Drafter
from model.drafting.guesses import guess_draft
from model.drafting.quotes import Quotes
from model.drafting.token_history import TokenHistory
from model.errors import ContextFull, MemoryFull, SessionClosed, StateError
from model.network import Network, Progress, State
from model.sampling import SamplingParams, TokenEvent, choose
from model.scheduler import Scheduler
from model.steering import ANY, Steering
from model.usage import Usage

__all__ = ["Network", "Progress", "Session", "Snapshot", "State", "TokenEvent", "Usage"]


@dataclass(frozen=True)
class _Point:
    """A session's position; replaced as a whole, so that an interrupt cannot leave half a step.

    ``logits`` follow the last token of ``state`` (None before the first). ``ids`` are at least
    those in ``state``; sampled ids are appended. ``turn_start`` is where the last input ended.
    ``spans`` are files that hold the beginning of ``state``, as far as it was ever saved. ``ahead``
    is what the last pass ran beyond ``state``; what is pending is the next of it.
    """

    ids: TokenHistory
    turn_start: int
    state: State
    logits: Tensor | None
    spans: tuple[persist.Span, ...] = ()
    ahead: Ahead | None = None

    @property
    def pending(self) -> list[int]:
        """The ids that the network has not run yet."""
        return self.ids.tail(self.state.length)


@dataclass(frozen=True)
class Snapshot:
    """A point to come back to. Ids, states and KV are shared, whatever the length."""

    point: _Point
    generator: Tensor
    family: object

    @property
    def length(self) -> int:
        """The number of tokens that the session held."""
        return len(self.point.ids)

    @property
    def state(self) -> State:
        """The network's state; what was sampled last has not run yet."""
        return self.point.state

    @property
    def logits(self) -> Tensor | None:
        """``[vocab]``, those that follow ``state``; None if nothing has run."""
        return self.point.logits


class Session:
    """One sequence of tokens over one network. Made by ``Engine.session`` and ``Engine.resume``.

    ``quotes`` are texts that drafts may be copied from beside the session's own; forks share them.
    """

    def __init__(self, scheduler: Scheduler, *, seed: int = 0) -> None:
        self._scheduler = scheduler
        self._network = scheduler.network
        self._at = _Point(TokenHistory(), 0, self._network.new_state(), None)
        self._generator = torch.Generator().manual_seed(seed)
        self._drafter = Drafter(scheduler.costs, scheduler.guess_costs)
        self.quotes = Quotes()
        self._usage = Usage()
        self._family = object()
        self._changes = 0
        self._lock = threading.RLock()
        self.closed = False

    @property
    def ids(self) -> tuple[int, ...]:
        """All ids, prefilled and sampled, in order."""
        return tuple(self._at.ids.tail(0))

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
        they do not fit, ``ValueError`` for ids outside the vocabulary or a part of a picture, and
        ``PictureError`` for a picture that is not at hand. After these, and after
        any exception or interrupt on the way, the session is as it was.
        """
        new = list(ids)
        with self._lock:
            self._open()
            if not new:
                return
            self._network.admit(new)
            there, limit = self.length, self._network.context_length
            if there + len(new) > limit:
                raise ContextFull(
                    f"{len(new)} more tokens do not fit: {there} of {limit} are used;"
                    " shorten the input or start a new session"
                )
            started, at = perf_counter(), self._at
            logits, state = self._scheduler.forward(
                at.pending + new, at.state, on_progress=on_progress
            )
            self._changes += 1
            self._at = _Point(at.ids.extended(new), there + len(new), state, logits, at.spans)
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
        steering: Steering | None = None,
    ) -> Iterator[TokenEvent]:
        """Sample tokens one by one, each under the mask of ``steering`` if there is one.

        Ends after a stop id was sampled (it is part of ``ids``), after ``max_tokens``, when
        ``should_stop()`` says True (asked before each token), or at the context limit. What was
        yielded stays in the session, also if the iterator is abandoned. Raises ``ValueError`` if
        the session is empty, and ``SessionClosed`` if it is closed or changed from elsewhere while
        the iterator is in use.
        """
        with self._lock:
            self._open()
            if not self.length:
                raise ValueError("the session is empty: extend it before generating")
            self._changes += 1
            return self._generate(
                params, max_tokens, stop_ids, should_stop, steering, self._changes
            )

    def _generate(
        self,
        params: SamplingParams,
        max_tokens: int,
        stop_ids: frozenset[int],
        should_stop: Callable[[], bool] | None,
        steering: Steering | None,
        change: int,
    ) -> Iterator[TokenEvent]:
        for left in range(max_tokens, 0, -1):
            if should_stop is not None and should_stop():
                return
            with self._lock:
                self._open()
                if self._changes != change:
                    raise SessionClosed("the session was changed while generating; generate again")
                if self.length >= self._network.context_length:
                    return
                event = self._step(params, left, steering)
            yield event
            if event.id in stop_ids:
                return

    def _step(
        self, params: SamplingParams, left: int, steering: Steering | None = None
    ) -> TokenEvent:
        """Run what is pending and sample one token of at most ``left``. The lock is held."""
        started = perf_counter()
        if self._at.pending:
            self._at = self._run_pending(params, left)
        at = self._at
        assert at.logits is not None
        seen = at.ids.tail(at.turn_start) if params.presence_penalty else ()
        mask = ANY if steering is None else steering.mask()
        event = choose(at.logits, params, seen, self._generator, mask)
        right = self._drafter.sampled(at.ahead, event.id)
        self._at = replace(at, ids=at.ids.extended([event.id]), ahead=at.ahead if right else None)
        source = at.ahead.draft.source if right and at.ahead is not None else None
        self._usage += Usage(
            generated_tokens=1,
            forced_tokens=int(event.forced),
            accepted_tokens=int(right),
            mtp_accepted_tokens=int(source == "mtp"),
            decode_s=perf_counter() - started,
        )
        return replace(event, source=source)

    def _run_pending(self, params: SamplingParams, left: int) -> _Point:
        """Return the point after what is pending: out of the last pass, or by a pass of its own."""
        at, pending = self._at, self._at.pending
        taken = at.ahead.take() if at.ahead is not None else None
        if taken is None and len(pending) == 1:
            # What the last pass left is not needed any more; a new one may need the room.
            self._at = at = replace(at, ahead=None)
            taken = self._verified(params, left)
        if taken is not None:
            logits, state, ahead = taken
            return replace(at, state=state, logits=logits, ahead=ahead)
        logits, state = self._scheduler.forward(pending, at.state)
        return replace(at, state=state, logits=logits, ahead=None)

    def _verified(self, params: SamplingParams, left: int) -> tuple[Tensor, State, Ahead] | None:
        """Run what is pending together with a draft; None if there is none that pays."""
        at, scheduler = self._at, self._scheduler
        room = self._network.context_length - len(at.ids)
        most = min(scheduler.most_verified, left, room) - 1
        if most < 1:
            return None
        draft = self._draft(params, most)
        if not draft.ids:
            return None
        ids = [*at.pending, *draft.ids]
        try:
            logits, trail = scheduler.verify(ids, at.state)
        except MemoryFull:
            return None  # one token alone may still fit
        own = len(draft.ids) if draft.source == "mtp" else 0
        self._usage += Usage(drafted_tokens=len(draft.ids), mtp_drafted_tokens=own)
        return Ahead(ids, logits, trail, draft).take()

    def _draft(self, params: SamplingParams, most: int) -> Draft:
        """Return at most ``most`` ids that may follow the pending one: copied, or guessed."""
        at, scheduler, drafter = self._at, self._scheduler, self._drafter
        copied = Draft()
        if scheduler.drafts != "mtp":
            copied = drafter.copied(at.ids, self.quotes, most, scheduler.company)
        chain = scheduler.chain(at.state)
        if chain is None:
            return copied
        depth = drafter.depth(copied, min(most, MOST_GUESSES), scheduler.company)
        if not depth:
            return copied
        (token,) = at.pending
        made = guess_draft(scheduler, chain, token, params, self._generator, drafter, depth)
        return made if made.ids else copied

    def snapshot(self) -> Snapshot:
        """This point of the session, random numbers included, for ``restore``."""
        with self._lock:
            self._open()
            return Snapshot(self._at, self._generator.get_state(), self._family)

    def restore(self, snapshot: Snapshot, *, redraw: bool = False) -> None:
        """Go back (or forth) to ``snapshot``; what follows is bit for bit what followed it.

        With ``redraw`` the random numbers go on from where they are: what follows is another
        sample. The snapshot may be this session's or that of a session it was forked from or into;
        any other raises ``SessionClosed``. It can be restored any number of times.
        """
        with self._lock:
            self._open()
            if snapshot.family is not self._family:
                raise SessionClosed("the snapshot belongs to another session")
            self._changes += 1
            left = self.length - snapshot.length
            self._usage = replace(self._usage, abandoned_tokens=self._usage.abandoned_tokens + left)
            self._at = snapshot.point
            if not redraw:
                self._generator.set_state(snapshot.generator)

    def fork(self, *, seed: int | None = None) -> Session:
        """Return a second session that continues from here, independent of this one.

        It continues exactly as this one would; with ``seed`` it draws other random numbers. It
        starts with this session's usage: subtract that to get its own.
        """
        with self._lock:
            point, usage = self.snapshot(), self._usage
        twin = Session(self._scheduler, seed=0 if seed is None else seed)
        twin._family = self._family
        twin._usage = usage
        twin._drafter = self._drafter.copy()
        twin.quotes = self.quotes
        twin._at = point.point
        if seed is None:
            twin._generator.set_state(point.generator)
        return twin

    def park(self) -> None:
        """Move the state out of memory (see ``model.state.memory``); the next use brings it back.

        Raises ``MemoryFull`` if there is no room on disk.
        """
        with self._lock:
            self._open()
            self._at.state.park()

    def save(self, directory: Path) -> None:
        """Write the session into ``directory`` (made if missing): all of it or, if killed, none.

        Writes ``session_state.json`` and files under ``state/`` (see ``model.persist``). Costs the
        positions that were never saved, and the state of fixed size. Raises ``StateError`` if it
        cannot be written; an earlier save there then still stands.
        """
        with self._lock:
            self._open()
            at = self._at
            chain = self._scheduler.saved_chain(at.state)
            fixed = at.state.tensors() | (chain.tensors() if chain is not None else {})
            point = {f"network.{name}": t for name, t in fixed.items()}
            if at.logits is not None:
                point["logits"] = at.logits
            point["generator"] = self._generator.get_state()
            record = {
                "fingerprint": self._network.fingerprint,
                "state_length": at.state.length,
                "pending": at.pending,
                "turn_start": at.turn_start,
                "usage": self.usage.as_dict(),
            }

            def cut(start: int, end: int) -> Mapping[str, Tensor]:
                ids = torch.tensor(at.ids.tail(start)[: end - start], dtype=torch.int32)
                own = chain.span(start, end) if chain is not None else {}
                return {"ids": ids, **at.state.span(start, end), **own}

            spans = persist.write(directory, record, point, at.state.length, at.spans, cut)
            self._at = replace(at, spans=spans)

    @classmethod
    def resume(cls, scheduler: Scheduler, directory: Path) -> Session:
        """Load the session saved in ``directory``; it continues bit for bit as the saved one would
        have.

        Raises ``StateError`` if the save is missing, damaged, or of other weights, ``MemoryFull``
        if there is no room for it.
        """
        network = scheduler.network
        saved = persist.read(directory, network.fingerprint)
        record, tensors = saved.record, saved.point
        session = cls(scheduler)
        ids: list[int] = []

        def spans() -> Iterator[Mapping[str, Tensor]]:
            for span in saved.tensors():
                ids.extend(span.pop("ids").tolist())
                yield span

        try:
            session._usage = Usage(**record["usage"])
            session._generator.set_state(tensors.pop("generator"))
            logits = tensors.pop("logits", None)
            length, turn_start = int(record["state_length"]), int(record["turn_start"])
            pending = [int(i) for i in record["pending"]]
            named = {name.removeprefix("network."): t for name, t in tensors.items()}
            state = network.load_state(named, spans(), length)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise StateError(f"the saved session in {directory} is malformed: {error}") from error
        fits = length == len(ids) and (logits is None) == (length == 0)
        if not fits or (logits is not None and logits.shape != (network.vocab_size,)):
            raise StateError(f"the saved session in {directory} contradicts itself; delete it")
        session._at = _Point(TokenHistory(ids + pending), turn_start, state, logits, saved.spans)
        return session

    def close(self) -> None:
        """Let go of the state. May be called twice; any other use then raises ``SessionClosed``."""
        with self._lock:
            self.closed = True
            self._at = replace(self._at, state=self._network.new_state(), logits=None, ahead=None)

    def _open(self) -> None:
        if self.closed:
            raise SessionClosed("the session is closed; start or resume another")
