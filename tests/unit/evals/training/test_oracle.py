"""The oracle's edits, and the weights of what the model learns from them."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from evals.training import oracle
from evals.training.corpus import Function
from evals.training.documents import REPEAT_WEIGHT, drill, trajectory
from evals.training.make_tasks import tasks_of
from evals.training.oracle import OracleRepair
from model.checkpoint.hub import resolve

LINES = st.lists(
    st.sampled_from(["x = 1", "return x", "return x + 1", "if x:", "pass", "y = 2"]), min_size=1
)
FUNCTION = Function(
    "total",
    "ours",
    "def total(values, start):\n    result = start\n    for value in values:\n"
    "        result += value\n    return result",
    (),
    True,
    ("values", "start"),
)


@given(lines=LINES, data=st.data())
def test_an_edit_is_unique_and_changes_its_line_alone(lines, data) -> None:
    # The first line is unique, as a definition's is; it ends the search for a unique text.
    text = "\n".join(["def f(x):", *(f"    {line}" for line in lines)])
    line = data.draw(st.integers(1, len(lines)))
    old, new = oracle.edit_strings(text, line, "z = 9")
    assert text.count(old) == 1
    assert text.replace(old, new) == oracle.replace_line(text, line, "z = 9")


def test_a_second_try_takes_the_first_one_back() -> None:
    text = "def f(x):\n    y = x + 1\n    return y - 1"
    turn = oracle.attempt_turn(
        "m.py",
        text,
        OracleRepair("operator", 1, "y = x - 1"),
        OracleRepair("constant", 2, "return y - 2"),
    )
    assert turn.thinking == "Not that. The operator in `y = x + 1` looks wrong."
    edits = [call.arguments for call in turn.tool_calls[:2]]
    assert [(edit["old_string"], edit["new_string"]) for edit in edits] == [
        ("return y - 2", "return y - 1"),
        ("y = x + 1", "y = x - 1"),
    ]
    assert turn.tool_calls[2].arguments == {"command": oracle.NEXT_TEST}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(str(resolve("embedded") / "tokenizer.json"))


def learnt(document, tokenizer) -> str:
    ids, weights = document.encode(tokenizer)
    assert "".join(text for text, _ in document.parts) == tokenizer.decode(
        list(ids), skip_special_tokens=False
    )
    chosen = [int(i) for i, weight in zip(ids, weights, strict=True) if weight == 1]
    return tokenizer.decode(chosen, skip_special_tokens=False)


def test_wrong_guesses_are_read_and_not_learnt(tokenizer) -> None:
    task = tasks_of(FUNCTION, 0, ["sums"], 1)[0]
    document = trajectory(random.Random(0), task, misses=3)
    assert document is not None
    text = learnt(document, tokenizer)
    wrong = document.text.count("Not that. ")
    assert wrong == 3 + len(document.unwanted)
    assert text.count("Not that. ") == 1
    assert text.count("<function=run_shell_command>") == wrong + 2
    assert f"<parameter=new_string>\n{task.fixed}\n" in text
    assert text.endswith("</function>\n</tool_call><|im_end|>")
    assert "exit code" not in text


def test_a_repeated_guess_is_unwanted_where_it_becomes_one(tokenizer) -> None:
    task = tasks_of(FUNCTION, 0, ["sums"], 1)[0]
    made = [trajectory(random.Random(seed), task, misses=2) for seed in range(12)]
    repeated = [document for document in made if document is not None and document.unwanted]
    assert 1 <= len(repeated) < 12
    for document in repeated:
        ids, weights = document.encode(tokenizer)
        (at,) = np.flatnonzero(weights == REPEAT_WEIGHT)
        offsets = tokenizer.encode(document.text, add_special_tokens=False).offsets
        start, end = offsets[at]
        assert start <= document.unwanted[0] < end
        # The guess from there on was said before, in the same edit.
        line = document.text[document.unwanted[0] :].split("\n")[0]
        before = document.text[: document.unwanted[0]]
        edit = before[before.rindex("<parameter=new_string>\n") :] + line
        assert edit in before
        assert len(ids) == len(weights)


def test_a_drill_ends_at_the_original(tokenizer) -> None:
    document = drill(random.Random(4), FUNCTION, "sums.py", most=3)
    assert document is not None
    shown = document.parts[1][0]
    for piece in document.text.split("<parameter=old_string>\n")[1:]:
        old, rest = piece.split("\n</parameter>\n<parameter=new_string>\n")
        new = rest.split("\n</parameter>")[0]
        assert shown.count(old) == 1
        shown = shown.replace(old, new)
    assert shown == FUNCTION.text
    assert "def total" not in learnt(document, tokenizer)
