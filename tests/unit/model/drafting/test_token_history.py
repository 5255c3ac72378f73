"""Token ids that are shared by all that begin alike."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model.drafting.token_history import TokenHistory


@given(st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(0, 300_000), max_size=5))))
def test_growing_from_any_earlier_point(grown: list[tuple[int, list[int]]]) -> None:
    known: list[tuple[TokenHistory, list[int]]] = [(TokenHistory([7]), [7])]
    for at, ids in grown:
        tokens, plain = known[at % len(known)]
        known.append((tokens.extended(ids), plain + ids))
    for tokens, plain in known:
        assert tokens.tail(0) == plain
        assert len(tokens) == len(plain)
        assert tokens.tail(2) == plain[2:]


def test_the_first_to_go_on_shares_and_the_second_copies() -> None:
    trunk = TokenHistory([1, 2])
    left, right = trunk.extended([3]), trunk.extended([4])
    assert left._buffer is trunk._buffer
    assert right._buffer is not trunk._buffer
