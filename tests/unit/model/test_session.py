"""Sessions over a real (tiny, random) network: the counters, rewinding, forking, and every end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.engine import Engine
from model.errors import CheckpointError, ContextFull, MemoryFull, SessionClosed
from model.hybrid.model import HybridNetwork
from model.sampling import SamplingParams
from model.session import Session, TokenEvent, Usage
from model.state.pages import HybridState

GREEDY = SamplingParams(temperature=0.0)
WARM = SamplingParams(temperature=1.0, top_k=0, top_p=1.0)
NEVER: frozenset[int] = frozenset()
PROMPT = list(range(40, 60))


def say(session: Session, count: int, params: SamplingParams = WARM) -> list[TokenEvent]:
    return list(session.generate(params, max_tokens=count, stop_ids=NEVER))


@pytest.fixture
def session(tiny_engine: Engine) -> Session:
    session = tiny_engine.session(seed=5)
    session.extend(PROMPT)
    return session


def counts_agree(session: Session) -> bool:
    usage = session.usage
    total = usage.prefilled_tokens + usage.generated_tokens
    return total == usage.context_tokens == len(session.ids) == session.length


def test_ids_are_what_went_in_and_what_came_out(session: Session) -> None:
    said = [event.id for event in say(session, 4)]
    session.extend([7, 8])
    more = [event.id for event in say(session, 3)]
    assert list(session.ids) == [*PROMPT, *said, 7, 8, *more]
    assert counts_agree(session)
    usage = session.usage
    assert (usage.prefilled_tokens, usage.generated_tokens, usage.reused_tokens) == (22, 7, 24)
    assert usage.prefill_s > 0
    assert usage.decode_s > 0


def test_what_is_sampled_equals_a_fresh_prefill_of_the_same_ids(
    tiny_engine: Engine, session: Session
) -> None:
    say(session, 5, GREEDY)
    session.extend([3, 4])
    expected = say(session, 6, GREEDY)
    fresh = tiny_engine.session()
    fresh.extend(session.ids[:-6])
    assert [event.id for event in say(fresh, 6, GREEDY)] == [event.id for event in expected]


def test_equal_seeds_say_the_same_and_others_do_not(tiny_engine: Engine) -> None:
    said = []
    for seed in (1, 1, 2):
        session = tiny_engine.session(seed=seed)
        session.extend(PROMPT)
        said.append(say(session, 12))
    assert said[0] == said[1] != said[2]


def test_greedy_logprobs_are_those_of_the_logits(tiny_engine: Engine, session: Session) -> None:
    event = say(session, 1, GREEDY)[0]
    logits, _ = tiny_engine.scheduler.forward(PROMPT, tiny_engine.network.new_state())
    assert event.id == int(logits.argmax())
    assert event.logprob == pytest.approx(logits.log_softmax(0).max().item(), abs=1e-5)


def test_a_stop_id_ends_the_turn_and_stays(session: Session) -> None:
    twin = session.fork()
    said = [event.id for event in say(twin, 8)]
    stops = frozenset([said[3]])
    got = [event.id for event in session.generate(WARM, max_tokens=8, stop_ids=stops)]
    assert got == said[: said.index(said[3]) + 1]
    assert session.ids[-1] == said[3]


def test_should_stop_is_asked_before_each_token(session: Session) -> None:
    answers = iter([False, False, True])
    events = session.generate(WARM, max_tokens=9, stop_ids=NEVER, should_stop=lambda: next(answers))
    assert len(list(events)) == 2


def test_an_abandoned_iterator_leaves_what_it_yielded(session: Session) -> None:
    twin = session.fork()
    expected = say(twin, 6)
    events = session.generate(WARM, max_tokens=6, stop_ids=NEVER)
    got = [next(events), next(events)]
    del events
    assert session.length == len(PROMPT) + 2
    assert got + say(session, 4) == expected
    assert counts_agree(session)


def test_snapshot_and_restore_repeat_bit_for_bit(session: Session) -> None:
    say(session, 3)
    point = session.snapshot()
    first = say(session, 10)
    session.extend([1, 2, 3])
    then = say(session, 5)
    for _ in range(2):
        session.restore(point)
        assert session.length == point.length
        assert say(session, 10) == first
        session.extend([1, 2, 3])
        assert say(session, 5) == then
    usage = session.usage
    assert usage.context_tokens == session.length
    assert usage.generated_tokens == 3 + 3 * 15


def test_a_fork_continues_as_the_original_would(session: Session) -> None:
    say(session, 3)
    twin = session.fork()
    assert twin.usage == session.usage
    said = say(session, 10)
    assert say(twin, 10) == said
    twin.extend([9])
    assert session.length + 1 == twin.length
    assert counts_agree(session)
    assert counts_agree(twin)


def test_a_fork_with_a_seed_goes_its_own_way(session: Session) -> None:
    one, other = session.fork(seed=1), session.fork(seed=2)
    assert say(one, 12) != say(other, 12)
    assert one.ids[: len(PROMPT)] == session.ids


def test_forks_that_go_apart_do_not_disturb_each_other(session: Session) -> None:
    """Both write keys and values after the same prefix, in turns."""
    twins = [session.fork(seed=seed) for seed in (1, 2)]
    alone = [session.fork(seed=seed) for seed in (1, 2)]
    expected = [say(twin, 300) for twin in alone]
    events = [twin.generate(WARM, max_tokens=300, stop_ids=NEVER) for twin in twins]
    got: list[list[TokenEvent]] = [[], []]
    for pair in zip(*events, strict=True):
        for said, event in zip(got, pair, strict=True):
            said.append(event)
    assert got == expected


def test_snapshots_pass_between_forks_but_not_between_strangers(
    tiny_engine: Engine, session: Session
) -> None:
    point = session.snapshot()
    twin = session.fork()
    say(twin, 2)
    twin.restore(point)
    assert twin.ids == session.ids
    stranger = tiny_engine.session()
    with pytest.raises(SessionClosed, match="another session"):
        stranger.restore(point)


def test_the_presence_penalty_counts_since_the_last_extend(session: Session) -> None:
    heavy = SamplingParams(temperature=0.0, presence_penalty=1e6)
    said = [event.id for event in say(session, 30, heavy)]
    assert len(set(said)) == 30
    session.extend([5])
    # The first of the next turn may repeat what the turn before said.
    plain = session.fork()
    assert say(session, 1, heavy)[0].id == say(plain, 1, GREEDY)[0].id


@pytest.mark.parametrize("cut", [1, 2, 17])
def test_the_penalty_survives_an_abandoned_turn(session: Session, cut: int) -> None:
    heavy = SamplingParams(temperature=0.0, presence_penalty=3.0)
    expected = say(session.fork(), 20, heavy)
    assert say(session, cut, heavy) + say(session, 20 - cut, heavy) == expected


def test_the_context_limit(tiny_engine: Engine) -> None:
    limit = tiny_engine.context_length
    session = tiny_engine.session()
    session.extend([1] * (limit - 3))
    before = session.ids, session.usage
    with pytest.raises(ContextFull, match=str(limit)):
        session.extend([1] * 4)
    assert (session.ids, session.usage) == before
    assert len(say(session, 99)) == 3
    assert session.length == limit
    assert say(session, 99) == []
    assert counts_agree(session)


def test_progress_reaches_the_total_in_a_fixed_grid(tiny_engine: Engine) -> None:
    session = tiny_engine.session()
    session.extend([1] * 100)
    seen: list[tuple[int, int]] = []
    session.extend([2] * 1000, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(412, 1000), (924, 1000), (1000, 1000)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_extend_leaves_the_session_as_it_was(
    session: Session, error: type[BaseException]
) -> None:
    say(session, 2)
    twin = session.fork()
    before = session.ids, session.usage

    def interrupt(done: int, total: int) -> None:
        raise error

    with pytest.raises(error):
        session.extend([1] * 1500, on_progress=interrupt)
    assert (session.ids, session.usage) == before
    for each in (session, twin):
        each.extend([6, 7])
    assert say(session, 8) == say(twin, 8)


@pytest.mark.parametrize("ids", [[-1], [1024], [0, 5000]])
def test_ids_outside_the_vocabulary_are_refused(session: Session, ids: list[int]) -> None:
    with pytest.raises(ValueError, match="1023"):
        session.extend(ids)
    assert session.ids == tuple(PROMPT)


def test_an_empty_extend_does_nothing(session: Session) -> None:
    before = session.usage
    session.extend([])
    assert session.usage == before


def test_an_empty_session_cannot_generate(tiny_engine: Engine) -> None:
    with pytest.raises(ValueError, match="extend"):
        tiny_engine.session().generate(GREEDY, max_tokens=1, stop_ids=NEVER)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.extend([1]),
        lambda s: s.restore(s.snapshot()),
        lambda s: s.generate(GREEDY, max_tokens=1, stop_ids=NEVER),
        lambda s: s.close(),
    ],
)
def test_an_iterator_notices_that_the_session_moved_on(
    session: Session, change: Callable[[Session], Any]
) -> None:
    events = session.generate(GREEDY, max_tokens=5, stop_ids=NEVER)
    next(events)
    change(session)
    with pytest.raises(SessionClosed):
        next(events)


@pytest.mark.parametrize(
    "use",
    [
        lambda s: s.extend([1]),
        lambda s: s.generate(GREEDY, max_tokens=1, stop_ids=NEVER),
        lambda s: s.snapshot(),
        lambda s: s.fork(),
    ],
)
def test_a_closed_session_refuses_everything(
    session: Session, use: Callable[[Session], Any]
) -> None:
    session.close()
    session.close()
    assert session.closed
    with pytest.raises(SessionClosed):
        use(session)


def test_a_snapshot_outlives_what_came_after_it(session: Session) -> None:
    """Its keys and values must not be written over, however the buffer grows."""
    point = session.snapshot()
    expected = say(session.fork(), 5)
    say(session, 600)
    session.restore(point)
    assert say(session, 5) == expected


def test_usage_adds_and_subtracts() -> None:
    early = Usage(context_tokens=10, prefilled_tokens=10, prefill_s=1.0)
    late = Usage(context_tokens=15, prefilled_tokens=12, generated_tokens=3, prefill_s=1.5)
    since = late - early
    assert since == Usage(context_tokens=15, prefilled_tokens=2, generated_tokens=3, prefill_s=0.5)
    assert early + since == late
    assert Usage(**late.as_dict()) == late  # type: ignore[arg-type]


def test_what_the_caller_counts_is_kept(session: Session) -> None:
    session.count(thinking_tokens=3, tool_s=0.5)
    session.count(wall_s=2.0, thinking_tokens=1)
    usage = session.usage
    assert (usage.thinking_tokens, usage.tool_s, usage.wall_s) == (4, 0.5, 2.0)
    assert counts_agree(session)


def test_grad_mode_of_the_caller_does_not_matter(session: Session) -> None:
    twin = session.fork()
    with torch.enable_grad():
        first = say(session, 3)
    with torch.inference_mode():
        assert say(twin, 3) == first


def test_a_parked_session_goes_on_as_if_it_had_not_been(tiny_engine: Engine) -> None:
    session = tiny_engine.session(seed=5)
    session.extend(range(700))
    twin = session.fork()
    expected = say(twin, 6)
    network = tiny_engine.network
    assert isinstance(network, HybridNetwork)
    memory = network.layout.memory
    twin.close()
    before = memory.used
    session.park()
    assert memory.used < before
    assert memory.parked_bytes > 0
    assert say(session, 6) == expected
    assert memory.parked_bytes == 0


def test_parking_takes_nothing_from_a_fork_that_works_on(tiny_engine: Engine) -> None:
    session = tiny_engine.session(seed=5)
    session.extend(range(700))
    twin = session.fork()
    say(twin, 2)
    session.park()
    state = twin.snapshot().state
    assert isinstance(state, HybridState)
    assert not any(page.block.parked for page in state.pages)
    expected = say(twin.fork(), 3)
    assert say(twin, 3) == expected


def test_a_fork_waits_for_the_token_under_way(session: Session) -> None:
    """Another thread forks all the time; each fork goes on from a whole token."""
    expected = say(session.fork(), 60)
    forks: list[Session] = []
    done = threading.Event()

    def fork() -> None:
        while not done.is_set():
            forks.append(session.fork())
            done.wait(0.002)

    thread = threading.Thread(target=fork)
    thread.start()
    assert say(session, 60) == expected
    done.set()
    thread.join()
    assert forks
    for twin in forks[:: max(1, len(forks) // 10)]:
        said = twin.length - len(PROMPT)
        assert say(twin, 60 - said) == expected[said:]


def test_the_budget_ends_a_call_and_not_the_session(tiny_checkpoint: Path) -> None:
    engine = Engine.load(tiny_checkpoint, name="tiny", kv_memory=300_000)
    session = engine.session(seed=5)
    session.extend(PROMPT)
    expected = say(session.fork(), 5)
    before = session.ids, session.usage
    with pytest.raises(MemoryFull, match="--kv-memory"):
        session.extend([1] * 2000)
    assert (session.ids, session.usage) == before
    assert say(session, 5) == expected


def test_a_saved_session_opens_in_another_form_of_keys_and_values(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """From plain to int8 rounds once, and a save keeps what is there: back and forth and back
    again gives the bits of the first way."""
    plain = Engine.load(tiny_checkpoint, name="tiny")
    small = Engine.load(tiny_checkpoint, name="tiny", kv="int8")
    session = plain.session(seed=5)
    session.extend(PROMPT)
    expected = say(session.fork(), 5)
    session.save(tmp_path / "plain")
    rounded = small.resume(tmp_path / "plain")
    assert rounded.ids == session.ids
    assert kv_of(rounded)["kv"].dtype == torch.int8
    rounded.save(tmp_path / "plain")
    assert say(plain.resume(tmp_path / "plain"), 5) == expected

    own = small.session(seed=5)
    own.extend(PROMPT)
    own.save(tmp_path / "int8")
    widened = plain.resume(tmp_path / "int8")
    widened.save(tmp_path / "other")
    for one in (small.resume(tmp_path / "int8"), small.resume(tmp_path / "other")):
        for name, tensor in kv_of(own).items():
            assert torch.equal(kv_of(one)[name], tensor)
    with pytest.raises(CheckpointError, match="--kv fp8 needs a GPU with float8"):
        Engine.load(tiny_checkpoint, name="tiny", kv="fp8", device="cpu")


def kv_of(session: Session) -> dict[str, torch.Tensor]:
    return session.snapshot().state.span(0, session.length)


def test_a_budget_for_not_even_one_session(tiny_checkpoint: Path) -> None:
    with pytest.raises(MemoryFull, match=r"one session of tiny needs at least .* MiB"):
        Engine.load(tiny_checkpoint, name="tiny", kv_memory=1000)


def test_more_sessions_than_fit_take_turns(tiny_checkpoint: Path, tmp_path: Path) -> None:
    engine = Engine.load(tiny_checkpoint, name="tiny", kv_memory=400_000, swap=tmp_path)
    roomy = Engine.load(tiny_checkpoint, name="tiny")
    sessions, expected = [], []
    for number in range(8):
        for each, into in ((engine, sessions), (roomy, expected)):
            into.append(each.session(seed=number))
            into[-1].extend(range(number, 300))
    for _ in range(2):
        for ours, theirs in zip(sessions, expected, strict=True):
            assert say(ours, 2) == say(theirs, 2)
    network = engine.network
    assert isinstance(network, HybridNetwork)
    assert network.layout.memory.used <= 400_000
    assert network.layout.memory.parked_bytes > 0
    assert list(tmp_path.iterdir()) == []
