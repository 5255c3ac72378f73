"""Guesses of the MTP layer: computed right, and without any trace in what a session says."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.drafting.drafts import MOST_GUESSES, Draft, Drafter
from model.drafting.quotes import Quotes
from model.drafting.token_history import TokenHistory
from model.hybrid.model import HybridNetwork
from model.network import Chain, State, Work
from model.sampling import SamplingParams
from model.scheduler import Scheduler
from model.session import Session, TokenEvent
from model.state.mtp_chain import MOST_OWED
from model.state.pages import PAGE, HybridState
from model.state.trail import settle
from tests.support.drafting import (
    GREEDY,
    MTP_CONFIG,
    WARM,
    detour,
    guessed_logits,
    mtp_network,
    say,
)
from tests.support.native import random_tensors

CONFIG = MTP_CONFIG
VOCAB = CONFIG.vocab_size
Plan = list[tuple[int, int]]


@pytest.fixture(scope="module")
def network() -> HybridNetwork:
    return mtp_network()


def guessed(network: HybridNetwork, state: State, ids: list[int]) -> list[Tensor]:
    return guessed_logits(network, network.chain(state), ids)


# ---- the layer's numbers ----


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + CONFIG.rms_norm_eps).rsqrt() * (1 + weight)


def rotated(x: Tensor, positions: Tensor) -> Tensor:
    """``x [time, heads, dim]`` with the first dimensions turned, in pairs half apart."""
    half = CONFIG.rotary_dim // 2
    angles = positions[:, None].double() * CONFIG.rope_theta ** (-torch.arange(half) / half)
    cos, sin = angles.cos().float()[:, None], angles.sin().float()[:, None]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)


def written_out(t: dict[str, Tensor], hidden: Tensor, following: Tensor) -> Tensor:
    """The MTP layer over a whole sequence, by the report's formulas and nothing of the model's."""
    c, layer = CONFIG, "mtp.layers.0."
    time, heads, kv, dim = len(following), c.num_attention_heads, c.num_key_value_heads, c.head_dim
    embedded = norm(t["embed_tokens.weight"][following], t["mtp.pre_fc_norm_embedding.weight"])
    states = norm(hidden, t["mtp.pre_fc_norm_hidden.weight"])
    x = torch.cat([embedded, states], dim=-1) @ t["mtp.fc.weight"].T
    y = norm(x, t[layer + "input_layernorm.weight"])
    both = (y @ t[layer + "self_attn.q_proj.weight"].T).view(time, heads, 2 * dim)
    q, gate = both[..., :dim], both[..., dim:]
    k = (y @ t[layer + "self_attn.k_proj.weight"].T).view(time, kv, dim)
    v = (y @ t[layer + "self_attn.v_proj.weight"].T).view(time, kv, dim)
    places = torch.arange(time)
    q = rotated(norm(q, t[layer + "self_attn.q_norm.weight"]), places)
    k = rotated(norm(k, t[layer + "self_attn.k_norm.weight"]), places)
    k, v = (part.repeat_interleave(heads // kv, dim=1) for part in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * dim**-0.5
    scores = scores.masked_fill(torch.ones(time, time).triu(1).bool(), float("-inf"))
    mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v) * gate.sigmoid()
    x = x + mixed.reshape(time, -1) @ t[layer + "self_attn.o_proj.weight"].T
    y = norm(x, t[layer + "post_attention_layernorm.weight"])
    gated = F.silu(y @ t[layer + "mlp.gate_proj.weight"].T) * (
        y @ t[layer + "mlp.up_proj.weight"].T
    )
    return norm(x + gated @ t[layer + "mlp.down_proj.weight"].T, t["mtp.norm.weight"])


@settings(max_examples=10, deadline=None)
@given(
    cuts=st.lists(st.sampled_from([1, 1, 2, 7, 9, 40, PAGE - 3, PAGE]), min_size=1, max_size=12),
    verified=st.booleans(),
)
def test_guesses_of_every_depth_equal_the_formulas(
    network: HybridNetwork, cuts: list[int], verified: bool
) -> None:
    ids = [(i * 37 + i // 11) % VOCAB for i in range(sum(cuts) + MOST_GUESSES)]
    state: State = network.new_state()
    at = 0
    for cut in cuts:
        piece = Work(ids[at : at + cut], state)
        if verified and cut <= 8:
            taken = network.verify([piece])[0][1].take(cut)
            assert taken is not None
            state = taken
        else:
            state = network.run([piece])[0][1]
        at += cut
    with torch.inference_mode():
        hidden = network.model.hidden(torch.tensor([ids[:at]]))[0]
        tensors = random_tensors(CONFIG)
        for depth, logits in enumerate(guessed(network, state, ids[at:])):
            out = written_out(tensors, hidden, torch.tensor(ids[1 : at + depth + 1]))
            wanted = network.model.logits(out[-1])[:VOCAB]
            torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)
            hidden = torch.cat([hidden, out[-1:]])


def test_the_layer_equals_the_one_that_is_trained(network: HybridNetwork) -> None:
    ids = torch.tensor([[(i * 31) % VOCAB for i in range(50)]])
    with torch.inference_mode():
        hidden = network.model.hidden(ids)[:, :-1]
        wanted = network.model.draft(hidden, ids[:, 1:])[0]
    torch.testing.assert_close(
        written_out(random_tensors(CONFIG), hidden[0], ids[0, 1:]), wanted, atol=1e-4, rtol=0
    )


def test_guesses_leave_no_trace_in_the_chain(network: HybridNetwork) -> None:
    state = network.run([Work(list(range(PAGE - 2)), network.new_state())])[0][1]
    for token in (5, 6):
        state = network.run([Work([token], state)])[0][1]
    first = guessed(network, state, [1, 2, 3, 4])
    guessed(network, state, [9, 9, 9, 9])
    again = guessed(network, state, [1, 2, 3, 4])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_chain_that_owes_much_pays_and_a_short_memory_ends_it() -> None:
    roomy = mtp_network()
    state = roomy.run([Work([1], roomy.new_state())])[0][1]
    for token in range(3 * MOST_OWED):
        state = roomy.run([Work([token], state)])[0][1]
        chain = settle(state).chain
        assert chain is not None
        assert len(chain.owed) <= MOST_OWED
    layout = roomy.layout
    tight = mtp_network(limit=2 * layout.slot_bytes + layout.page_bytes)
    state = tight.run([Work([1], tight.new_state())])[0][1]
    for token in range(3 * MOST_OWED):
        state = tight.run([Work([token], state)])[0][1]
    # It begins anew again and again; what the session says needs none of it.
    chain = settle(state).chain
    assert chain is None or chain.length == 0


# ---- sessions ----


class Oracle(Drafter):
    """Lets the layer guess by a plan: so many ids, of which so many are right."""

    def __init__(self, scheduler: Knowing) -> None:
        super().__init__(scheduler.costs, scheduler.guess_costs)
        self.scheduler = scheduler

    def copy(self) -> Oracle:
        return Oracle(self.scheduler)

    def copied(self, ids: TokenHistory, quotes: Quotes, most: int, company: int) -> Draft:
        self.scheduler.next = len(ids)
        return Draft()

    def depth(self, draft: Draft, most: int, company: int) -> int:
        return min(most, self.scheduler.turn_plan()[0])

    def another(self, guessed: Draft, company: int) -> bool:
        return True


class Knowing(Scheduler):
    """Runs the layer, and replaces what it says by what ``truth`` says for the first guesses."""

    def __init__(self, network: HybridNetwork, truth: Session, plan: Plan) -> None:
        super().__init__(network)
        self.truth, self.plan, self.turn, self.next, self.made = truth, plan, 0, 0, 0

    def turn_plan(self) -> tuple[int, int]:
        self.turn += 1
        self.made = 0
        return self.plan[self.turn % len(self.plan)]

    def guess(self, chain: Chain, token: int) -> tuple[Tensor, Chain]:
        _, chain = super().guess(chain, token)
        at = self.next + self.made
        self.made += 1
        right = self.made <= self.plan[self.turn % len(self.plan)][1] and at < self.truth.length
        known = self.truth._at.ids.tail(at)[0] if right else (at * 7) % VOCAB
        return F.one_hot(torch.tensor(known), VOCAB).float() * 100, chain


def assert_same(one: Session, other: Session) -> None:
    assert one.ids == other.ids
    ours, theirs = one.snapshot(), other.snapshot()
    assert torch.equal(ours.generator, theirs.generator)
    assert ours.logits is not None
    assert theirs.logits is not None
    assert torch.equal(ours.logits, theirs.logits)
    a, b = settle(ours.state), settle(theirs.state)
    for name, tensor in (b.tensors() | b.span(0, b.length)).items():
        if not name.startswith("mtp"):
            assert torch.equal((a.tensors() | a.span(0, a.length))[name], tensor)


@settings(max_examples=25, deadline=None)
@given(
    plan=st.lists(
        st.integers(0, MOST_GUESSES).flatmap(lambda k: st.tuples(st.just(k), st.integers(0, k))),
        min_size=1,
        max_size=4,
    ),
    prompt=st.sampled_from([1, 9, PAGE - 7, PAGE - 1, PAGE, 2 * PAGE - 4]),
    steps=st.lists(
        st.tuples(
            st.integers(0, 20),
            st.integers(1, 30),
            st.sampled_from(["none", "rewind", "fork", "fork and stay", "save", "park"]),
            st.integers(1, 12),
        ),
        min_size=1,
        max_size=4,
    ),
    params=st.sampled_from([GREEDY, WARM]),
)
def test_with_guesses_a_session_says_what_it_says_without(
    network: HybridNetwork,
    plan: Plan,
    prompt: int,
    steps: list[tuple[int, int, str, int]],
    params: SamplingParams,
) -> None:
    plain = Session(Scheduler(network, drafts="off"), seed=1)
    scheduler = Knowing(network, plain, plan)
    drafted = Session(scheduler, seed=1)
    drafted._drafter = Oracle(scheduler)
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
    assert usage.mtp_accepted_tokens == usage.accepted_tokens <= usage.drafted_tokens
    assert usage.mtp_drafted_tokens == usage.drafted_tokens


@pytest.mark.parametrize("right", range(MOST_GUESSES + 1))
def test_every_length_of_acceptance(network: HybridNetwork, right: int) -> None:
    plain = Session(Scheduler(network, drafts="off"), seed=1)
    plain.extend(range(PAGE - 30))
    wanted = say(plain, 60)
    scheduler = Knowing(network, plain, [(MOST_GUESSES, right)])
    drafted = Session(scheduler, seed=1)
    drafted._drafter = Oracle(scheduler)
    drafted.extend(range(PAGE - 30))
    assert say(drafted, 60) == wanted
    assert_same(drafted, plain)
    assert drafted.usage.mtp_accepted_tokens >= 59 * right // (right + 1) - MOST_GUESSES


def test_sessions_that_guess_share_passes_with_others(network: HybridNetwork) -> None:
    shared = Scheduler(network)
    pairs = []
    for number in range(4):
        plain = Session(Scheduler(network, drafts="off"), seed=number)
        drafted = Session(shared, seed=number)
        for session in (plain, drafted):
            session.extend(range(20 + 60 * number))
        pairs.append((drafted, plain, say(plain, 80)))
    barrier = threading.Barrier(len(pairs))

    def drive(number: int) -> list[TokenEvent]:
        barrier.wait()
        return say(pairs[number][0], 80)

    with ThreadPoolExecutor(len(pairs)) as pool:
        said = list(pool.map(drive, range(len(pairs))))
    assert said == [wanted for _, _, wanted in pairs]
    assert shared.joined > 0
    assert sum(drafted.usage.mtp_drafted_tokens for drafted, _, _ in pairs) > 0


def test_guesses_draw_the_random_numbers_that_the_session_will_draw(
    network: HybridNetwork,
) -> None:
    """A layer that says exactly what the network says is always right, also when sampled."""
    plain = Session(Scheduler(network, drafts="off"), seed=3)
    plain.extend(range(40))

    class Perfect(Scheduler):
        """Answers with the network's own logits."""

        state: State

        def chain(self, state: State) -> Chain | None:
            self.state = state
            return super().chain(state)

        def guess(self, chain: Chain, token: int) -> tuple[Tensor, Chain]:
            logits, self.state = self.forward([token], self.state)
            return logits, chain

    class Eager(Drafter):
        """Guesses as much as it may."""

        def depth(self, draft: Draft, most: int, company: int) -> int:
            return most

        def another(self, guessed: Draft, company: int) -> bool:
            return True

    scheduler = Perfect(network, drafts="mtp")
    drafted = Session(scheduler, seed=3)
    drafted._drafter = Eager(scheduler.costs, scheduler.guess_costs)
    drafted.extend(range(40))
    params = SamplingParams(temperature=1.0, top_k=0, top_p=1.0)
    assert say(drafted, 60, params) == say(plain, 60, params)
    usage = drafted.usage
    assert usage.mtp_drafted_tokens > 40
    # What was not needed any more at the end is the only difference.
    assert usage.mtp_accepted_tokens >= usage.mtp_drafted_tokens - MOST_GUESSES


def test_nothing_is_left_in_memory() -> None:
    network = mtp_network()
    session = Session(Scheduler(network), seed=1)
    session.extend(range(300))
    say(session, 40)
    fork, point = session.fork(), session.snapshot()
    say(fork, 5)
    assert isinstance(settle(point.state), HybridState)
    for each in (session, fork):
        each.close()
    assert network.layout.memory.used > 0
    del point
    assert network.layout.memory.used == 0
