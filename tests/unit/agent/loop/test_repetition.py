"""A turn that only repeats itself is noticed; one that repeats a little is not."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from agent.loop.repetition import MIN_REPEATED, Repetition


def noticed_at(ids: Iterable[int]) -> int | None:
    repetition = Repetition()
    return next((n for n, token in enumerate(ids, start=1) if repetition.push(token)), None)


@pytest.mark.parametrize("period", [1, 2, 17, 100])
def test_a_repetition_is_noticed_soon_after_it_began(period: int) -> None:
    head, part = [7, 8, 9], list(range(100, 100 + period))
    assert noticed_at([*head, *part * 2000]) == len(head) + period + max(MIN_REPEATED, 4 * period)


def test_what_varies_is_not_noticed() -> None:
    chance = random.Random(1)
    assert noticed_at(chance.choices(range(50), k=5000)) is None
    rows = [token for row in range(400) for token in (1, 2, 3, 4, 1000 + row)]
    assert noticed_at(rows) is None


def test_a_short_table_of_equal_rows_is_not_noticed() -> None:
    assert noticed_at([*([1, 2, 3, 4] * 100), 5, *([1, 2, 3, 4] * 100)]) is None
