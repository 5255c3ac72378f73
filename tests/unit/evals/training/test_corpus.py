"""Functions in normal form, the ways to break them, and the cases that tell."""

from __future__ import annotations

import random

import pytest

from evals.training.corpus import Function, functions_of, is_held_out
from evals.training.execute import probe, run_tests
from evals.training.make_tasks import tasks_of
from evals.training.mutate import choose, mutants

SOURCE = '''
import math
import os

LIMIT = 3

@cached
def area(radius: float) -> float:
    """Of a circle."""
    # a comment
    scale = radius * radius
    return scale * math.floor(3.5)


def uses_a_global(x):
    y = x + 1
    return y + LIMIT


def reads_a_file(path):
    handle = open(path)
    return handle.read()
'''
CLAMP = """def clamp(x, low, high):
    if x < low:
        return low
    if x > high:
        return high
    return x"""


@pytest.fixture
def found(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    return {function.name: function for function in functions_of("some-package", path)}


def test_a_function_in_normal_form(found) -> None:
    area = found["area"]
    assert area.text == (
        "def area(radius):\n    scale = radius * radius\n    return scale * math.floor(3.5)"
    )
    assert area.imports == ("import math",)
    assert area.module_text == f"import math\n\n\n{area.text}\n"
    assert area.self_contained


def test_globals_and_files_are_not_self_contained(found) -> None:
    assert not found["uses_a_global"].self_contained
    assert not found["reads_a_file"].self_contained


def test_a_file_that_does_not_parse_gives_nothing(tmp_path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("def f(:\n")
    assert list(functions_of("x", path)) == []


def test_the_split_is_by_source_and_fixed() -> None:
    sides = {name: is_held_out(name) for name in ("networkx", "num2words", "textdistance", "sympy")}
    assert sides == {"networkx": False, "num2words": True, "textdistance": True, "sympy": False}


def test_every_mutant_is_one_line_and_undone_by_its_fix() -> None:
    original = CLAMP.split("\n")
    found = mutants(CLAMP)
    assert {"comparison", "variable", "negation"} <= {mutant.kind for mutant in found}
    for mutant in found:
        lines = mutant.text.split("\n")
        assert [i for i, line in enumerate(lines) if line != original[i]] == [mutant.line]
        assert lines[mutant.line].strip() == mutant.buggy
        assert original[mutant.line].strip() == mutant.fixed
    assert len({mutant.text for mutant in found}) == len(found)


@pytest.mark.parametrize(
    ("code", "kind", "broken"),
    [
        ("return a < b", "comparison", "return a <= b"),
        ("return a + b", "operator", "return a - b"),
        ("return a + 1", "constant", "return a + 2"),
        ("return a", "variable", "return b"),
        ("return not a", "negation", "return a"),
        ("return a[b]", "off-by-one", "return a[b + 1]"),
        ("return [i for i in range(a)]", "off-by-one", "return [i for i in range(a - 1)]"),
        ("return min(a, b)", "call", "return max(a, b)"),
        ("return divmod(a, b)", "order", "return divmod(b, a)"),
        ("return a and b", "condition", "return a or b"),
    ],
)
def test_each_kind_of_bug(code, kind, broken) -> None:
    found = mutants(f"def f(a, b):\n    c = 0\n    {code}")
    assert (kind, broken) in {(mutant.kind, mutant.buggy) for mutant in found}


def test_choosing_is_seeded() -> None:
    found = mutants(CLAMP)
    first = [choose(random.Random(3), found) for _ in range(5)]
    assert first == [choose(random.Random(3), found) for _ in range(5)]


def clamp() -> Function:
    return Function("clamp", "ours", CLAMP, (), True, ("x", "low", "high"))


def test_probing_finds_cases_and_what_mutants_give() -> None:
    wrong = CLAMP.replace("return high", "return low")
    loops = CLAMP.replace("    return x", "    while True: pass")
    probed = probe(clamp(), [CLAMP, wrong, loops], 1, lambda text: f"{text}\n")
    assert probed is not None
    assert len(probed.cases) >= 3
    assert CLAMP not in probed.killed
    assert probed.killed[loops][1] == "!_TooLong"


def test_tasks_are_red_before_the_fix_and_green_after() -> None:
    made = tasks_of(clamp(), 0, ["numbers"], 4)
    assert len(made) == 4
    assert made == tasks_of(clamp(), 0, ["numbers"], 4)
    for task in made:
        lines = task.module.split("\n")
        indentation = lines[task.line][: -len(lines[task.line].lstrip())]
        lines[task.line] = indentation + task.fixed
        assert "\n".join(lines) == f"{CLAMP}\n"
        failures = run_tests([task.module, f"{CLAMP}\n"], task.path, task.test)
        assert failures is not None
        assert failures[0] is not None
        assert failures[1] is None
        assert task.path in task.issue
        assert "`clamp" in task.issue


def test_a_child_that_never_ends_gives_no_answer() -> None:
    endless = "def f(x):\n    while True:\n        try:\n            x += 1\n        except: pass\n"
    assert run_tests([endless], "m.py", "def test_f():\n    assert f(1) == 2\n") is None
