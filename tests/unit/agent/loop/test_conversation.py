"""What is heard is heard whole, or not at all."""

from __future__ import annotations

from agent.loading import load_model
from agent.loop.conversation import Conversation
from model.messages import Message
from model.sampling import SamplingParams
from tests.support.stops import StopWhen


def test_a_stop_after_the_mark_does_not_leave_half_a_prompt() -> None:
    """The next turn's start may lie across the end of a chunk, where stops are looked at."""
    model = load_model("embedded")
    marked: list[int] = []
    session = model.engine.session()
    stop = StopWhen(lambda: bool(marked))
    greedy = SamplingParams(temperature=0.0)
    conversation = Conversation(session, model.chat, [], greedy, stop=stop)
    cut, ids = 0, [0]
    for words in range(1, 600):
        ids = conversation.encode([Message("user", "a " * words)])
        cut = model.chat.turn_cut(ids)
        if cut < 512 < len(ids):
            break
    assert cut < 512 < len(ids)
    assert conversation.hear(ids, lambda heard: marked.append(heard.length))
    assert marked == [cut]
    assert session.ids == tuple(ids)
