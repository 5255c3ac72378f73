"""Sessions in threads: their steps join, prefills go in between, and each gets what is its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
import torch

from model.checkpoint.hub import resolve
from model.engine import Engine
from model.errors import MemoryFull
from model.hybrid.model import HybridNetwork
from model.network import State, Work, pieces
from model.sampling import SamplingParams
from model.scheduler import Scheduler
from model.session import Session

GREEDY = SamplingParams(temperature=0.0)
WARM = SamplingParams(temperature=1.0, top_k=0, top_p=1.0)
NEVER: frozenset[int] = frozenset()


class Recorder:
    """A network that notes what it is asked, may be held up, and may fail for one sequence."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self.passes: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.poison: int | None = None
        self.before: Callable[[Sequence[Work]], None] = lambda work: None
        self.inside = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def run(self, work: Sequence[Work]) -> list[tuple[torch.Tensor | None, State]]:
        self.inside += 1
        assert self.inside == 1, "two passes at once"
        try:
            assert self.gate.wait(60)
            self.before(work)
            if any(self.poison in piece.ids for piece in work):
                raise MemoryFull("no room")
            self.passes.append([len(piece.ids) for piece in work])
            result: list[tuple[torch.Tensor | None, State]] = self._network.run(work)
            return result
        finally:
            self.inside -= 1


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def network(tiny_engine: Engine) -> Recorder:
    return Recorder(tiny_engine.network)


@pytest.fixture
def scheduler(network: Recorder) -> Scheduler:
    return Scheduler(network)


def say(session: Session, count: int, params: SamplingParams = WARM) -> list[int]:
    return [e.id for e in session.generate(params, max_tokens=count, stop_ids=NEVER)]


def started(scheduler: Scheduler, count: int) -> list[Session]:
    sessions = [Session(scheduler, seed=seed) for seed in range(count)]
    for number, session in enumerate(sessions):
        session.extend(range(10 + number, 40 + 3 * number))
    return sessions


@pytest.mark.parametrize("start", [0, 1, 511, 512, 700])
@pytest.mark.parametrize("count", [1, 511, 512, 513, 1500])
def test_pieces_end_on_the_grid(start: int, count: int) -> None:
    ids = list(range(count))
    cut = pieces(ids, start, 512)
    assert [i for piece in cut for i in piece] == ids
    ends = [start + sum(map(len, cut[:n])) for n in range(1, len(cut) + 1)]
    assert all(end % 512 == 0 for end in ends[:-1])
    assert all(0 < len(piece) <= 512 for piece in cut)


def test_alone_a_session_needs_no_thread(network: Recorder, scheduler: Scheduler) -> None:
    threads = threading.active_count()
    (session,) = started(scheduler, 1)
    say(session, 3)
    assert threading.active_count() == threads
    assert network.passes == [[30], [1], [1]]


def test_sessions_in_threads_join_and_say_what_they_would_alone(
    network: Recorder, scheduler: Scheduler
) -> None:
    expected = [say(session.fork(), 40) for session in started(scheduler, 6)]
    network.passes.clear()
    sessions = started(scheduler, 6)
    network.passes.clear()
    barrier = threading.Barrier(6)

    def drive(session: Session) -> list[int]:
        barrier.wait()
        return say(session, 40)

    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(drive, sessions))
    assert got == expected
    assert max(map(len, network.passes)) == 6
    # 39 passes would be perfect; a few more while threads come and go.
    assert len(network.passes) < 39 * 3
    for session in sessions:
        usage = session.usage
        assert usage.prefilled_tokens + usage.generated_tokens == session.length


def test_a_long_prefill_lets_the_others_through(network: Recorder, scheduler: Scheduler) -> None:
    """While somebody waits to say the next word, no two chunks of the prefill follow each other."""
    talker, reader = started(scheduler, 2)
    network.passes.clear()
    network.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        reading = pool.submit(reader.extend, [5] * 2000)
        until(lambda: network.inside == 1)
        talking = pool.submit(say, talker, 5)

        def let_the_talker_ask(work: Sequence[Work]) -> None:
            if len(work[0].ids) > 1:
                until(lambda: talking.done() or any(r.single for r in scheduler._waiting))

        network.before = let_the_talker_ask
        network.gate.set()
        reading.result(60)
        talking.result(60)
    sizes = [piece for each in network.passes for piece in each]
    last_word = max(at for at, size in enumerate(sizes) if size == 1)
    assert sizes[0] > 1 == sizes[1]
    assert all(1 in pair for pair in pairwise(sizes[: last_word + 1]))
    assert sum(size > 1 for size in sizes) == 4


def test_an_error_of_one_is_not_the_error_of_all(network: Recorder, scheduler: Scheduler) -> None:
    sessions = started(scheduler, 3)
    victim = sessions[1]
    bystanders = [sessions[0], sessions[2]]
    network.poison = 999
    network.gate.clear()
    outcomes: list[str] = []

    def drive(session: Session, token: int) -> None:
        try:
            session.extend([token])
            outcomes.append("went on")
        except MemoryFull:
            outcomes.append("full")

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(drive, bystanders[0], 1)
        until(lambda: network.inside == 1)
        rest = [pool.submit(drive, victim, 999), pool.submit(drive, bystanders[1], 2)]
        until(lambda: len(scheduler._waiting) == 2)
        network.gate.set()
        for each in (first, *rest):
            each.result(60)
    assert sorted(outcomes) == ["full", "went on", "went on"]
    network.poison = None
    before = victim.length
    victim.extend([999])
    assert victim.length == before + 1


@pytest.mark.parametrize("worker_there", [False, True])
def test_an_interrupt_while_waiting_leaves_the_session_as_it_was(
    network: Recorder, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, worker_there: bool
) -> None:
    """Without a worker the interrupt comes while one is being started."""
    one, two, other = started(scheduler, 3)
    twin = other.fork()
    network.gate.clear()
    waited = threading.Event.wait

    def interrupted(self: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return waited(self, timeout)

    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(one.extend, [1])]
        until(lambda: network.inside == 1)
        if worker_there:
            busy.append(pool.submit(two.extend, [1]))
            until(lambda: len(scheduler._waiting) == 1)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Event, "wait", interrupted)
            with pytest.raises(KeyboardInterrupt):
                other.extend([2])
        assert len(scheduler._waiting) == worker_there
        network.gate.set()
        for each in busy:
            each.result(60)
    assert other.ids == twin.ids
    assert say(other, 5) == say(twin, 5)
    with ThreadPoolExecutor(2) as pool:
        assert len(set(map(tuple, pool.map(lambda s: say(s, 5), [other, twin])))) == 1


def test_the_worker_ends_when_nobody_asks(
    network: Recorder, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.scheduler._IDLE_S", 0.02)
    sessions = started(scheduler, 2)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda s: say(s, 10), sessions))
    until(lambda: scheduler._worker is None)
    assert say(sessions[0], 2)
    assert scheduler._worker is None


def test_a_batch_is_no_larger_than_allowed(network: Recorder) -> None:
    scheduler = Scheduler(network, max_batch=2)
    sessions = started(scheduler, 5)
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda s: say(s, 8), sessions))
    assert max(map(len, network.passes)) <= 2


@pytest.mark.parametrize("count", [2, 3, 8])
def test_rows_of_a_decode_pass_are_near_those_alone(tiny_engine: Engine, count: int) -> None:
    """How near depends on the kernels; docs/state.md says what is promised."""
    network = tiny_engine.network
    states = []
    for number in range(count):
        ((_, state),) = network.run([Work(range(5, 9 + 70 * number), network.new_state())])
        states.append(state)
    work = [Work([50 + number], state) for number, state in enumerate(states)]
    joined = network.run(work)
    for piece, (logits, state) in zip(work, joined, strict=True):
        ((alone, after),) = network.run([piece])
        assert logits is not None
        assert alone is not None
        torch.testing.assert_close(logits, alone, atol=1e-4, rtol=0)
        assert int(logits.argmax()) == int(alone.argmax())
        assert state.length == after.length
        for name, tensor in after.tensors().items():
            torch.testing.assert_close(state.tensors()[name], tensor, atol=1e-4, rtol=0)


def test_on_the_compiled_path_company_does_not_change_a_bit() -> None:
    """Sampled and greedy, alone and in threads: ids, log-probabilities, logits and states."""
    engine = Engine.load(resolve("embedded"), name="embedded")
    assert isinstance(engine.network, HybridNetwork)
    assert engine.network.compiled is not None
    sessions = started(engine.scheduler, 6)
    params = [WARM if number % 2 else GREEDY for number in range(6)]

    def drive(session: Session, params: SamplingParams) -> list[tuple[int, float]]:
        said = []
        for turn in range(3):
            events = session.generate(params, max_tokens=20 + turn, stop_ids=NEVER)
            said += [(event.id, event.logprob) for event in events]
            session.extend([turn] * 5)
        return said

    alone = [session.fork() for session in sessions]
    expected = list(map(drive, alone, params))
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(drive, sessions, params))
    assert got == expected
    assert engine.scheduler.joined > 0
    for ours, theirs in zip(sessions, alone, strict=True):
        mine, other = ours.snapshot().state, theirs.snapshot().state
        wanted = other.tensors() | other.span(0, other.length)
        for name, tensor in (mine.tensors() | mine.span(0, mine.length)).items():
            assert torch.equal(tensor, wanted[name]), name
