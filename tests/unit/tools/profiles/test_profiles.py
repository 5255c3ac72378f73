"""Profiles show the same tools under other names and in other words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.profiles.profile import ProfileError, load_profile
from tools.registry import Registry, default_tools
from tools.types import Observation

Use = Callable[..., Observation]


@pytest.fixture
def use(bench) -> Use:
    """Calls of the editor profile's tools."""
    registry = Registry(bench.context, load_profile("editor").tools)
    return lambda name, **arguments: registry.run(name, arguments)


def edit(use: Use, command: str, path: str, **more: Any) -> Observation:
    return use("str_replace_editor", command=command, path=path, **more)


def test_the_default_profile_is_the_list_of_tools() -> None:
    profile = load_profile("qwen")
    assert (profile.tools, profile.prompt) == (default_tools(), "")


@pytest.mark.parametrize(
    ("name", "tools"),
    [("editor", ["str_replace_editor", "bash", "submit"]), ("lean", ["bash", "edit", "submit"])],
)
def test_the_tools_of_a_profile(name: str, tools: list[str]) -> None:
    profile = load_profile(name)
    assert [tool.name for tool in profile.tools] == tools
    assert profile.prompt
    for tool in profile.tools:
        function = tool.schema()["function"]
        assert function["description"]
        assert all(field["description"] for field in function["parameters"]["properties"].values())


def test_bash_runs_a_command_and_nothing_is_left_running(bench, use: Use) -> None:
    assert use("bash", command="echo a").text == "a\n[exit code 0]"
    bench.context.command_timeout_s = 0.2
    assert "timed out after 0.2 s" in use("bash", command="sleep 60").text
    seen = use("bash", command="echo a", timeout=-1)
    assert not seen.ok and seen.text.startswith("bash was not run")
    assert not use("bash", command="echo a", is_background=True).ok


def test_view_shows_files_lines_and_directories(bench, use: Use) -> None:
    bench.write("a/b.txt", "1\n2\n3\n4\n")
    assert edit(use, "view", "a/b.txt").text == "1\n2\n3\n4"
    assert edit(use, "view", "a").text == "b.txt"
    seen = edit(use, "view", "a/b.txt", view_range=[2, 3])
    assert seen.text == "[lines 2-3 of 4; use view_range for more]\n2\n3"
    assert edit(use, "view", "a/b.txt", view_range="[3, -1]").text.endswith("3\n4")
    for wrong in ([0, 2], [3, 2], [1, 2, 3]):
        assert (
            "view_range is a first and a last line"
            in edit(use, "view", "a/b.txt", view_range=wrong).text
        )
    assert edit(use, "view", "a/b.txt", view_range=[9]).text == (
        "view_range 9 is past the end: a/b.txt has 4 lines."
    )


def test_every_change_can_be_taken_back_in_turn(bench, use: Use) -> None:
    assert edit(use, "create", "a.py", file_text="x = 1\n").ok
    assert edit(use, "str_replace", "a.py", old_str="1", new_str="2").ok
    assert edit(use, "insert", "a.py", insert_line=1, new_str="y = 3").text == (
        "Edited a.py: 1 line inserted."
    )
    assert bench.read("a.py") == b"x = 2\ny = 3\n"
    for left in (b"x = 2\n", b"x = 1\n"):
        assert edit(use, "undo", "a.py").text == "Took back the last change of a.py."
        assert bench.read("a.py") == left
    assert edit(use, "undo", "a.py").text == "Took back the creation of a.py: it is gone."
    assert not (bench.root / "a.py").exists()
    assert "can be taken back" in edit(use, "undo", "a.py").text


def test_an_undo_does_not_take_back_what_somebody_else_changed(bench, use: Use) -> None:
    bench.write("a.py", "x = 1\n")
    assert edit(use, "str_replace", "a.py", old_str="1", new_str="2").ok
    bench.write("a.py", "x = 5\n")
    seen = edit(use, "undo", "a.py")
    assert not seen.ok and "is not what it was" in seen.text
    assert bench.read("a.py") == b"x = 5\n"


@pytest.mark.parametrize(
    ("before", "line", "text", "after"),
    [
        (b"", 0, "a", b"a\n"),
        (b"a\nb\n", 0, "x\n", b"x\na\nb\n"),
        (b"a\nb\n", 1, "x\ny", b"a\nx\ny\nb\n"),
        (b"a\nb", 2, "x", b"a\nb\nx"),
        (b"a\r\nb\r\n", 1, "x\r\ny\n", b"a\r\nx\r\ny\r\nb\r\n"),
        (b"\xef\xbb\xbfa\n", 0, "x", b"\xef\xbb\xbfx\na\n"),
    ],
)
def test_insert(bench, use: Use, before: bytes, line: int, text: str, after: bytes) -> None:
    bench.write("a.txt", before)
    assert edit(use, "insert", "a.txt", insert_line=line, new_str=text).ok
    assert bench.read("a.txt") == after
    assert "is past the end" in edit(use, "insert", "a.txt", insert_line=9, new_str="x").text


def test_failures_are_said_in_the_words_of_the_profile(bench, use: Use) -> None:
    bench.write("a.py", "old_string = 1\n" * 2)
    seen = edit(use, "str_replace", "a.py", old_str="old_string = 2", new_str="x")
    first, _, rest = seen.text.partition("\n")
    assert "old_str is not in a.py" in first and "old_string" not in first
    assert "old_string = 1" in rest
    assert edit(use, "str_replace", "a.py", old_str="old_string", new_str="x").text.startswith(
        "Nothing was changed: old_str occurs 2 times"
    )
    assert "needs file_text" in edit(use, "create", "b.py").text
    assert "needs insert_line" in edit(use, "insert", "a.py", new_str="x").text
    assert not use("str_replace_editor", command="delete", path="a.py").ok
    assert "There is no tool 'read_file'" in use("read_file", file_path="a.py").text


def test_a_view_is_a_read_and_the_rest_are_edits(bench) -> None:
    bench.write("a.py", "x = 1\n")
    registry = Registry(bench.context, load_profile("editor").tools)
    assert registry.kind("str_replace_editor") == "edit"
    assert registry.kind("str_replace_editor", {"command": "view"}) == "read"
    assert registry.kind("str_replace_editor", {"command": "create"}) == "edit"
    call = {"command": "str_replace", "path": "a.py", "old_str": "1", "new_str": "2"}
    changes = registry.preview("str_replace_editor", call)
    assert changes is not None and [c.path for c in changes] == ["a.py"]
    assert bench.read("a.py") == b"x = 1\n"
    assert bench.context.seen.paths == frozenset()


PROFILE = """\
prompt = "Use replace."
[tools.replace]
runs = "edit"
parameters = { file_path = "path", old_string = "old", new_string = "new" }
[tools.sh]
runs = "run_shell_command"
description = "Run it."
parameters = { command = "command" }
[tools.done]
runs = "submit"
"""


def test_a_file_makes_a_profile(bench, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(PROFILE, encoding="utf-8-sig")
    profile = load_profile(str(path))
    assert (profile.name, profile.prompt) == ("mine", "Use replace.")
    registry = Registry(bench.context, profile.tools)
    assert registry.names == ("replace", "sh", "done")
    shown = registry.schemas()[0]["function"]["parameters"]
    assert list(shown["properties"]) == ["path", "old", "new"]
    assert shown["required"] == ["path", "old", "new"]
    bench.write("a.py", "x = 1\n")
    seen = registry.run("replace", {"path": "a.py", "old": "1", "new": "2"})
    assert seen.text == "Edited a.py: 1 replacement."
    assert (
        "old is not in a.py"
        in registry.run("replace", {"path": "a.py", "old": "7", "new": "2"}).text
    )
    assert registry.run("sh", {"command": "echo a"}).text == "a\n[exit code 0]"
    assert registry.run("done", {}).submitted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "is no tool profile"),
        ("tools = {}", "is no tool profile: tools"),
        ("nope = 1\n[tools.done]\nruns = 'submit'", "is no tool profile: nope"),
        ("[tools.a]\nruns = 'nope'", "tools.a runs 'nope', which is none of our tools"),
        ("[tools.a]\nruns = 'edit'", "has no tool that runs submit"),
        ("[tools.a]\nruns = 'edit'\nparameters = {x = 'y'}", "names 'x', not of edit"),
        (
            "[tools.a]\nruns = 'edit'\nparameters = {file_path = 'p'}",
            "leaves out 'old_string', which is required",
        ),
        (
            "[tools.a]\nruns = 'glob'\nparameters = {pattern = 'p', path = 'p'}",
            "gives two parameters one name",
        ),
    ],
)
def test_a_file_that_is_no_profile_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(text)
    with pytest.raises(ProfileError) as caught:
        load_profile(str(path))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_name_names_the_known_ones() -> None:
    with pytest.raises(ProfileError, match="give one of qwen, editor, lean, or a TOML file"):
        load_profile("qwenn")
