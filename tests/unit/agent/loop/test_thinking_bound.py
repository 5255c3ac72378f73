"""Bounds on reasoning: on a random network, whose words are noise, and on a script."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from agent.events import Event, Notice
from agent.loading import LoadedModel
from agent.loop.conversation import Conversation, Turn
from agent.loop.repetition import CIRCLE, Circles
from agent.loop.thinking_bound import CLOSING, NO_LIMITS, ThinkLimits
from model.chat.chat_format import ChatFormat
from model.chat.tokenizer import Tokenizer
from model.engine import Engine
from model.messages import Message
from model.sampling import SamplingParams
from model.session import Session

WARM = SamplingParams(temperature=1.0, top_k=0, top_p=1.0)
ASKED = [Message("user", "Mend it.")]


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path, tiny_tokenizer: Tokenizer) -> LoadedModel:
    engine = Engine.load(tiny_checkpoint, name="tiny", vocab_limit=tiny_tokenizer.vocab_size)
    engine.scheduler.threads = 1
    return LoadedModel(engine, ChatFormat.load(tiny_checkpoint, tiny_tokenizer))


def over(model: LoadedModel, session: Session, listen: Any = lambda event: None) -> Conversation:
    return Conversation(session, model.chat, [], WARM, listen=listen)


def asked(model: LoadedModel, seed: int) -> Conversation:
    conversation = over(model, model.engine.session(seed=seed))
    conversation.hear(conversation.encode(ASKED))
    return conversation


def sampled_thinking(conversation: Conversation, turn: Turn) -> int:
    return conversation.session.usage.thinking_tokens - len(turn.forced)


def test_a_budget_is_exceeded_by_the_closing_alone(model: LoadedModel) -> None:
    """Turns of noise, at budgets from 0 on: the noise also spells the tags."""
    conversation = asked(model, 0)
    start, drawn = conversation.session.snapshot(), random.Random(7)
    newlines = model.chat.closing("").count(model.chat.encode_text("\n\n")[0])
    closed = 0
    for number in range(250):
        budget = drawn.choice((0, 1, 2, 3, 8))
        conversation.session.restore(start)
        twin = over(model, conversation.session.fork(seed=number))
        before = twin.session.usage
        twin.recall((), thinking=True)
        turn = twin.speak(budget + 4, ThinkLimits(budget))
        usage = twin.session.usage - before
        forced = len(turn.forced)
        assert usage.forced_tokens == forced
        assert usage.thinking_tokens <= budget + forced, (number, budget)
        whole = [*model.chat.closing(CLOSING["budget"]), *model.chat.closing("")]
        assert {turn.token_ids[i] for i in turn.forced} <= set(whole)
        closed += turn.closed == "budget"
        twin.session.close()
    assert closed > 225
    assert newlines >= 1


def test_what_is_forced_is_the_closing_and_the_turn_goes_on(model: LoadedModel) -> None:
    conversation = asked(model, 3)
    turn = conversation.speak(120, ThinkLimits(20))
    closing = model.chat.closing(CLOSING["budget"])
    first, last = turn.forced[0], turn.forced[-1]
    assert list(turn.token_ids[first : last + 1]) == closing
    assert turn.forced == tuple(range(first, last + 1))
    assert first <= 20
    assert turn.message.thinking.endswith(CLOSING["budget"].strip())
    assert not conversation._open_thinking
    assert turn.closed == "budget"


def test_a_budget_of_nothing_closes_with_the_tag_alone(model: LoadedModel) -> None:
    conversation = asked(model, 3)
    turn = conversation.speak(30, ThinkLimits(0))
    closing = model.chat.closing("")
    assert list(turn.token_ids[: len(closing)]) == closing
    assert turn.message.thinking == ""


@pytest.mark.parametrize("cut", [5, 21, 27])
def test_a_turn_that_was_saved_in_its_middle_goes_on_alike(
    model: LoadedModel, tmp_path: Path, cut: int
) -> None:
    """Before the end of the budget, and inside the closing sentence."""
    whole = asked(model, 3).speak(60, ThinkLimits(20))
    begun = asked(model, 3)
    first = begun.speak(cut, ThinkLimits(20))
    begun.session.save(tmp_path)
    again = over(model, model.engine.resume(tmp_path))
    again.recall(first.token_ids, thinking=True, go_on=True)
    rest = again.speak(60 - cut, ThinkLimits(20))
    assert (*first.token_ids, *rest.token_ids) == whole.token_ids
    assert (*first.forced, *(cut + at for at in rest.forced)) == whole.forced
    assert rest.message.thinking == whole.message.thinking
    fork = over(model, begun.session.fork())
    fork.recall(first.token_ids, thinking=True, go_on=True)
    assert fork.speak(60 - cut, ThinkLimits(20)).token_ids == rest.token_ids


def test_a_session_has_a_budget_for_all_its_turns(model: LoadedModel) -> None:
    conversation = asked(model, 3)
    limits = ThinkLimits(20, 30)
    first = conversation.speak(50, limits)
    spent = conversation.session.usage.thinking_tokens
    assert spent >= 30
    conversation.hear(conversation.encode(ASKED))
    second = conversation.speak(20, limits)
    assert first.closed == second.closed == "budget"
    assert second.message.thinking == ""
    assert limits.allowance(0) == 20
    assert limits.allowance(25) == 5
    assert NO_LIMITS.allowance(1000) is None


def test_near_the_budget_a_sentence_may_end(scripted_model: Any, tiny_tokenizer: Tokenizer) -> None:
    said = "One two three four five six seven eight nine. " + "And more words. " * 40
    model = scripted_model(said)
    conversation = Conversation(model.engine.session(), model.chat, [], WARM)
    conversation.hear(conversation.encode(ASKED))
    budget = len(tiny_tokenizer.encode_text(said[: said.index(" And")])) + 3
    turn = conversation.speak(budget + 60, ThinkLimits(budget))
    assert turn.message.thinking.startswith(
        "One two three four five six seven eight nine.\n\nI have"
    )
    assert turn.forced[0] < budget


def test_circles_are_closed_and_told(scripted_model: Any) -> None:
    """Three sentences in ever other orders repeat no stretch of the turn, but say nothing new."""
    words = ["The cause is in calc.py. ", "I should read the file. ", "But first the tests. "]
    drawn = random.Random(1)
    said = "".join(drawn.choice(words) for _ in range(200))
    heard: list[Event] = []
    model = scripted_model(said + "</think>")
    conversation = Conversation(model.engine.session(), model.chat, [], WARM, listen=heard.append)
    conversation.hear(conversation.encode(ASKED))
    turn = conversation.speak(2000)
    assert turn.closed == "circles"
    assert turn.message.thinking.endswith(CLOSING["circles"].strip())
    assert len(turn.token_ids) < 1200
    notices = [event.text for event in heard if isinstance(event, Notice)]
    assert any("thinks in circles" in text for text in notices)


def test_long_thinking_that_says_new_things_is_no_circle() -> None:
    drawn, circles = random.Random(2), Circles()
    assert not any(circles.push(drawn.randrange(50)) for _ in range(5000))
    twice = [drawn.randrange(1000) for _ in range(3 * CIRCLE)]
    circles = Circles()
    assert not any(circles.push(token) for token in twice * 2)
    assert any(circles.push(token) for token in twice)
