"""Many sessions on one network: their decode steps join in one pass, prefills go in between.

A session that is alone runs the network itself, in its own thread. As soon as two want it at once,
a worker takes over and runs pass after pass: one for all single tokens that are asked for, with the
drafts that go with them, then one chunk of the prefill whose turn it is, so that a long prompt
holds up the others for one chunk at most. The worker ends when nobody has asked for a while.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from time import perf_counter

import torch
from torch import Tensor

from model.drafting.costs import PassCosts
from model.drafting.drafts import Drafts
from model.network import (
    Chain,
    ChainToSave,
    Guessing,
    Network,
    Progress,
    State,
    Trail,
    Verifying,
    Work,
    pieces,
)

MAX_BATCH = 32
"""Sequences in one decode pass."""

_IDLE_S = 0.5
_LEAST_WAIT_S = 0.001
_WAIT_SHARE = 0.5
"""How long a pass waits for sequences that were in the last one: this part of what that took."""


class _Request:
    """One piece of work, or a guess after a chain, and what came of it."""

    def __init__(
        self,
        work: Work | None = None,
        verify: bool = False,
        guess: tuple[Chain, int] | None = None,
        saving: State | None = None,
    ) -> None:
        self.work = work
        self.verify = verify
        self.guess = guess
        self.saving = saving
        self.saved: ChainToSave | None = None
        self.done = threading.Event()
        self.guessed: tuple[Tensor, Chain] | None = None
        self.result: tuple[Tensor | None, State] | None = None
        self.verified: tuple[Tensor, Trail] | None = None
        self.error: Exception | None = None

    @property
    def single(self) -> bool:
        """True if it can join others in a pass."""
        if self.work is None:
            return self.guess is not None
        return self.verify or len(self.work.ids) == 1


class Scheduler:
    """Runs one network for sessions in any threads. A session's result is its own: what is
    guaranteed about its bits is in ``docs/state.md``.

    ``most_verified`` is how many tokens ``verify`` takes: 0 if the network cannot, or without
    ``drafts``. ``threads`` is how many of the processor's threads a pass uses; None leaves that to
    the process.
    """

    def __init__(
        self, network: Network, *, max_batch: int = MAX_BATCH, drafts: Drafts = "auto"
    ) -> None:
        self.network = network
        self.most_verified = 0
        if drafts != "off" and isinstance(network, Verifying):
            self.most_verified = network.verifies
        self.drafts = drafts
        self.threads: int | None = None
        self.costs = PassCosts()
        self.guess_costs = PassCosts()
        self.passes = 0
        self.joined = 0
        self._max_batch = max_batch
        self._lock = threading.Lock()
        self._asked = threading.Condition(self._lock)
        self._waiting: deque[_Request] = deque()
        self._busy = False
        self._worker: threading.Thread | None = None
        self._expected = 1
        self._took_s = self._ended = 0.0

    def forward(
        self, ids: Sequence[int], state: State, *, on_progress: Progress | None = None
    ) -> tuple[Tensor, State]:
        """Run ``ids`` (at least one) after ``state``; returns the logits ``[vocab]`` that follow
        the last, in float32, and the new state.

        Long inputs go in chunks that end at multiples of the network's ``prefill_chunk``, and
        ``on_progress`` is told ``(done, total)`` after each. ``state`` stays as it was. Raises
        ``MemoryFull``.
        """
        parts = pieces(ids, state.length, self.network.prefill_chunk)
        done = 0
        logits = None
        for number, part in enumerate(parts, 1):
            logits, state = self._piece(Work(part, state, logits=number == len(parts)))
            done += len(part)
            if on_progress is not None:
                on_progress(done, len(ids))
        assert logits is not None
        return logits, state

    def verify(self, ids: Sequence[int], state: State) -> tuple[Tensor, Trail]:
        """Run up to ``most_verified`` ids as if they came one by one: the logits ``[ids, vocab]``
        that follow each of them, and the states after each. Raises ``MemoryFull``.
        """
        verified = self._run(_Request(Work(ids, state), True)).verified
        assert verified is not None
        return verified

    def chain(self, state: State) -> Chain | None:
        """Return what ``guess`` goes on from after ``state``; None if the network cannot guess."""
        guessing = self._guessing
        return None if guessing is None else guessing.chain(state)

    def saved_chain(self, state: State) -> ChainToSave | None:
        """Return the chain after ``state`` as it is saved; None if there is nothing to save."""
        return None if self._guessing is None else self._run(_Request(saving=state)).saved

    @property
    def _guessing(self) -> Guessing | None:
        """The network if it can guess and may."""
        network = self.network
        allowed = self.most_verified and self.drafts in ("auto", "mtp")
        return network if allowed and isinstance(network, Guessing) and network.guesses else None

    @property
    def guessable(self) -> Sequence[int]:
        """The ids that the network guesses."""
        return () if self._guessing is None else self._guessing.guessable

    def guess(self, chain: Chain, token: int) -> tuple[Tensor, Chain]:
        """Return the logits ``[guessable]`` by which the network guesses what follows ``token``,
        and the chain after it. Raises ``MemoryFull``.
        """
        guessed = self._run(_Request(guess=(chain, token))).guessed
        assert guessed is not None
        return guessed

    def _piece(self, work: Work) -> tuple[Tensor | None, State]:
        """One piece of ``forward``."""
        result = self._run(_Request(work, False)).result
        assert result is not None
        return result

    @property
    def company(self) -> int:
        """Estimate how many other sequences the next decode pass will have."""
        return max(0, self._expected - 1) if self._worker is not None else 0

    def _run(self, request: _Request) -> _Request:
        """Run one piece: here if nobody else is at it, else by the worker."""
        alone = False
        # An interrupt may come anywhere: it must neither leave the network taken nor work behind.
        try:
            with self._lock:
                if not self._busy and self._worker is None:
                    alone = self._busy = True
                else:
                    self._waiting.append(request)
                    self._asked.notify()
                    self._employ()
            if alone:
                self._compute([request])
                return request
            request.done.wait()
        finally:
            with self._lock:
                if alone:
                    self._busy = False
                    self._asked.notify()
                elif not request.done.is_set() and request in self._waiting:
                    self._waiting.remove(request)
        if request.error is not None:
            raise request.error
        return request

    def _employ(self) -> None:
        """Start a worker if there is none. The lock is held."""
        if self._worker is None:
            worker = threading.Thread(target=self._work, name="scheduler", daemon=True)
            worker.start()
            self._worker = worker

    def _work(self) -> None:
        """Run pass after pass until nobody asks any more."""
        while True:
            with self._lock:
                if self._worker is not threading.current_thread():
                    return
                free = self._asked.wait_for(lambda: self._waiting and not self._busy, _IDLE_S)
                if not free and not self._busy:
                    self._worker = None
                    self._expected = 1
                    return
                if not free:
                    continue
                singles = self._gather()
                longer = next((r for r in self._waiting if not r.single), None)
                if longer is not None:
                    self._waiting.remove(longer)
            if singles:
                self._pass(singles)
            if longer is not None:
                self._pass([longer])

    def _gather(self) -> list[_Request]:
        """Take the single tokens to run now. The lock is held, and let go while waiting.

        Those who were in the last pass will most likely ask again as soon as they have sampled, and
        those who asked while it ran are there already.
        """
        until = self._ended + max(_LEAST_WAIT_S, _WAIT_SHARE * self._took_s)
        expected = min(self._expected, self._max_batch)
        while True:
            singles = [r for r in self._waiting if r.single][: self._max_batch]
            left = until - perf_counter()
            if len(singles) >= expected or left <= 0:
                break
            self._asked.wait(left)
        # Those who guess ask again at once, and then share a pass with the others.
        singles = [r for r in singles if r.guess is not None] or singles
        for request in singles:
            self._waiting.remove(request)
        return singles

    def _compute(self, requests: Sequence[_Request]) -> None:
        """Run one pass, on ``threads`` threads, and note what came of it."""
        before = torch.get_num_threads()
        wanted = self.threads or before
        if wanted == before:
            self._run_pass(requests)
            return
        torch.set_num_threads(wanted)
        try:
            self._run_pass(requests)
        finally:
            torch.set_num_threads(before)

    def _run_pass(self, requests: Sequence[_Request]) -> None:
        if requests[0].saving is not None:
            assert isinstance(self.network, Guessing)
            requests[0].saved = self.network.saved_chain(requests[0].saving)
            return
        started = perf_counter()
        guesses = [request.guess for request in requests if request.guess is not None]
        if guesses:
            assert isinstance(self.network, Guessing)
            for request, guessed in zip(requests, self.network.guess(guesses), strict=True):
                request.guessed = guessed
            self.guess_costs.note(len(guesses), perf_counter() - started)
            return
        work = [request.work for request in requests if request.work is not None]
        if any(request.verify for request in requests):
            assert isinstance(self.network, Verifying)
            for request, (logits, trail) in zip(requests, self.network.verify(work), strict=True):
                if request.verify:
                    request.verified = logits, trail
                else:
                    state = trail.take(1)
                    assert state is not None
                    request.result = logits[0], state
        else:
            for request, result in zip(requests, self.network.run(work), strict=True):
                request.result = result
        self.passes += 1
        self.joined += len(requests) - 1
        if requests[0].single:
            self.costs.note(sum(len(piece.ids) for piece in work), perf_counter() - started)

    def _pass(self, requests: Sequence[_Request]) -> None:
        """Run one pass and hand out what came of it; a failure is met one by one."""
        started = perf_counter()
        try:
            self._compute(requests)
        except Exception as error:
            if len(requests) > 1:
                for request in requests:
                    self._pass([request])
                return
            requests[0].error = error
            requests[0].done.set()
            return
        if requests[0].single:
            self._ended = perf_counter()
            self._took_s = self._ended - started
            with self._lock:
                # Those who asked meanwhile, too: else two sessions would take turns for ever.
                self._expected = len(requests) + sum(r.single for r in self._waiting)
        for request in requests:
            request.done.set()
