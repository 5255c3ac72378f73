"""When drafts are made, and what a pass is expected to cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.checkpoint.hub import resolve
from model.drafting.costs import PassCosts
from model.drafting.drafts import Drafter
from model.drafting.token_history import TokenHistory
from model.engine import Engine

TEXT = TokenHistory([*range(20), 99, *range(10)])


def costs(row_s: float) -> PassCosts:
    """Passes of 10 ms, and ``row_s`` for each row."""
    measured = PassCosts()
    for _ in range(30):
        for rows in (1, 4, 8):
            measured.note(rows, 0.01 + row_s * rows)
    return measured


@pytest.mark.parametrize("row_s", [0.0, 0.001, 0.02])
def test_costs_are_a_line_through_what_was_measured(row_s: float) -> None:
    measured = costs(row_s)
    for rows in (1, 3, 8):
        assert measured.seconds(rows) == pytest.approx(0.01 + row_s * rows, rel=0.03)


def test_one_slow_pass_does_not_count_much_and_old_ones_fade() -> None:
    measured = costs(0.001)
    before = measured.seconds(8)
    measured.note(8, 5.0)
    assert measured.seconds(8) < 1.2 * before
    for _ in range(200):
        measured.note(1, 0.05)
    assert measured.seconds(1) == pytest.approx(0.05, rel=0.05)


def test_nothing_is_known_before_the_first_pass() -> None:
    assert PassCosts().seconds(3) == 0
    assert Drafter(PassCosts()).propose(TEXT, 7, 0).ids == []


def test_drafts_follow_what_is_there_where_rows_are_cheap() -> None:
    assert Drafter(costs(0.0)).propose(TEXT, 7, 0).ids == list(range(10, 17))
    assert Drafter(costs(0.0)).propose(TEXT, 3, 0).ids == [10, 11, 12]
    assert Drafter(costs(0.0)).propose(TokenHistory(range(9)), 7, 0).ids == []


def test_there_are_none_where_rows_are_dear() -> None:
    assert Drafter(costs(0.05)).propose(TEXT, 7, 0).ids == []
    # What others wait for is weighed too: a row that pays alone may not pay in company.
    middling = costs(0.01)
    alone, company = (len(Drafter(middling).propose(TEXT, 7, n).ids) for n in (0, 16))
    assert alone > company


def test_what_was_wrong_too_often_is_left_and_tried_again_when_it_would_have_been_right() -> None:
    drafter = Drafter(costs(0.002))
    assert drafter.propose(TEXT, 7, 0).ids
    for _ in range(60):
        drafter._learn(10, False)
    assert drafter.copy().propose(TEXT, 7, 0).ids == []
    for _ in range(60):
        drafter.propose(TEXT, 7, 0)
        drafter.sampled(None, 10)
    assert drafter.propose(TEXT, 7, 0).ids


def test_drafts_are_made_by_the_compiled_path_alone_and_can_be_switched_off(
    tiny_checkpoint: Path,
) -> None:
    embedded = resolve("embedded")
    assert Engine.load(tiny_checkpoint, name="tiny", native=False).scheduler.most_verified == 0
    assert Engine.load(embedded, name="e", drafts=False).scheduler.most_verified == 0
