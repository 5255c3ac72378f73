"""Test how sure the model was: values in pieces, and the least certain hunk."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.loop.confidence import Doubt, doubt_of, hunks, spans_of
from agent.sessions.records import step_from_json, step_to_json
from agent.types import Step
from evals.report.page import shaded_lines
from model.messages import Message, ToolCall
from model.usage import Usage

PATCH = """diff --git a/a.py b/a.py
--- a/a.py
+++ b/a.py
@@ -1,3 +1,3 @@
 def f():
-    return 1
+    return 2
     pass
@@ -10,2 +10,3 @@ class X:
 x = 1
+y = 2
+z = 3
diff --git a/b.py b/b.py
--- /dev/null
+++ b/b.py
@@ -0,0 +1 @@
+new
"""


def step(calls: list[tuple[str, list[tuple[int, float]]]]) -> Step:
    made = tuple(ToolCall("edit", {"new_string": text}) for text, _ in calls)
    spans = tuple({"new_string": tuple(pieces)} for _, pieces in calls)
    return Step(0, Message("assistant", "", "", made), (), Usage(), spans=spans)


def test_values_are_cut_as_the_tokens_cut_them() -> None:
    text = "Well.<tool_call>a=\nabcd\n</p>b=\nab\n</p>"
    starts = [0, 5, 16, 20, 23, 28, 31, 33, 34]
    logprobs = [-0.1 * at for at in range(len(starts))]
    calls = [ToolCall("t", {"a": "abcd", "n": 3}), ToolCall("t", {"b": "ab"})]
    found = spans_of(text, starts, logprobs, calls)
    for call, spans in zip(calls, found, strict=True):
        for name, pieces in spans.items():
            assert sum(length for length, _ in pieces) == len(call.arguments[name])
    assert list(found[0]) == ["a"]


@given(
    words=st.lists(st.text("ab\n<", min_size=1, max_size=4), min_size=1, max_size=20),
    ends=st.tuples(st.integers(0, 80), st.integers(0, 80)),
)
def test_pieces_add_up_to_their_value(words: list[str], ends: tuple[int, int]) -> None:
    text = "".join(words)
    value = text[min(ends) : max(ends)]
    starts = [sum(map(len, words[:at])) for at in range(len(words))]
    (found,) = spans_of(text, starts, [-1.0] * len(words), [ToolCall("t", {"v": value})])
    assert sum(length for length, _ in found.get("v", ())) == len(value)
    assert ("v" in found) == bool(value)


def test_the_least_certain_hunk_is_named() -> None:
    assert [(p, n) for p, n, _ in hunks(PATCH)] == [("a.py", 1), ("a.py", 10), ("b.py", 1)]
    steps = [
        step([("def f():\n    return 2", [(9, -0.1), (12, -0.5)])]),
        step([("y = 2\nz = 3", [(6, -0.2), (5, -3.0)]), ("new", [(3, -0.3)])]),
    ]
    assert doubt_of(PATCH, steps) == Doubt("a.py", 10, -1.6)
    assert doubt_of(PATCH, steps[:1]) == Doubt("a.py", 1, -0.5)
    assert doubt_of(PATCH, []) is None
    assert doubt_of("", steps) is None


def test_a_step_keeps_its_pieces_and_marks() -> None:
    one = step([("é\nx", [(2, -0.125), (1, -99.0)])])
    full = Step(
        3, one.message, (), Usage(), (4, 5), (-0.5, -math.inf), forced=(1,), closed="circles",
        masked_logprobs=(0.0, -0.25), spans=one.spans,
    )  # fmt: skip
    assert step_from_json(step_to_json(full)) == full
    bare: Any = step_to_json(Step(0, Message("assistant", ""), (), Usage()))
    assert not {"forced", "closed", "masked_logprobs", "spans"} & bare.keys()


def test_unsure_tokens_are_shaded_and_nothing_raw_is_written() -> None:
    lines = list(shaded_lines("a<b\ncd", ((1, -0.01), (2, -2.0), (1, -5.0), (2, -0.05))))
    assert [text for text, _ in lines] == ["a<b", "cd"]
    assert lines[0][1].startswith('a<b style="background:rgba(255,140,0,0.52)" title="14 %">&lt;b')
    assert lines[1][1] == "cd"
