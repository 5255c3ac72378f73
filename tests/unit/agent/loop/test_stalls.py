"""The guard counts turns without a usable call and calls that repeat."""

from __future__ import annotations

from agent.loop.stalls import ALTERNATING, UNCHANGED_END, UNCHANGED_STEPS, Guard, guard_after
from agent.types import Step
from model.messages import Message, ToolCall
from model.session import Usage
from tools.types import Observation

GOOD = ToolCall("read_file", {"file_path": "a.py"})
BAD = ToolCall("read_file", {}, error="cut off")


def turn(*calls: ToolCall) -> Message:
    return Message("assistant", tool_calls=calls)


def test_the_third_turn_without_a_usable_call_is_corrected_and_the_fourth_ends() -> None:
    guard = Guard()
    seen = []
    for message in (turn(BAD), turn(), turn(BAD, BAD), turn(BAD)):
        guard.turn(message)
        seen.append((guard.malformed_corrects, guard.malformed_ends))
    assert seen == [(False, False), (False, False), (True, False), (False, True)]


def test_one_usable_call_forgives_the_turns_before_it() -> None:
    guard = Guard()
    for message in (turn(BAD), turn(BAD), turn(BAD, GOOD), turn(BAD)):
        guard.turn(message)
    assert not guard.malformed_corrects
    assert guard.malformed == 1


def test_the_fifth_identical_call_is_corrected_and_the_sixth_ends() -> None:
    guard = Guard()
    seen = []
    for _ in range(6):
        guard.call(ToolCall("read_file", {"file_path": "a.py"}))
        seen.append((guard.identical_corrects, guard.repeats_end))
    assert seen == [(False, False)] * 4 + [(True, False), (False, True)]


def test_another_call_in_between_starts_the_count_anew() -> None:
    guard = Guard()
    for call in [GOOD] * 4 + [ToolCall("read_file", {"file_path": "b.py"})] + [GOOD] * 4:
        guard.call(call)
    assert guard.identical == 4
    assert not guard.identical_corrects


def test_the_order_of_arguments_makes_no_other_call() -> None:
    guard = Guard()
    guard.call(ToolCall("edit", {"a": 1, "b": [True, None]}))
    guard.call(ToolCall("edit", {"b": [True, None], "a": 1}))
    assert guard.identical == 2
    guard.call(ToolCall("edit", {"b": [True, None], "a": "1"}))
    assert guard.identical == 1


def alternate(
    guard: Guard, calls: int, results: list[str] | None = None
) -> list[tuple[bool, bool]]:
    """Make calls A B A B …; says after each whether the guard corrects and ends."""
    seen = []
    for number in range(calls):
        guard.call(ToolCall("read_file", {"file_path": "ab"[number % 2]}))
        if guard.repeats_end:
            seen.append((False, True))
            break
        guard.result(Observation(results[number] if results else "same"))
        seen.append((guard.alternating_corrects, False))
    return seen


def test_two_calls_in_turns_are_corrected_at_the_eighth_and_end_after_the_tenth() -> None:
    nothing = [(False, False)]
    assert alternate(Guard(), 12) == [
        *nothing * 7,
        (True, False),
        *nothing * 2,
        (False, True),
    ]


def test_calls_in_turns_whose_results_change_are_no_circle() -> None:
    """Waiting for something: look, sleep, look, sleep."""
    results = [f"line {number}" if number % 2 else "" for number in range(20)]
    assert not any(any(pair) for pair in alternate(Guard(), 20, results))


def test_three_calls_in_turns_or_the_same_one_twice_are_no_pair() -> None:
    guard = Guard()
    for name in "abcabcabcabcaabbaabbaabb":
        guard.call(ToolCall("read_file", {"file_path": name}))
        guard.result(Observation("same"))
        assert not guard.alternating_corrects
        assert not guard.repeats_end


def test_many_steps_without_a_change_are_corrected_and_end() -> None:
    guard = Guard()
    seen = []
    for _ in range(UNCHANGED_END + 1):
        guard.tree("t")
        seen.append((guard.unchanged_corrects, guard.unchanged_ends))
    assert seen.index((True, False)) == UNCHANGED_STEPS
    assert seen.index((False, True)) == UNCHANGED_END
    assert seen.count((True, False)) == 1
    guard.tree("other")
    assert guard.unchanged == 0


def test_a_guard_that_is_told_the_record_counts_as_the_one_that_was_there() -> None:
    live, steps = Guard(), []
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
    assert guard_after(steps) == live
