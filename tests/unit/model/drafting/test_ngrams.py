"""The index of n-grams against a search through all places."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from model.drafting.ngrams import LEAST
from model.drafting.token_history import TokenHistory


def searched(ids: list[int]) -> dict[int, int]:
    """For each place behind an earlier occurrence of the end of ``ids``, how many ids agree."""
    found = {}
    for place in range(LEAST, len(ids)):
        agree = 0
        while agree < min(32, place) and ids[place - 1 - agree] == ids[-1 - agree]:
            agree += 1
        if agree >= LEAST:
            found[place] = agree
    return found


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=12),
    cuts=st.lists(st.integers(0, 100), max_size=3),
)
def test_finds_the_longest_of_the_last_places(parts: list[list[int]], cuts: list[int]) -> None:
    tokens, shorter = TokenHistory(), []
    for part in parts:
        tokens = tokens.extended(part)
        shorter.append(tokens)
        tokens.seen_before(4)
    # Also from points that others have gone on from, and after going back.
    for cut in cuts:
        if shorter:
            tokens = shorter[cut % len(shorter)].extended([cut % 4])
            shorter.append(tokens)
    for each in shorter:
        ids = each.tail(0)
        places = searched(ids)
        follows, agree = each.seen_before(5)
        last = sorted(places)[-12:]
        assert agree == max((places[place] for place in last), default=0)
        if agree:
            assert follows in [ids[p : p + 5] for p in last if places[p] == agree]
        else:
            assert follows == []
