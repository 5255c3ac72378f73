"""The MTP layer's memory in saved sessions: restored to the bit, or left out without harm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.drafting.drafts import Drafts
from model.hybrid.model import HybridNetwork
from model.network import Work
from model.scheduler import Scheduler
from model.session import Session
from model.state.memory import StateMemory
from model.state.mtp_chain import ChainLoader, SavedChain
from model.state.pages import PAGE, HybridState, MtpChain
from model.state.trail import settle
from tests.support.drafting import guessed_logits, mtp_network, say

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> HybridNetwork:
    return mtp_network()


def chain_of(network: HybridNetwork, session: Session) -> MtpChain | None:
    return network.chain(session.snapshot().state)


def save_and_resume(session: Session, folder: Path, network: HybridNetwork) -> Session:
    session.save(folder)
    return Session.resume(Scheduler(network), folder)


@pytest.mark.parametrize("turns", [(1, 1), (5, 3, 9), (PAGE - 4, 20, 20), (300, 1)])
def test_a_resumed_session_guesses_as_the_saved_one(
    network: HybridNetwork, turns: tuple[int, ...], tmp_path: Path
) -> None:
    session = Session(Scheduler(network), seed=1)
    for number, turn in enumerate(turns):
        session.extend([(i * 31 + number) % 300 for i in range(turn)])
        say(session, 13)
        if number == 1:
            session = save_and_resume(session, tmp_path, network)
        session.save(tmp_path)
    resumed = Session.resume(Scheduler(network), tmp_path)
    wanted, found = chain_of(network, session), chain_of(network, resumed)
    assert wanted is not None
    assert found is not None
    assert (found.length, found.owed) == (wanted.length + len(wanted.owed), ())
    assert found.length == settle(resumed.snapshot().state).length - 1
    ours, theirs = (guessed_logits(network, chain, [7, 8, 9]) for chain in (found, wanted))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert say(resumed, 20) == say(session, 20)


def drop(point: Tensors, spans: list[Tensors]) -> None:
    """Leave out the chain, as a session without the layer does."""
    for tensors in (point, *spans):
        for name in [name for name in tensors if name.startswith("mtp_")]:
            del tensors[name]


def drop_one_span(point: Tensors, spans: list[Tensors]) -> None:
    del spans[0]["mtp_kv"]


def shorten(point: Tensors, spans: list[Tensors]) -> None:
    spans[-1]["mtp_kv"] = spans[-1]["mtp_kv"][:-1]


def lengthen(point: Tensors, spans: list[Tensors]) -> None:
    spans[0]["mtp_kv"] = spans[0]["mtp_kv"].repeat(2, 1, 1, 1, 1)


def widen(point: Tensors, spans: list[Tensors]) -> None:
    spans[0]["mtp_kv"] = spans[0]["mtp_kv"].repeat(1, 2, 1, 1, 1)


def misplace(point: Tensors, spans: list[Tensors]) -> None:
    point["mtp_first"] += 1000


def widen_hidden(point: Tensors, spans: list[Tensors]) -> None:
    point["mtp_hidden"] = point["mtp_hidden"].repeat(1, 2)


@pytest.mark.parametrize(
    ("spoil", "left"),
    [
        (drop, False),
        (widen_hidden, False),
        (drop_one_span, True),
        (shorten, True),
        (lengthen, True),
        (widen, True),
        (misplace, True),
    ],
)
def test_a_chain_that_does_not_fit_is_begun_anew(
    network: HybridNetwork, spoil: Callable[[Tensors, list[Tensors]], None], left: bool
) -> None:
    ids = [(i * 31) % 300 for i in range(PAGE + 20)]
    state = network.run([Work(ids, network.new_state())])[0][1]
    assert isinstance(state, HybridState)
    chain = network.saved_chain(state)
    assert chain is not None
    point = {name: t.clone() for name, t in (state.tensors() | chain.tensors()).items()}
    edges = [0, 100, PAGE + 1, len(ids)]
    spans = [state.span(start, end) | chain.span(start, end) for start, end in pairwise(edges)]
    whole = network.load_state(point, [dict(span) for span in spans], len(ids))
    assert whole.chain is not None
    assert whole.chain.length == len(ids) - 1
    spoil(point, spans)
    loaded = network.load_state(point, spans, len(ids))
    assert loaded.chain is None or loaded.chain.length == 0
    assert (loaded.chain is not None) == left
    assert torch.equal(loaded.span(0, len(ids))["kv"], state.span(0, len(ids))["kv"])
    logits, after = network.run([Work([5], loaded)])[0]
    wanted, _ = network.run([Work([5], state)])[0]
    assert logits is not None
    assert wanted is not None
    assert torch.equal(logits, wanted)
    assert network.chain(after) is not None


@pytest.mark.parametrize(("before", "after"), [("off", "auto"), ("auto", "off"), ("mtp", "copy")])
def test_sessions_with_and_without_the_layer_resume_each_other(
    network: HybridNetwork, before: Drafts, after: Drafts, tmp_path: Path
) -> None:
    session = Session(Scheduler(network, drafts=before), seed=1)
    session.extend(range(90))
    say(session, 20)
    session.save(tmp_path)
    other = mtp_network(mtp=after != "off")
    resumed = Session.resume(Scheduler(other, drafts=after), tmp_path)
    assert say(resumed, 30) == say(session, 30)
    # What is saved in between has a gap, behind which the layer begins.
    resumed.save(tmp_path)
    again = Session.resume(Scheduler(network), tmp_path)
    assert say(again, 20) == say(resumed, 20) == say(session, 20)
    wanted = chain_of(network, again)
    assert wanted is not None
    found = chain_of(network, save_and_resume(again, tmp_path, network))
    assert found is not None
    assert found.length == wanted.length + len(wanted.owed)


def test_where_memory_is_short_the_chain_is_left_out(network: HybridNetwork) -> None:
    ids = list(range(300))
    saved = network.saved_chain(network.run([Work(ids, network.new_state())])[0][1])
    assert saved is not None
    loader = ChainLoader(saved.tensors())
    list(loader.without([{"ids": torch.tensor(ids), **saved.span(0, len(ids))}]))
    layout, width = saved.layout, network.model.config.hidden_size
    tight = replace(layout, memory=StateMemory(layout.page_bytes))
    assert loader.chain(tight, width) is None
    assert tight.memory.used == 0
    assert loader.chain(layout, width) is not None


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(1, 40),
    begun=st.integers(0, 39),
    cuts=st.lists(st.integers(1, 39), max_size=4),
)
def test_a_chain_that_began_late_is_put_together_from_any_spans(
    length: int, begun: int, cuts: list[int]
) -> None:
    network = _NETWORK
    begun %= length
    ids = list(range(length))
    state = network.new_state()
    if begun:
        state = HybridState(
            **{**vars(network.run([Work(ids[:begun], state)])[0][1]), "chain": None}
        )
    after = network.run([Work(ids[begun:], state)])[0][1]
    saved = network.saved_chain(after)
    assert isinstance(saved, SavedChain)
    edges = [0, *sorted({cut for cut in cuts if cut < length}), length]
    loader = ChainLoader(saved.tensors())
    spans = [{"ids": torch.arange(a, b), **saved.span(a, b)} for a, b in pairwise(edges)]
    assert [list(span) for span in loader.without(spans)] == [["ids"]] * len(spans)
    chain = loader.chain(saved.layout, network.model.config.hidden_size)
    assert chain is not None
    assert chain.length == saved.chain.length == length - begun - 1
    ours, theirs = (guessed_logits(network, each, [3]) for each in (chain, saved.chain))
    assert torch.equal(ours[0], theirs[0])


_NETWORK = mtp_network()


def test_pages_of_the_layer_and_of_the_network_do_not_take_each_others_place() -> None:
    network = mtp_network(attention_layers=2)
    runner = network._mtp
    assert runner is not None
    for first, second in ((network.layout, runner.layout), (runner.layout, network.layout)):
        with first.memory.passing():
            first.new_page()
            assert second.new_page().data.shape == second.page
    session = Session(Scheduler(network), seed=1)
    session.extend(range(290))
    say(session, 20)
    session.close()
    plain, guessing = (Session(Scheduler(network, drafts=d), seed=1) for d in ("off", "mtp"))
    for each in (plain, guessing):
        each.extend(range(290))
    assert say(guessing, 20) == say(plain, 20)
