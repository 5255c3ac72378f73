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


@pytest.mark.parametrize("nothing", [None, "", "null", "None"])
@pytest.mark.parametrize(
    ("name", "arguments", "optional"),
    [
        ("read_file", {"file_path": "a.py"}, "limit"),
        ("read_file", {"file_path": "a.py"}, "offset"),
        ("grep_search", {"pattern": "def one"}, "path"),
        ("grep_search", {"pattern": "def one"}, "glob"),
        ("grep_search", {"pattern": "def one"}, "limit"),
        ("run_shell_command", {"command": "cat a.py"}, "timeout"),
        ("run_shell_command", {"command": "cat a.py"}, "directory"),
        ("run_shell_command", {"command": "cat a.py"}, "is_background"),
    ],
)
def test_nothing_for_an_optional_parameter_leaves_it_out(
    bench, name, arguments, optional, nothing
) -> None:
    bench.write("a.py", "def one(): pass\n")
    seen = bench(name, **arguments, **{optional: nothing})
    assert seen == bench(name, **arguments)
    assert seen.ok and "def one" in seen.text


def test_an_empty_required_text_is_a_value(bench) -> None:
    bench.write("a.py", "one two\n")
    assert bench("edit", file_path="a.py", old_string=" two", new_string="").ok
    assert bench("write_file", file_path="b.py", content="null").ok
    assert (bench.read("a.py"), bench.read("b.py")) == (b"one\n", b"null")


def test_parameters_that_only_comment_a_call_are_ignored(bench) -> None:
    seen = bench("run_shell_command", command="echo a", description="Say a.", security_risk="LOW")
    assert seen.text == "a\n[exit code 0]"
    todo = {"content": "Fix it", "status": "pending", "activeForm": "Fixing it", "priority": "high"}
    assert bench("todo_write", todos=[todo]).text == "Todo list (0 of 1 completed):\n[ ] Fix it"
    assert bench.context.todos == [{"content": "Fix it", "status": "pending"}]
    assert not bench("run_shell_command", command="echo a", run_as="root").ok


def test_a_call_that_could_not_be_read_is_answered_with_the_reason_or_our_name(bench) -> None:
    cut = "The call to edit was cut off."
    assert bench.registry.refuse("edit", cut) == Observation(cut, ok=False)
    assert bench.registry.refuse("", "A call without a name.").text == "A call without a name."
    seen = bench.registry.refuse("str_replace_editor", "There is no tool 'str_replace_editor'.")
    assert "Did you mean edit?" in seen.text and not seen.ok


def test_deep_and_wide_arguments_are_refused_in_few_words(bench) -> None:
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]
    for todos in ("[" * 100_000, '{"a":' * 100_000, deep, [{"content": deep, "status": "x"}]):
        seen = bench("todo_write", todos=todos)
        assert not seen.ok and "internal error" not in seen.text
        assert len(seen.text) < 2_000
    seen = bench("submit", **{f"x{number}": 1 for number in range(1_000)}, **{"y" * 100_000: 1})
    assert "- and 991 more\n" in seen.text and len(seen.text) < 2_000


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("read_file", {"file_path": "a/" * 500_000}),
        ("edit", {"file_path": "a.py", "old_string": "\n" * 1_000_000 + "x", "new_string": ""}),
        ("glob", {"pattern": "*" * 1_000_000}),
        ("grep_search", {"pattern": "a" * 1_000_000}),
        ("grep_search", {"pattern": "a", "glob": "a" * 1_000_000}),
        ("shell_process", {"action": "read", "id": "9" * 1_000_000}),
        ("shell_process", {"action": "read", "id": "9" * 5_000}),
        ("apply_patch", {"patch": "x" * 1_000_000}),
        ("apply_patch", {"patch": f"*** Begin Patch\n*** Add File: {'a' * 10**6}\n*** End Patch"}),
        (
            "apply_patch",
            {"patch": f"--- a/{'a' * 10**6}\n+++ b/{'a' * 10**6}\n@@ -1 +1 @@\n-a\n+b"},
        ),
        ("a" * 1_000_000, {}),
    ],
)
def test_a_megabyte_of_argument_does_not_come_back(bench, name, arguments) -> None:
    bench.write("a.py", "x = 1\n")
    seen = bench(name, **arguments)
    assert not seen.ok and "internal error" not in seen.text
    assert len(seen.text) < 2_000


def test_no_observation_is_longer_than_its_tool_allows() -> None:
    def run(context: ToolContext, parameters: Sample) -> Observation:
        return Observation("line\n" * 1_000_000)

    seen = registry_of(run).run("sample", {"text": ""})
    assert len(seen.text) < 51_000 and seen.truncated
    assert "characters left out" in seen.text
