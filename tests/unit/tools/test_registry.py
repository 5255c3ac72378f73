"""The registry: calls that fit, calls that do not, and tools that break."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from pydantic import Field

from sandboxes.errors import PathEscape, SandboxError, SandboxGone
from tools.errors import ToolFailure
from tools.registry import Registry, default_tools
from tools.schema import Parameters
from tools.types import Observation, ToolContext, ToolSpec

NAMES = (
    "read_file",
    "edit",
    "write_file",
    "apply_patch",
    "grep_search",
    "glob",
    "list_directory",
    "repo_map",
    "find_symbol",
    "find_references",
    "run_shell_command",
    "shell_process",
    "shell_input",
    "todo_write",
    "submit",
)


class Sample(Parameters):
    text: str
    count: int = 1
    flag: bool = False
    items: list[int] = Field(default_factory=list)
    maybe: float | None = None


def sample(context: ToolContext, parameters: Sample) -> Observation:
    return Observation(str(parameters))


def registry_of(run: Any) -> Registry:
    sandbox: Any = None
    return Registry(ToolContext(sandbox), [ToolSpec("sample", "A sample.", Sample, run)])


def raising(error: BaseException) -> Registry:
    def run(context: ToolContext, parameters: Sample) -> Observation:
        raise error

    return registry_of(run)


def test_the_default_tools_and_their_schemas(bench) -> None:
    assert bench.registry.names == NAMES
    schemas = bench.registry.schemas()
    assert [schema["function"]["name"] for schema in schemas] == list(NAMES)
    for schema in schemas:
        function = schema["function"]
        assert schema["type"] == "function"
        assert function["description"]
        assert function["parameters"]["type"] == "object"
        for name, field in function["parameters"]["properties"].items():
            assert field["type"] in ("string", "integer", "number", "boolean", "array"), name
            assert field["description"], name


def test_the_parameters_are_those_of_the_design() -> None:
    assert {tool.name: tuple(tool.parameters.model_fields) for tool in default_tools()} == {
        "read_file": ("file_path", "offset", "limit"),
        "edit": ("file_path", "old_string", "new_string", "replace_all"),
        "write_file": ("file_path", "content"),
        "apply_patch": ("patch",),
        "grep_search": ("pattern", "path", "glob", "limit"),
        "glob": ("pattern", "path"),
        "list_directory": ("path",),
        "repo_map": ("path", "max_tokens"),
        "find_symbol": ("name",),
        "find_references": ("name",),
        "run_shell_command": ("command", "timeout", "directory", "is_background"),
        "shell_process": ("action", "id", "wait"),
        "shell_input": ("input", "id", "wait", "end"),
        "todo_write": ("todos",),
        "submit": ("summary",),
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"text": "a"}, "text='a' count=1 flag=False items=[] maybe=None"),
        ({"text": 5}, "text='5' count=1 flag=False items=[] maybe=None"),
        ({"text": "null"}, "text='null' count=1 flag=False items=[] maybe=None"),
        ({"text": "[1]"}, "text='[1]' count=1 flag=False items=[] maybe=None"),
        ({"text": "", "count": "10"}, "text='' count=10 flag=False items=[] maybe=None"),
        ({"text": "", "count": "null"}, "text='' count=1 flag=False items=[] maybe=None"),
        ({"text": "", "count": None}, "text='' count=1 flag=False items=[] maybe=None"),
        ({"text": "", "flag": "True"}, "text='' count=1 flag=True items=[] maybe=None"),
        ({"text": "", "items": "[1, 2]"}, "text='' count=1 flag=False items=[1, 2] maybe=None"),
        ({"text": "", "maybe": "None"}, "text='' count=1 flag=False items=[] maybe=None"),
        ({"text": "", "maybe": "2.5"}, "text='' count=1 flag=False items=[] maybe=2.5"),
    ],
)
def test_values_are_read_as_models_write_them(arguments, said) -> None:
    observation = registry_of(sample).run("sample", arguments)
    assert (observation.text, observation.ok) == (said, True)


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ({}, ["- text: required, but missing"]),
        ({"text": None}, ["- text: expected string, got null"]),
        ({"text": {"a": 1}}, ['- text: expected string, got {"a": 1}']),
        ({"text": "", "count": "ten"}, ['- count: expected integer, got "ten"']),
        ({"text": "", "flag": "perhaps"}, ['- flag: expected boolean, got "perhaps"']),
        ({"text": "", "items": "[1, 'x"}, ["""- items: expected list, got "[1, 'x\""""]),
        ({"text": "", "items": ["x"]}, ['- items.0: expected integer, got "x"']),
        (
            {"path": "a", "count": []},
            [
                "- text: required, but missing",
                "- count: expected integer, got []",
                "- path: there is no such parameter",
            ],
        ),
    ],
)
def test_each_problem_is_one_line(arguments, problems) -> None:
    observation = registry_of(sample).run("sample", arguments)
    assert not observation.ok
    assert observation.text.split("\n") == [
        "sample was not run: its parameters do not fit.",
        *problems,
        "sample takes text (required), count, flag, items, maybe.",
    ]


def test_a_long_value_is_not_repeated_whole() -> None:
    observation = registry_of(sample).run("sample", {"text": "", "count": "x" * 100_000})
    assert len(observation.text) < 400


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("reed_file", " Did you mean read_file?"),
        ("bash", " Did you mean run_shell_command?"),
        ("str_replace_editor", " Did you mean edit?"),
        ("launch_rocket", ""),
        ("", ""),
    ],
)
def test_an_unknown_tool_names_the_known_ones(bench, name, hint) -> None:
    observation = bench(name)
    assert not observation.ok
    assert observation.text == (
        f"There is no tool {name!r}.{hint} The tools are: {', '.join(NAMES)}."
    )


def test_a_hint_names_only_tools_that_are_there() -> None:
    observation = registry_of(sample).run("bash", {})
    assert observation.text == "There is no tool 'bash'. The tools are: sample."


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ToolFailure("Say what."), "Say what."),
        (
            PathEscape("x"),
            "The path leads out of the repository: use a path relative to its root.",
        ),
        (SandboxError("disk full"), "sample failed: disk full"),
    ],
)
def test_expected_failures_become_observations(error, text) -> None:
    observation = raising(error).run("sample", {"text": ""})
    assert (observation.text, observation.ok) == (text, False)


@pytest.mark.parametrize("error", [RuntimeError("odd"), RecursionError(), OSError(5, "I/O")])
def test_unexpected_failures_are_observed_and_logged(error, caplog) -> None:
    with caplog.at_level(logging.ERROR, logger="tools.registry"):
        observation = raising(error).run("sample", {"text": ""})
    assert not observation.ok
    assert observation.text.startswith(f"internal error in sample: {type(error).__name__}: ")
    assert "tool sample failed unexpectedly" in caplog.text
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize("error", [SandboxGone("gone"), KeyboardInterrupt()])
def test_what_must_end_the_run_goes_through(error) -> None:
    with pytest.raises(type(error)):
        raising(error).run("sample", {"text": ""})


def test_lone_surrogates_do_not_get_to_the_model() -> None:
    def run(context: ToolContext, parameters: Sample) -> Observation:
        return Observation("a\udcffb", truncated=True)

    observation = registry_of(run).run("sample", {"text": ""})
    assert observation == Observation("a?b", truncated=True)


def test_two_tools_of_one_name_are_an_error() -> None:
    spec = ToolSpec("sample", "A sample.", Sample, sample)
    sandbox: Any = None
    with pytest.raises(ValueError, match="same name"):
        Registry(ToolContext(sandbox), [spec, spec])


def test_submit_only_flags(bench) -> None:
    assert bench("submit") == Observation("Submitted.", submitted=True)
    assert bench("submit", summary="Fixed it.") == Observation("Submitted.", submitted=True)


def test_todos_are_kept_and_shown(bench) -> None:
    todos = [
        {"id": 1, "content": "Find the bug", "status": "completed"},
        {"content": "Fix it", "status": "in_progress"},
        {"content": "Test it", "status": "pending"},
    ]
    observation = bench("todo_write", todos=todos)
    assert observation.text == (
        "Todo list (1 of 3 completed):\n[x] Find the bug\n[>] Fix it\n[ ] Test it"
    )
    assert bench.context.todos[0] == {"id": "1", "content": "Find the bug", "status": "completed"}
    assert bench.context.todos[1] == {"content": "Fix it", "status": "in_progress"}

    wrong = bench("todo_write", todos=[{"content": "x", "status": "done"}])
    assert not wrong.ok
    assert "- todos.0.status: expected 'pending', 'in_progress' or 'completed', got" in wrong.text
    assert len(bench.context.todos) == 3

    assert bench("todo_write", todos="[]").text == "Todo list: empty."
    assert bench.context.todos == []
