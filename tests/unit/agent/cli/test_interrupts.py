"""The first signal asks, the third insists, and the old handlers come back."""

from __future__ import annotations

import signal

import pytest

from agent.cli.interrupts import SIGNALS, Interrupts


@pytest.mark.parametrize("number", SIGNALS)
def test_two_signals_are_remembered_and_the_third_raises(number: signal.Signals) -> None:
    with Interrupts() as asked:
        assert not asked.is_set()
        for count in (1, 2):
            signal.raise_signal(number)
            assert asked.is_set()
            assert asked.count == count
        assert asked.by_person is (number == signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_what_was_taken_back_counts_no_more() -> None:
    with Interrupts() as asked:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
            assert asked.is_set()
            asked.clear()
            assert not asked.is_set()


def test_where_nothing_can_be_lost_the_first_signal_raises() -> None:
    with Interrupts() as asked:
        with asked.immediate(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert asked.is_set()


def test_the_handlers_before_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) not in before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as asked:
            signal.raise_signal(signal.SIGHUP)
            assert not asked.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)
