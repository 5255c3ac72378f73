"""A turn that is passed over is followed by the model's own next sample."""

from __future__ import annotations

from agent.loading import load_model
from agent.loop.conversation import Conversation
from model.messages import Message
from model.sampling import SamplingParams


def test_a_turn_taken_back_leaves_the_state_and_draws_on() -> None:
    """Sampling again from one point gives what a generator gives that was never set back."""
    model = load_model("embedded")
    params = SamplingParams(temperature=3.0, top_k=0, top_p=1.0)
    session = model.engine.session(seed=4)
    conversation = Conversation(session, model.chat, [], params)
    conversation.hear(conversation.encode([Message("user", "`f` in `f.py` is wrong.")]))
    point, twin = session.snapshot(), session.fork()
    turns = []
    for _ in range(3):
        turns.append(conversation.speak(12).token_ids)
        conversation.take_back(point)
        assert session.snapshot().logits.equal(point.logits)
        assert session.length == point.length
    start = twin.snapshot()
    expected = []
    for _ in range(3):
        said = twin.generate(params, max_tokens=12, stop_ids=model.chat.stop_ids)
        expected.append(tuple(token.id for token in said))
        numbers = twin.snapshot().generator
        twin.restore(start)
        twin._generator.set_state(numbers)
    assert turns == expected
    assert len(set(turns)) > 1
    assert session.usage.abandoned_tokens == sum(map(len, turns))
