"""The guard counts turns without a usable call and calls that repeat."""

from __future__ import annotations

from agent.guard import Guard
from model.messages import Message, ToolCall

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
        seen.append((guard.identical_corrects, guard.identical_ends))
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
