"""Forced tokens and masks with drafts, forks and saves: the same turn to the last bit."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.loading import LoadedModel, load_model
from agent.loop.constrained import ConstrainedCalls
from agent.loop.conversation import Conversation, Turn
from agent.loop.thinking_bound import ThinkLimits
from model.messages import Message
from model.sampling import SamplingParams
from tests.property.test_drafts import Oracle, Plan
from tools.registry import default_tools

HOT = SamplingParams(temperature=1.2, top_k=0, top_p=1.0)
TOOLS = [tool.schema() for tool in default_tools()]
ASKED = [Message("system", "You repair code."), Message("user", "Mend calc.py.")]
BUDGET, LENGTH = ThinkLimits(6), 90


@pytest.fixture(scope="module")
def plain() -> LoadedModel:
    return load_model("embedded", drafts="off")


@pytest.fixture(scope="module")
def drafting() -> LoadedModel:
    return load_model("embedded", drafts="copy")


@pytest.fixture(scope="module")
def constrained(plain: LoadedModel) -> ConstrainedCalls:
    return ConstrainedCalls(plain.chat, TOOLS)


def begun(model: LoadedModel, constrained: ConstrainedCalls, seed: int) -> Conversation:
    session = model.engine.session(seed=seed)
    talk = Conversation(session, model.chat, TOOLS, HOT, constrained=constrained)
    talk.hear(talk.encode(ASKED))
    return talk


def told(*turns: Turn) -> list[Sequence[object]]:
    """Return what was sampled and forced, and with which probability, of every turn."""
    ids = [i for turn in turns for i in turn.token_ids]
    logprobs = [p for turn in turns for p in turn.logprobs]
    masked = [p for turn in turns for p in turn.masked_logprobs]
    starts = [sum(len(t.token_ids) for t in turns[:n]) for n in range(len(turns))]
    forced = [s + at for s, turn in zip(starts, turns, strict=True) for at in turn.forced]
    return [ids, logprobs, masked, forced]


@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 50),
    plan=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=6),
    cut=st.integers(1, LENGTH - 1),
)
def test_drafts_and_saves_change_nothing_of_a_steered_turn(
    seed: int,
    plan: Plan,
    cut: int,
    plain: LoadedModel,
    drafting: LoadedModel,
    constrained: ConstrainedCalls,
) -> None:
    truth = begun(plain, constrained, seed)
    whole = truth.speak(LENGTH, BUDGET)
    assert whole.closed == "budget" or len(whole.token_ids) < LENGTH
    drafted = begun(drafting, constrained, seed)
    assert drafting.engine.scheduler.most_verified
    drafted.session._drafter = Oracle(truth.session, plan)
    assert told(drafted.speak(LENGTH, BUDGET)) == told(whole)
    if cut >= len(whole.token_ids):
        return
    first = begun(drafting, constrained, seed)
    first.session._drafter = Oracle(truth.session, plan)
    half = first.speak(cut, BUDGET)
    with tempfile.TemporaryDirectory() as name:
        first.session.save(Path(name))
        session = drafting.engine.resume(Path(name))
    again = Conversation(session, drafting.chat, TOOLS, HOT, constrained=constrained)
    again.recall(half.token_ids, thinking=True, go_on=True)
    assert told(half, again.speak(LENGTH - cut, BUDGET)) == told(whole)
    assert again.session.ids == truth.session.ids
