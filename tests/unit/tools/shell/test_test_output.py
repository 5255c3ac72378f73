"""Long output of test runners is folded: failures first, never over the cap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.shell.test_output import fold

NOISE = "\n".join(f"some log line number {number}" for number in range(3000))

PYTEST = f"""============================= test session starts ==============================
collected 900 items

{NOISE}
=================================== FAILURES ===================================
_____________________________ test_first[a b] ______________________________

    def test_first():
>       assert clamp(9) == 5
E       assert 9 == 5

tests/test_a.py:4: AssertionError
----------------------------- Captured stdout call -----------------------------
{NOISE}
_____________________________ TestX.test_second ______________________________

E   ZeroDivisionError: division by zero
=========================== short test summary info ============================
FAILED tests/test_a.py::test_first[a b] - assert 9 == 5
FAILED tests/test_a.py::TestX::test_second - ZeroDivisionError: division by zero
================== 2 failed, 898 passed in 12.34s (0:00:12) ===================
"""
UNITTEST = f"""{NOISE}
======================================================================
FAIL: test_a (t.T.test_a)
----------------------------------------------------------------------
Traceback (most recent call last):
  File "t.py", line 5, in test_a
AssertionError: 1 != 2

======================================================================
ERROR: test_b (t.T.test_b)
----------------------------------------------------------------------
{NOISE}
ValueError: odd

----------------------------------------------------------------------
Ran 20 tests in 0.004s

FAILED (failures=1, errors=1)
"""
JEST = f"""PASS src/a.test.js
{NOISE}
FAIL src/b.test.js
  \u25cf sums \u203a adds

    expect(received).toBe(expected)

    Expected: 3
    Received: 4

      at Object.<anonymous> (src/b.test.js:4:17)

Summary of all failing tests
  \u25cf sums \u203a adds

    expect(received).toBe(expected)

    Expected: 3
    Received: 4

      at Object.<anonymous> (src/b.test.js:4:17)

Test Suites: 1 failed, 1 passed, 2 total
Tests:       1 failed, 30 passed, 31 total
Time:        1.2 s
"""
GO = f"""=== RUN   TestGood
--- PASS: TestGood (0.00s)
{NOISE}
=== RUN   TestBad
    a_test.go:9: got 4, want 3
--- FAIL: TestBad (0.00s)
    --- FAIL: TestBad/sub (0.00s)
        a_test.go:12: deeper
FAIL
FAIL\texample.org/a\t0.002s
ok  \texample.org/b\t0.001s
FAIL
"""
CARGO = f"""running 40 tests
{NOISE}
test tests::bad ... FAILED

failures:

---- tests::bad stdout ----
thread 'tests::bad' panicked at src/lib.rs:9:9:
assertion `left == right` failed
  left: 4
 right: 3

failures:
    tests::bad

test result: FAILED. 39 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
"""


@pytest.mark.parametrize(
    ("runner", "text", "wanted"),
    [
        ("pytest", PYTEST, ["assert 9 == 5", "ZeroDivisionError", "2 failed, 898 passed"]),
        ("unittest", UNITTEST, ["AssertionError: 1 != 2", "ValueError: odd", "Ran 20 tests"]),
        ("jest", JEST, ["Received: 4", "Tests:       1 failed, 30 passed"]),
        ("go test", GO, ["a_test.go:12: deeper", "FAIL\texample.org/a", "1 packages ok, 1 failed"]),
        ("cargo", CARGO, ["assertion `left == right` failed", "test result: FAILED. 39 passed"]),
    ],
)
def test_failures_come_first(runner: str, text: str, wanted: list[str]) -> None:
    folded = fold(text, 8000)
    assert folded is not None and len(folded) < 9000
    assert folded.startswith(f"[{runner}: failures first; the rest is cut]\n")
    at = folded.find("[... the end of the output: ...]")
    for words in wanted:
        assert 0 <= folded.find(words) < at, words


def test_a_failure_is_shown_once_and_the_rest_counted() -> None:
    folded = fold(JEST, 8000)
    assert folded is not None
    assert folded[: folded.find("[... the end")].count("Received: 4") == 1
    many = PYTEST.replace("___ TestX.test_second ___", "___ TestX.test_second ___" + "\nE x" * 3000)
    folded = fold(many, 3000)
    assert folded is not None and "more failures left out" in folded


@pytest.mark.parametrize("text", ["", NOISE, "5 passed\n" + NOISE, "FAIL\n" + NOISE, "Tests: many"])
def test_what_no_runner_printed_is_left_alone(text: str) -> None:
    assert fold(text, 8000) is None


@given(
    st.lists(
        st.sampled_from(
            [
                line
                for part in (PYTEST, UNITTEST, JEST, GO, CARGO)
                for line in part.split("\n")
                if not line.startswith("some log")
            ]
        ),
        max_size=60,
    ),
    st.integers(2000, 6000),
)
def test_any_mixture_stays_near_the_limit(lines: list[str], limit: int) -> None:
    folded = fold("\n".join(lines) + "\n" + NOISE, limit)
    assert folded is None or len(folded) <= limit + 500


@pytest.mark.parametrize(
    ("beginning", "line"),
    [
        ("FAIL\tx\nok  \ty\npanic: x\n", "y\n"),
        ("Tests: 1 failed\n  \u25cf a\n", "    \n"),
        ("test result: FAILED. x\n---- a stdout ----\n", "y\n"),
    ],
)
@pytest.mark.timeout(60)
def test_one_failure_of_very_many_lines_takes_no_quadratic_time(beginning: str, line: str) -> None:
    folded = fold(beginning + line * (900_000 // len(line)), 3000)
    assert folded is None or len(folded) < 6000
    folded = fold(line * (900_000 // len(line)) + beginning + line * 40_000, 3000)
    assert folded is not None and len(folded) < 6000
