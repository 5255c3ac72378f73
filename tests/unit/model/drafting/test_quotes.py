"""Texts beside the session against a search through all of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import model.drafting.quotes
from model.drafting.quotes import Quotes
from model.drafting.token_history import TokenHistory

texts = st.lists(st.lists(st.integers(0, 3), max_size=15), max_size=6)


def agreeing(text: list[int], place: int, ids: list[int]) -> int:
    """How many ids before ``place`` are those at the end of ``ids``."""
    agree = 0
    while agree < min(32, place, len(ids)) and text[place - 1 - agree] == ids[-1 - agree]:
        agree += 1
    return agree


@settings(max_examples=200, deadline=None)
@given(texts=texts, ids=st.lists(st.integers(0, 3), max_size=10), count=st.integers(1, 5))
def test_what_follows_stands_in_one_of_the_texts(
    texts: list[list[int]], ids: list[int], count: int
) -> None:
    quotes = Quotes()
    for text in texts:
        quotes.add(text)
    found, agree = quotes.seen(TokenHistory(ids), count)
    fits = {
        (place, number): agreeing(text, place, ids)
        for number, text in enumerate(texts)
        for place in range(2, len(text))
    }
    if not found:
        assert agree == 0
        # What fits only far back, behind twelve others, or at a text's end, may be passed over.
        assert sum(fit >= 2 for fit in fits.values()) == 0 or any(
            agreeing(text, len(text), ids) >= 2 for text in texts
        )
        return
    assert any(
        fit == agree and texts[number][place : place + count] == found
        for (place, number), fit in fits.items()
    )


def test_the_texts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.drafting.quotes, "MOST_IDS", 10)
    quotes = Quotes()
    quotes.add([1, 2, 3, 4, 5, 6])
    assert quotes.seen(TokenHistory([1, 2]), 2) == ([3, 4], 2)
    quotes.add([7, 8, 9, 1, 1, 1])
    assert quotes.seen(TokenHistory([1, 2]), 2) == ([], 0)
    assert quotes.seen(TokenHistory([7, 8]), 2) == ([9, 1], 2)
    quotes.add(range(100))
    assert quotes.seen(TokenHistory([5, 6]), 9) == ([7, 8, 9], 2)
