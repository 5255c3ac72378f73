"""The budget forbids the next turn at the right limit and bounds what a turn may sample."""

from __future__ import annotations

from agent.loop.budget import Budget, RunLimits


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_reached_at_the_start() -> None:
    assert Budget(RunLimits(), 1000).reached(0, 0) is None


def test_steps_end_the_run_after_the_last_allowed_one() -> None:
    budget = Budget(RunLimits(max_steps=2), 1000)
    assert budget.reached(1, 10) is None
    assert budget.reached(2, 10) == "steps"


def test_context_needs_room_for_one_more_token() -> None:
    budget = Budget(RunLimits(), 1000)
    assert budget.reached(0, 999) is None
    assert budget.reached(0, 1000) == "context"


def test_tokens_count_the_prompt_too() -> None:
    budget = Budget(RunLimits(max_tokens=50), 1000)
    assert budget.reached(0, 49) is None
    assert budget.reached(0, 50) == "tokens"


def test_a_turn_gets_the_smallest_of_its_bounds() -> None:
    assert Budget(RunLimits(max_turn_tokens=7), 1000).turn_allowance(10) == 7
    assert Budget(RunLimits(max_turn_tokens=7), 12).turn_allowance(10) == 2
    assert Budget(RunLimits(max_turn_tokens=7, max_tokens=13), 1000).turn_allowance(10) == 3
    assert Budget(RunLimits(max_turn_tokens=7, max_tokens=5), 1000).turn_allowance(10) == 0


def test_time_runs_from_the_making_of_the_budget() -> None:
    clock = Clock()
    budget = Budget(RunLimits(max_wall_time_s=5), 1000, clock)
    clock.now += 4.5
    assert not budget.out_of_time()
    assert budget.reached(0, 0) is None
    clock.now += 0.5
    assert budget.elapsed_s == 5
    assert budget.out_of_time()
    assert budget.reached(0, 0) == "wall_time"


def test_without_a_wall_time_time_never_runs_out() -> None:
    clock = Clock()
    budget = Budget(RunLimits(), 1000, clock)
    clock.now += 1e9
    assert not budget.out_of_time()
