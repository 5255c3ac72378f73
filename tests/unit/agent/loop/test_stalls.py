"""The stalls counts turns without a usable call and calls that repeat."""

from __future__ import annotations

from agent.loop.stalls import ALTERNATING, UNCHANGED_END, UNCHANGED_STEPS, Stalls, stalls_after
from agent.types import Step
from model.messages import Message, ToolCall
from model.session import Usage
from tools.types import Observation

GOOD = ToolCall("read_file", {"file_path": "a.py"})
BAD = ToolCall("read_file", {}, error="cut off")


def turn(*calls: ToolCall) -> Message:
    return Message("assistant", tool_calls=calls)


def test_the_third_turn_without_a_usable_call_is_corrected_and_the_fourth_ends() -> None:
    stalls = Stalls()
    seen = []
    for message in (turn(BAD), turn(), turn(BAD, BAD), turn(BAD)):
        stalls.turn(message)
        seen.append((stalls.malformed_corrects, stalls.malformed_ends))
    assert seen == [(False, False), (False, False), (True, False), (False, True)]


def test_one_usable_call_forgives_the_turns_before_it() -> None:
    stalls = Stalls()
    for message in (turn(BAD), turn(BAD), turn(BAD, GOOD), turn(BAD)):
        stalls.turn(message)
    assert not stalls.malformed_corrects
    assert stalls.malformed == 1


def test_the_fifth_identical_call_is_corrected_and_the_sixth_ends() -> None:
    stalls = Stalls()
    seen = []
    for _ in range(6):
        stalls.call(ToolCall("read_file", {"file_path": "a.py"}))
        seen.append((stalls.identical_corrects, stalls.repeats_end))
    assert seen == [(False, False)] * 4 + [(True, False), (False, True)]


def test_another_call_in_between_starts_the_count_anew() -> None:
    stalls = Stalls()
    for call in [GOOD] * 4 + [ToolCall("read_file", {"file_path": "b.py"})] + [GOOD] * 4:
        stalls.call(call)
    assert stalls.identical == 4
    assert not stalls.identical_corrects


def test_the_order_of_arguments_makes_no_other_call() -> None:
    stalls = Stalls()
    stalls.call(ToolCall("edit", {"a": 1, "b": [True, None]}))
    stalls.call(ToolCall("edit", {"b": [True, None], "a": 1}))
    assert stalls.identical == 2
    stalls.call(ToolCall("edit", {"b": [True, None], "a": "1"}))
    assert stalls.identical == 1


def alternate(
    stalls: Stalls, calls: int, results: list[str] | None = None
) -> list[tuple[bool, bool]]:
    """Make calls A B A B …; says after each whether the stalls corrects and ends."""
    seen = []
    for number in range(calls):
        stalls.call(ToolCall("read_file", {"file_path": "ab"[number % 2]}))
        if stalls.repeats_end:
            seen.append((False, True))
            break
        stalls.result(Observation(results[number] if results else "same"))
        seen.append((stalls.alternating_corrects, False))
    return seen


def test_two_calls_in_turns_are_corrected_at_the_eighth_and_end_after_the_tenth() -> None:
    nothing = [(False, False)]
    assert alternate(Stalls(), 12) == [
        *nothing * 7,
        (True, False),
        *nothing * 2,
        (False, True),
    ]


def test_calls_in_turns_whose_results_change_are_no_circle() -> None:
    """Waiting for something: look, sleep, look, sleep."""
    results = [f"line {number}" if number % 2 else "" for number in range(20)]
    assert not any(any(pair) for pair in alternate(Stalls(), 20, results))


def test_three_calls_in_turns_or_the_same_one_twice_are_no_pair() -> None:
    stalls = Stalls()
    for name in "abcabcabcabcaabbaabbaabb":
        stalls.call(ToolCall("read_file", {"file_path": name}))
        stalls.result(Observation("same"))
        assert not stalls.alternating_corrects
        assert not stalls.repeats_end


def test_many_steps_without_a_change_are_corrected_and_end() -> None:
    stalls = Stalls()
    seen = []
    for _ in range(UNCHANGED_END + 1):
        stalls.tree("t")
        seen.append((stalls.unchanged_corrects, stalls.unchanged_ends))
    assert seen.index((True, False)) == UNCHANGED_STEPS
    assert seen.index((False, True)) == UNCHANGED_END
    assert seen.count((True, False)) == 1
    stalls.tree("other")
    assert stalls.unchanged == 0


def test_a_guard_that_is_told_the_record_counts_as_the_one_that_was_there() -> None:
    live, steps = Stalls(), []
    for number in range(9):
        call = ToolCall("read_file", {"file_path": "ab"[number % 2]})
        message = turn(call)
        live.turn(message)
        live.call(call)
        live.result(Observation("same"))
        seen = Observation("same")
        if live.alternating_corrects:
            seen = seen.with_note(ALTERNATING)
        live.tree("t")
        steps.append(Step(number, message, (seen,), Usage(), tree="t"))
    assert stalls_after(steps) == live
