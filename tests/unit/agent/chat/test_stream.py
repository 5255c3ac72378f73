"""Markdown leaves in whole blocks, however it is cut on its way in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.chat.stream import MarkdownStream

PIECES = st.lists(st.sampled_from(["a", "\n", "\n\n", "```", "~~~", "```py", " ", "é", "`"]))


def test_a_fence_stays_whole() -> None:
    stream = MarkdownStream()
    assert stream.feed("one\n\ntwo\n```py\nx\n\ny\n") == "one\n\n"
    assert stream.feed("```\n\nthree") == "two\n```py\nx\n\ny\n```\n\n"
    assert stream.tail(3) == "three"
    assert stream.flush() == "three"


@given(PIECES, st.integers(1, 5))
def test_nothing_is_lost_and_cuts_change_nothing(pieces: list[str], size: int) -> None:
    text = "".join(pieces)
    whole, cut = MarkdownStream(), MarkdownStream()
    left = whole.feed(text) + whole.rest
    out = "".join(cut.feed(text[at : at + size]) for at in range(0, len(text), size))
    assert left == out + cut.rest == text
