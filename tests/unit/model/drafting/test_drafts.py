"""When drafts are made, and what a pass is expected to cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.checkpoint.hub import resolve
from model.drafting.costs import PassCosts
from model.drafting.drafts import Ahead, Draft, Drafter, sure_kind
from model.drafting.quotes import Quotes
from model.drafting.token_history import TokenHistory
from model.engine import Engine


class NoTrail:
    """A trail of which nothing can be taken."""

    def take(self, count: int) -> None:
        return None


TEXT = TokenHistory([*range(20), 99, *range(10)])


def costs(row_s: float) -> PassCosts:
    """Passes of 10 ms, and ``row_s`` for each row."""
    measured = PassCosts()
    for _ in range(30):
        for rows in (1, 4, 8):
            measured.note(rows, 0.01 + row_s * rows)
    return measured


def guess_costs(guess_s: float) -> PassCosts:
    """Guesses that take ``guess_s`` each."""
    measured = PassCosts()
    measured.note(1, guess_s)
    return measured


def drafter_of(passes: PassCosts, guess_s: float = 0.001) -> Drafter:
    return Drafter(passes, guess_costs(guess_s))


def test_costs_that_rise_in_steps_are_learnt_as_steps() -> None:
    measured = PassCosts()
    for _ in range(40):
        for rows, seconds in ((1, 0.01), (2, 0.011), (3, 0.02), (4, 0.021)):
            measured.note(rows, seconds)
    assert measured.seconds(2) == pytest.approx(0.011, rel=0.1)
    assert measured.seconds(3) == pytest.approx(0.02, rel=0.1)


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
    assert drafter_of(PassCosts()).copied(TEXT, Quotes(), 7, 0).ids == []


def test_drafts_follow_what_is_there_where_rows_are_cheap() -> None:
    assert drafter_of(costs(0.0)).copied(TEXT, Quotes(), 7, 0).ids == list(range(10, 17))
    assert drafter_of(costs(0.0)).copied(TEXT, Quotes(), 3, 0).ids == [10, 11, 12]
    assert drafter_of(costs(0.0)).copied(TokenHistory(range(9)), Quotes(), 7, 0).ids == []


def test_a_text_as_it_is_now_is_copied_before_one_that_was_read() -> None:
    quotes = Quotes()
    quotes.add([7, 8, 9, 50, 51])
    quotes.add([*range(10), 60, 61])
    cheap = drafter_of(costs(0.0))
    assert cheap.copied(TEXT, quotes, 7, 0).ids == [60, 61]
    longer = TokenHistory([99, *range(40), 99, *range(10)])
    assert cheap.copied(longer, quotes, 2, 0).ids == [10, 11]


def test_there_are_none_where_rows_are_dear() -> None:
    assert drafter_of(costs(0.05)).copied(TEXT, Quotes(), 7, 0).ids == []
    # What others wait for is weighed too: a row that pays alone may not pay in company.
    middling = costs(0.01)
    alone, company = (len(drafter_of(middling).copied(TEXT, Quotes(), 7, n).ids) for n in (0, 16))
    assert alone > company


def test_what_was_wrong_too_often_is_left_and_tried_again_when_it_would_have_been_right() -> None:
    drafter = drafter_of(costs(0.002))
    assert drafter.copied(TEXT, Quotes(), 7, 0).ids
    for _ in range(60):
        drafter._shares["copy"].learn(3, False)
    assert drafter.copy().copied(TEXT, Quotes(), 7, 0).ids == []
    for _ in range(60):
        drafter.copied(TEXT, Quotes(), 7, 0)
        drafter.sampled(None, 10)
    assert drafter.copied(TEXT, Quotes(), 7, 0).ids


def test_the_layer_guesses_where_that_promises_more_than_a_copy() -> None:
    cheap = drafter_of(costs(0.0001), guess_s=0.0001)
    assert cheap.depth(Draft(), 4, 0) == 4
    assert cheap.depth(Draft(), 2, 0) == 2
    sure_copy = Draft(range(7), [4] * 7)
    assert cheap.depth(sure_copy, 4, 0) == 0
    assert drafter_of(costs(0.001), guess_s=0.02).depth(Draft(), 4, 0) == 0


def test_the_layer_goes_on_while_it_is_sure() -> None:
    drafter = drafter_of(costs(0.001), guess_s=0.003)
    sure, unsure = sure_kind(0, 0.99), sure_kind(0, 0.1)
    assert drafter.another(Draft([1], [sure], "mtp"), 0)
    assert not drafter.another(Draft([1], [unsure], "mtp"), 0)


def test_a_layer_that_is_wrong_is_left_and_tried_now_and_then() -> None:
    drafter = drafter_of(costs(0.001), guess_s=0.002)
    draft = Draft([5], [sure_kind(0, 0.9)], "mtp")
    assert drafter.depth(Draft(), 4, 0)
    for _ in range(100):
        ahead = Ahead([4, 5], torch.empty(0), NoTrail(), draft, count=1)
        assert not drafter.sampled(ahead, 6)
    depths = [drafter.depth(Draft(), 4, 0) for _ in range(64 + 128 + 256 + 2 * 512)]
    assert sum(depths) == 5
    assert set(depths) == {0, 1}
    for _ in range(100):
        ahead = Ahead([4, 5], torch.empty(0), NoTrail(), draft, count=1)
        assert drafter.sampled(ahead, 5)
    assert drafter.depth(Draft(), 4, 0) > 1


def test_drafts_are_made_by_the_compiled_path_alone_and_can_be_switched_off(
    tiny_checkpoint: Path,
) -> None:
    embedded = resolve("embedded")
    assert Engine.load(tiny_checkpoint, name="tiny", native=False).scheduler.most_verified == 0
    assert Engine.load(embedded, name="e", drafts="off").scheduler.most_verified == 0
