"""The cancellation token: who sets it, who sees it, and what takes it back."""

from __future__ import annotations

from sandboxes.stop import Stop


def test_it_is_set_by_cancel_and_taken_back_by_clear() -> None:
    stop = Stop()
    assert not stop.is_set()
    stop.cancel()
    assert stop.is_set() and stop.reason == ""
    stop.clear()
    assert not stop.is_set()


def test_the_first_reason_stands() -> None:
    stop = Stop()
    stop.cancel("another attempt was faster")
    stop.cancel()
    assert stop.reason == "another attempt was faster"


def test_a_joined_token_hears_of_the_others_but_not_they_of_it() -> None:
    user, race = Stop(), Stop()
    both = user.joined(race)
    both.cancel("here")
    assert not user.is_set() and not race.is_set()
    both.clear()
    race.cancel("won")
    assert both.is_set() and both.reason == "won"
    race.clear()
    assert not both.is_set()


def test_a_deadline_sets_it_until_it_is_moved() -> None:
    stop = Stop(after_s=0)
    assert stop.is_set() and stop.expired
    stop.clear()
    assert stop.is_set(), "clear does not move a deadline"
    stop.expire_in(1000)
    assert not stop.is_set()
    stop.expire_in(0)
    assert Stop().joined(stop).is_set()
    stop.expire_in(None)
    assert not stop.is_set()
