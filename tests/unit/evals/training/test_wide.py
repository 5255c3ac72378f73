"""Wide tasks: text as people wrote it, broken in one line, red before the fix and green after."""

from __future__ import annotations

import ast
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.training.corpus import functions_of
from evals.training.documents import trajectory
from evals.training.execute import run_tests
from evals.training.in_place import mutants_in_place
from evals.training.oracle import replace_line
from evals.training.wide import MOST_LINES, compose, wide_tasks

SOURCE = '''
def clamp(x: int, low: int, high: int) -> int:
    """Keep x between two bounds.

    Both bounds are inside.
    """
    if x < low:  # too small
        return low
    elif x > high:
        return high
    return x


def dashed(text, mark="-"):
    # the mark goes between
    parts = [part for part in text.split(" ") if part != ""]
    if not parts:
        return mark
    return mark.join(parts)


def total(values, start):
    result = start
    for value in values:
        result += value
    return result
'''


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "bounds.py"
    path.write_text(SOURCE)
    return list(functions_of("ours", path))


def test_a_function_keeps_its_own_source(known) -> None:
    clamp = known[0]
    assert clamp.text.startswith("def clamp(x, low, high):\n    if x < low:")
    assert clamp.original in SOURCE
    assert "# too small" in clamp.original


def test_in_place_only_the_bug_changes() -> None:
    lines = SOURCE.split("\n")
    found = mutants_in_place(SOURCE, "clamp") + mutants_in_place(SOURCE, "dashed")
    changed = {(mutant.buggy, mutant.fixed) for mutant in found}
    assert ("if x <= low:  # too small", "if x < low:  # too small") in changed
    assert ("elif x >= high:", "elif x > high:") in changed
    assert (
        'parts = [part for part in text.split(" ") if part == ""]',
        lines[15].strip(),
    ) in changed
    for mutant in found:
        other = mutant.text.split("\n")
        assert [i for i, line in enumerate(other) if line != lines[i]] == [mutant.line]
        ast.parse(mutant.text)
    assert len({mutant.text for mutant in found}) == len(found)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_composed_module_parses_and_names_what_is_called(known, seed) -> None:
    module = compose(known[seed % 3], known, random.Random(seed))
    assert module is not None
    assert len(module.text.split("\n")) <= MOST_LINES
    tree = ast.parse(module.text)
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert module.imported in names
    for path, text in module.beside.items():
        assert f"from {path.removesuffix('.py')} import " in module.text
        ast.parse(text)


def test_modules_come_in_several_forms(known) -> None:
    made = [compose(known[seed % 3], known, random.Random(seed)) for seed in range(60)]
    texts = [module.text for module in made if module is not None]
    assert any(text.startswith("class ") for text in texts)
    assert any('"""Keep x between' in text for text in texts)
    assert any(text.count("def ") == 1 for text in texts)
    assert any(text.count("def ") > 2 for text in texts)
    assert any(module.beside for module in made if module is not None)


def test_wide_tasks_are_red_before_the_fix_and_green_after(known) -> None:
    seen = []
    for seed in range(8):
        random_ = random.Random(seed)
        for task in wide_tasks(known[seed % 3], known, random_, "bounds.py", 2):
            right = replace_line(task.module, task.line, task.fixed)
            failures = run_tests([task.module, right], task.path, task.test, task.beside)
            assert failures is not None
            assert failures[0] is not None
            assert failures[1] is None
            assert "bounds" in task.issue
            seen.append(task)
    assert len(seen) > 6
    document = trajectory(random.Random(1), seen[0], misses=2)
    assert document is not None
    assert seen[0].module.removesuffix("\n") in document.text
