"""Typing of tool-call parameters by JSON schema."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from model.chat.arguments import LEFT_OUT, Signatures


def convert(schema: Any, text: str, **root: Any) -> tuple[Any, str | None]:
    parameters = {"type": "object", "properties": {"p": schema}, **root}
    tool = {"type": "function", "function": {"name": "tool", "parameters": parameters}}
    return Signatures([tool]).convert("tool", "p", text)


INTEGER = {"type": "integer"}
OPTIONAL = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
EITHER = {"type": ["integer", "string"]}


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (INTEGER, "12", 12),
        (INTEGER, " -3\n", -3),
        (INTEGER, "4.0", 4),
        ({"type": "number"}, "2", 2),
        ({"type": "number"}, "-2.5e3", -2500.0),
        ({"type": "boolean"}, "true", True),
        ({"type": "boolean"}, "False", False),
        ({"type": "null"}, "null", None),
        ({"type": "array"}, '[1, "a", null]', [1, "a", None]),
        ({"type": "array"}, "['a', True, None]", ["a", True, None]),
        ({"type": "object"}, '{"a": {"b": [1]}}', {"a": {"b": [1]}}),
        ({"type": "object"}, "{'a': 1}", {"a": 1}),
        ({"type": "object"}, "{1: (2, 3), 'a': None}", {"1": [2, 3], "a": None}),
        ({"type": "string"}, " raw\n12 ", " raw\n12 "),
        ({"type": "string"}, "null", "null"),
        ({"type": "string"}, "12", "12"),
        (OPTIONAL, "7", 7),
        (OPTIONAL, "null", None),
        (OPTIONAL, "None", None),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "null", None),
        (EITHER, "12", 12),
        (EITHER, "twelve", "twelve"),
        ({"enum": ["a", "b"]}, "a", "a"),
        ({"enum": [1, 2]}, "2", 2),
        ({"const": True}, "true", True),
        ({"anyOf": [{"enum": ["1.5"]}, {"type": "number"}]}, "1.5", "1.5"),
        ({"anyOf": [{"const": "7"}, {"type": "integer"}]}, "7", "7"),
        ({"allOf": [{"type": "integer"}]}, "3", 3),
        ({}, "[1]", [1]),
        ({}, '{"a": 1}', {"a": 1}),
        ({}, "12", "12"),
        ({}, "[broken", "[broken"),
        (True, "anything", "anything"),
        (True, '{"a": 1}', {"a": 1}),
        ({}, '{"a": NaN}', '{"a": NaN}'),
        ({"type": ["string", "number"]}, "NaN", "NaN"),
        ({"type": "integer", "nullable": True}, "null", None),
        (OPTIONAL, "", LEFT_OUT),
    ],
)
def test_values_that_fit(schema: Any, text: str, value: Any) -> None:
    result, error = convert(schema, text)
    assert error is None
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("schema", "text", "wanted"),
    [
        (INTEGER, "ten", "an integer"),
        (INTEGER, "1.5", "an integer"),
        (INTEGER, "1_000", "an integer"),
        (INTEGER, "9" * 5000, "an integer"),
        ({"type": "number"}, "nan", "a number"),
        ({"type": "number"}, "1e999", "a number"),
        ({"type": "boolean"}, "yes", "true or false"),
        ({"type": "array"}, '{"a": 1}', "a JSON array"),
        ({"type": "array"}, "[" * 100_000, "a JSON array"),
        ({"type": "array"}, "[b'x', {1}]", "a JSON array"),
        ({"type": "array"}, "[NaN, 1e999]", "a JSON array"),
        ({"type": "object"}, "{broken", "a JSON object"),
        ({"type": "object"}, "__import__('os')", "a JSON object"),
        (OPTIONAL, "x", "an integer or null"),
    ],
)
def test_values_that_do_not_fit_stay_text(schema: Any, text: str, wanted: str) -> None:
    result, error = convert(schema, text)
    assert result == text
    assert error is not None
    assert f"must be {wanted}, got " in error
    assert len(error) < 200
    assert "\n" not in error


@pytest.mark.parametrize("text", ["", " ", "null", "None"])
def test_nothing_for_an_optional_parameter_leaves_it_out(text: str) -> None:
    assert convert(INTEGER, text) == (LEFT_OUT, None)
    assert convert({"type": "array"}, text) == (LEFT_OUT, None)
    assert convert({"type": "string"}, text) == (text, None)
    value, error = convert(INTEGER, text, required=["p"])
    assert value == text
    assert error is not None


TEXT_OR = {
    "number": {"anyOf": [{"type": "string"}, {"type": "number"}]},
    "integer": {"type": ["string", "integer"]},
    "null": {"type": ["string", "null"]},
    "boolean": {"type": ["string", "boolean"]},
    "object": {"type": ["string", "object"]},
}


@pytest.mark.parametrize(
    ("other", "text", "value"),
    [
        ("number", "1.10", "1.10"),
        ("number", "007", "007"),
        ("number", "+5", "+5"),
        ("number", "1.5", 1.5),
        ("number", "12", 12),
        ("number", "1e5", "1e5"),
        ("integer", "00501", "00501"),
        ("integer", "501", 501),
        ("null", "None", "None"),
        ("null", "null", None),
        ("boolean", "True", "True"),
        ("boolean", "true", True),
        ("object", '{"a": 1}', {"a": 1}),
        ("object", "{'a': 1}", "{'a': 1}"),
        ("object", "[" * 100_000, "[" * 100_000),
    ],
)
def test_where_text_is_allowed_only_exact_json_is_converted(
    other: str, text: str, value: Any
) -> None:
    got, error = convert(TEXT_OR[other], text)
    assert error is None
    assert got == value
    assert type(got) is type(value)


def test_an_enumeration_gets_its_own_member() -> None:
    tags = {"type": ["string", "number"], "enum": ["1.10", 2, None]}
    assert convert(tags, "1.10") == ("1.10", None)
    assert convert(tags, "2") == (2, None)
    assert convert(tags, " 1.10\n") == ("1.10", None)


class Todo(BaseModel):
    content: str
    done: bool = False


class Plan(BaseModel):
    todo: Todo
    todos: list[Todo]
    maybe: Todo | None = None
    count: int | None = None


def test_schemas_as_pydantic_writes_them() -> None:
    """Nested models arrive as references into ``$defs``."""
    function = {"name": "plan", "parameters": Plan.model_json_schema()}
    tools = Signatures([{"type": "function", "function": function}])
    assert tools.convert("plan", "todo", '{"content": "a"}') == ({"content": "a"}, None)
    assert tools.convert("plan", "todos", '[{"content": "a"}]') == ([{"content": "a"}], None)
    assert tools.convert("plan", "maybe", "null") == (None, None)
    assert tools.convert("plan", "maybe", '{"content": "a"}') == ({"content": "a"}, None)
    assert tools.convert("plan", "count", "3") == (3, None)
    assert tools.convert("plan", "todo", "a")[1] is not None


def test_a_reference_to_itself_ends() -> None:
    loop = {"$defs": {"A": {"$ref": "#/$defs/A"}}}
    assert convert({"$ref": "#/$defs/A"}, "x", **loop) == ("x", None)
    assert convert({"$ref": "#/$defs/Missing"}, "x") == ("x", None)


def test_unknown_parameters_stay_text() -> None:
    tools = Signatures([{"function": {"name": "tool"}}])
    assert tools.convert("tool", "p", "1") == ("1", None)
    assert tools.convert("other", "p", "1") == ("1", None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("readFile", "read_file"),
        ("bash", "edit, read_file, run_shell_command"),
        ("shell", "run_shell_command"),
        ("", "edit, read_file, run_shell_command"),
    ],
)
def test_unknown_tools_get_the_nearest_names(name: str, expected: str) -> None:
    names = ["run_shell_command", "read_file", "edit"]
    tools = Signatures([{"function": {"name": each}} for each in names])
    assert tools.unknown(name).endswith(f": {expected}.")


def test_unknown_tool_when_there_are_none() -> None:
    assert Signatures([]).unknown("x") == "There is no tool 'x': no tools are available."
