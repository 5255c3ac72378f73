"""Drafts change how a session gets on, and nothing of what it says: to the last bit.

The drafts come from an oracle that knows what the session without drafts said: of each draft a
given number of ids is right, so that every length of acceptance occurs, wherever blocks end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.native import LEVELS
from model.checkpoint.config import ModelConfig
from model.drafting.drafts import Draft, Drafter
from model.drafting.quotes import Quotes
from model.drafting.token_history import TokenHistory
from model.hybrid.cpu import NativeModel
from model.hybrid.model import VERIFY_ROWS, HybridModel, HybridNetwork
from model.network import Work
from model.sampling import SamplingParams
from model.scheduler import Scheduler
from model.session import Session, TokenEvent
from model.state.memory import StateMemory
from model.state.pages import PAGE
from model.state.trail import HybridTrail, settle
from tests.support.drafting import GREEDY, WARM, detour, say
from tests.support.native import library, random_tensors, small_config

VOCAB = 300
Plan = list[tuple[int, int]]


class Oracle(Drafter):
    """Drafts by a plan, again and again: so many ids, of which so many are right.

    ``truth`` is the session without drafts; where it has not been, ids are made up.
    """

    def __init__(self, truth: Session, plan: Plan) -> None:
        scheduler = Scheduler(truth._network)
        super().__init__(scheduler.costs, scheduler.guess_costs)
        self.truth, self.plan, self.turn = truth, plan, 0

    def copy(self) -> Oracle:
        return Oracle(self.truth, self.plan)

    def copied(self, ids: TokenHistory, quotes: Quotes, most: int, company: int) -> Draft:
        size, right = self.plan[self.turn % len(self.plan)]
        self.turn += 1
        known = self.truth.ids[len(ids) :]
        made = [
            known[n] if n < min(right, len(known)) else (n + right + len(ids)) % VOCAB
            for n in range(min(size, most))
        ]
        return Draft(made, [0] * len(made))


def network_of(
    config: ModelConfig, level: str, dtype: torch.dtype = torch.float32, limit: int | None = None
) -> HybridNetwork:
    model = HybridModel.build(config, random_tensors(config), dtype)
    compiled = NativeModel(model, library(level))
    return HybridNetwork(model, fingerprint="x", compiled=compiled, memory=StateMemory(limit))


@pytest.fixture(scope="module")
def network() -> HybridNetwork:
    return network_of(small_config(vocab_size=VOCAB), LEVELS[0])


def twins(network: HybridNetwork, plan: Plan, seed: int = 1) -> tuple[Session, Session]:
    """A session without drafts and one with drafts by ``plan``."""
    plain = Session(Scheduler(network, drafts="off"), seed=seed)
    drafted = Session(Scheduler(network), seed=seed)
    drafted._drafter = Oracle(plain, plan)
    return plain, drafted


def assert_same(one: Session, other: Session) -> None:
    assert one.ids == other.ids
    ours, theirs = one.snapshot(), other.snapshot()
    assert ours.state.length == theirs.state.length
    assert torch.equal(ours.generator, theirs.generator)
    assert ours.logits is not None
    assert theirs.logits is not None
    assert torch.equal(ours.logits, theirs.logits)
    wanted = theirs.state.tensors() | theirs.state.span(0, theirs.state.length)
    got = ours.state.tensors() | ours.state.span(0, ours.state.length)
    assert all(torch.equal(got[name], tensor) for name, tensor in wanted.items())


plans = st.lists(
    st.integers(0, VERIFY_ROWS - 1).flatmap(lambda k: st.tuples(st.just(k), st.integers(0, k))),
    min_size=1,
    max_size=4,
)
steps = st.lists(
    st.tuples(
        st.integers(0, 20),
        st.integers(1, 30),
        st.sampled_from(["none", "rewind", "fork", "fork and stay", "save", "park"]),
        st.integers(1, 12),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=25, deadline=None)
@given(
    plan=plans,
    prompt=st.sampled_from([1, 9, PAGE - 7, PAGE - 1, PAGE, 2 * PAGE - 4]),
    steps=steps,
    params=st.sampled_from([GREEDY, WARM]),
)
def test_with_drafts_a_session_says_what_it_says_without(
    network: HybridNetwork,
    plan: Plan,
    prompt: int,
    steps: list[tuple[int, int, str, int]],
    params: SamplingParams,
) -> None:
    plain, drafted = twins(network, plan)
    for session in (plain, drafted):
        session.extend([(i * 31) % VOCAB for i in range(prompt)])
    for new, count, kind, aside in steps:
        if new:
            for session in (plain, drafted):
                session.extend(range(new))
        assert say(plain, count, params) == say(drafted, count, params)
        drafted = detour(drafted, kind, aside)
    assert_same(drafted, plain)
    usage = drafted.usage
    assert usage.accepted_tokens <= usage.drafted_tokens


@pytest.mark.parametrize("right", range(VERIFY_ROWS))
def test_every_length_of_acceptance(network: HybridNetwork, right: int) -> None:
    plain, drafted = twins(network, [(VERIFY_ROWS - 1, right)])
    for session in (plain, drafted):
        session.extend(range(PAGE - 30))
    assert say(plain, 60) == say(drafted, 60)
    assert_same(drafted, plain)
    # The first token needs no pass; each block then gives what is right and one token more.
    assert drafted.usage.accepted_tokens >= 59 * right // (right + 1) - VERIFY_ROWS


def test_a_stop_token_or_a_consumer_may_end_a_block_anywhere(network: HybridNetwork) -> None:
    for end in range(1, 12):
        plain, drafted = twins(network, [(7, 7), (5, 3)])
        for session in (plain, drafted):
            session.extend(range(40))
        wanted = say(plain, 12)
        stop = frozenset({wanted[end - 1].id})
        events = list(drafted.generate(WARM, max_tokens=12, stop_ids=stop))
        assert events == wanted[: len(events)]
        assert events[-1].id in stop
        for _ in drafted.generate(WARM, max_tokens=5, stop_ids=frozenset()):
            break  # whoever listens may leave
        told: Iterator[bool] = iter([False, False, True])
        list(drafted.generate(WARM, max_tokens=5, stop_ids=frozenset(), should_stop=told.__next__))
        assert drafted.length == 40 + len(events) + 3
        again = Session(Scheduler(network, drafts="off"), seed=1)
        again.extend(range(40))
        say(again, len(events) + 3)
        assert_same(drafted, again)


def test_a_full_context_ends_both(network: HybridNetwork) -> None:
    small = network_of(small_config(vocab_size=VOCAB, context_length=50), LEVELS[0])
    plain, drafted = twins(small, [(7, 5), (7, 7)])
    for session in (plain, drafted):
        session.extend(range(30))
    assert say(plain, 100) == say(drafted, 100)
    assert drafted.length == 50
    assert_same(drafted, plain)


def test_sessions_with_different_drafts_share_passes(network: HybridNetwork) -> None:
    shared = Scheduler(network)
    plans: list[Plan] = [[(7, 4)], [(0, 0)], [(3, 3), (1, 0)], [(7, 7)], [(2, 1)]]
    barrier = threading.Barrier(len(plans))
    pairs = []
    for number, plan in enumerate(plans):
        plain, _ = twins(network, plan, seed=number)
        plain.extend(range(20 + 60 * number))
        drafted = Session(shared, seed=number)
        drafted._drafter = Oracle(plain, plan)
        drafted.extend(range(20 + 60 * number))
        pairs.append((drafted, plain, say(plain, 50)))

    def drive(number: int) -> list[TokenEvent]:
        barrier.wait()
        drafted = pairs[number][0]
        first = say(drafted, 20)
        drafted.extend([1, 2, 3])  # a prefill in between
        drafted.restore(before := drafted.snapshot())
        assert before.length == drafted.length
        return first

    with ThreadPoolExecutor(len(plans)) as pool:
        firsts = list(pool.map(drive, range(len(plans))))
    for first, (_, _, wanted) in zip(firsts, pairs, strict=True):
        assert first == wanted[:20]
    assert shared.joined > 0


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_have_the_bits_of_steps_at_every_level(level: str, dtype: torch.dtype) -> None:
    # The second has so much state that it is written past the caches.
    wide = small_config(
        vocab_size=VOCAB,
        layer_types=("linear_attention",) * 9 + ("full_attention",),
        linear_num_key_heads=8,
        linear_num_value_heads=16,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
    )
    for config in (small_config(vocab_size=VOCAB), wide):
        network = network_of(config, level, dtype)
        starts = [
            network.run([Work([i % 90 + n % 7 for i in range(n)], network.new_state())])[0][1]
            for n in (3, PAGE - 4)
        ]
        pieces = [Work([7, 1, 1, 250, 9, 3, 8, 2], starts[0]), Work([4, 4, 4, 4, 5], starts[1])]
        verified = network.verify(pieces)
        for work, (logits, trail) in zip(pieces, verified, strict=True):
            state = work.state
            for count, token in enumerate(work.ids, 1):
                ((wanted, state),) = network.run([Work([token], state)])
                assert wanted is not None
                assert torch.equal(logits[count - 1], wanted)
                if count in (1, 3, len(work.ids)):
                    inner = network.verify([work])[0][1].take(count)
                    assert inner is not None
                    for name, tensor in state.tensors().items():
                        assert torch.equal(inner.tensors()[name], tensor)
            assert isinstance(trail, HybridTrail)


def test_rejected_positions_are_used_again_unless_someone_has_them(network: HybridNetwork) -> None:
    plain, drafted = twins(network, [(7, 2)])
    for session in (plain, drafted):
        session.extend(range(10))
    say(drafted, 2)
    (page,) = settle(drafted.snapshot().state).pages
    wanted = say(plain, 40)
    assert say(drafted, 38) == wanted[2:]
    assert settle(drafted.snapshot().state).pages == (page,), "a page was copied"

    # A fork inside a block goes on differently; the states of both stay what they are.
    plain, drafted = twins(network, [(7, 7)])
    for session in (plain, drafted):
        session.extend(range(10))
    say(plain, 30)
    say(drafted, 4)
    other = drafted.fork(seed=9)
    later = drafted.fork()
    say(other, 3)
    say(drafted, 26)
    say(later, 26)
    say(other, 10)
    assert_same(drafted, plain)
    assert_same(later, plain)


def test_without_room_for_drafts_there_are_none() -> None:
    config = small_config(vocab_size=VOCAB)
    layout = network_of(config, LEVELS[0]).layout
    tight = network_of(config, LEVELS[0], limit=2 * layout.slot_bytes + layout.page_bytes)
    plain, _ = twins(network_of(config, LEVELS[0]), [])
    drafted = Session(Scheduler(tight), seed=1)
    drafted._drafter = Oracle(plain, [(7, 7)])
    for session in (plain, drafted):
        session.extend(range(10))
    assert say(plain, 20) == say(drafted, 20)
    assert drafted.usage.drafted_tokens == 0


def test_nothing_is_left_in_memory(network: HybridNetwork) -> None:
    own = network_of(replace(network.model.config), LEVELS[0])
    plain, drafted = twins(own, [(7, 3)])
    for session in (plain, drafted):
        session.extend(range(10))
    say(plain, 20)
    say(drafted, 7)
    fork, point = drafted.fork(), drafted.snapshot()
    say(fork, 5)
    for session in (plain, drafted, fork):
        session.close()
    assert own.layout.memory.used > 0
    del point
    assert own.layout.memory.used == 0
