"""Blind search tries everything that is one edit away, and its curves add up."""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.settings.table import Settings
from benchmarks.blind_search import SearchEnd, all_curves, blind
from benchmarks.support.curves import BUDGETS, after, draw, shares
from benchmarks.support.one_edits import one_edits
from evals.training.mutate import mutants
from evals.training.task import RepairTask

CLAMP = """def clamp(x, low, high):
    if x < low:
        return low
    if x > high:
        return low
    return x
"""
COUNTS = st.lists(st.none() | st.integers(1, 300), min_size=1, max_size=20)


def test_all_that_is_one_edit_away_is_there_once() -> None:
    found = one_edits(CLAMP)
    assert len(set(found)) == len(found)
    assert CLAMP not in found
    right = CLAMP.replace("        return low\n    return x", "        return high\n    return x")
    assert right in found, "the repair is one token"
    assert {f"{mutant.text}\n" for mutant in mutants(CLAMP.rstrip())} <= set(found)
    for text in found:
        ast.parse(text)
        lines = zip(text.split("\n"), CLAMP.split("\n"), strict=True)
        assert sum(a != b for a, b in lines) == 1


def test_a_module_that_does_not_parse_is_refused() -> None:
    with pytest.raises(SyntaxError):
        one_edits("def f(:\n")


@given(runs=COUNTS)
def test_a_curve_only_rises(runs) -> None:
    curve = shares(runs)
    assert curve == sorted(curve)
    assert len(curve) == len(BUDGETS)
    within = sum(count is not None and count <= BUDGETS[-1] for count in runs)
    assert curve[-1] == round(within / len(runs), 4)


@given(first=COUNTS, data=st.data())
def test_blind_search_after_the_model_loses_nothing(first, data) -> None:
    size = st.lists(st.none() | st.integers(1, 300), min_size=len(first), max_size=len(first))
    second = data.draw(size)
    spent = [count or 14 for count in first]
    joined = after(first, spent, second)
    for one, used, other, both in zip(first, spent, second, joined, strict=True):
        assert both == (one or (None if other is None else used + other))


def test_the_picture_shows_every_arm() -> None:
    ends = {
        "blind": [SearchEnd("a", "call", 30, True, 1.0), SearchEnd("b", "order", 256, False, 1.0)],
        "8": [SearchEnd("a", "call", 3, True, 1.0), SearchEnd("b", "order", 90, False, 1.0)],
    }
    curves = all_curves(ends)
    assert list(curves) == ["blind search", "model, --n 8", "model, --n 8, then blind"]
    assert curves["blind search"][-1] == 0.5
    picture = ET.fromstring(draw(curves, "a <title>"))
    said = [node.text for node in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert said[0] == "a <title>"
    assert set(curves) <= set(said)
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}polyline"))) == 3


def test_blind_search_finds_a_repair_in_a_real_sandbox() -> None:
    module = "def same(a, b):\n    return a\n"
    test = "from same import same\n\n\ndef test_same():\n    assert same(1, 2) == 2\n"
    task = RepairTask(
        "own.same", "own", "same", "same.py", module, "test_same.py", test, "", "variable", 1,
        "return b",
    )  # fmt: skip
    assert len(one_edits(module)) == 10
    ends = [blind(task, Settings(sandbox="local"), seed=0, most=most) for most in (1, 9)]
    assert [(end.runs, end.solved) for end in ends] == [(1, False), (2, True)]
