"""A whole run whose model sees the tools of a profile."""

from __future__ import annotations

from agent.run.solve import solve
from agent.sessions.trajectory import read_lines
from agent.settings.table import Settings
from agent.types import Task


def call(name: str, **parameters: str) -> str:
    inside = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in parameters.items())
    return f"</think>\n\n<tool_call>\n<function={name}>\n{inside}</function>\n</tool_call>"


def test_a_run_with_the_editor_profile(git_repo, scripted_model, store) -> None:
    repo = git_repo({"calc.py": "def add(a, b):\n    return a - b\n"})
    turns = [
        call("str_replace_editor", command="view", path="calc.py"),
        call("read_file", file_path="calc.py"),
        call("str_replace_editor", command="str_replace", path="calc.py", old_str="-", new_str="+"),
        call("bash", command="cat calc.py"),
        call("submit"),
    ]
    settings = Settings(sandbox="local", tools="editor")
    report = solve(Task("Fix add.", repo), settings, scripted_model(*turns), store=store)

    assert "+    return a + b" in report.patch
    first = next(
        record["messages"]
        for record in read_lines(store.find(report.session).trajectory)
        if record["type"] == "prompt"
    )
    assert "Files are changed with `str_replace_editor` here" in first[0]["content"]
    seen = [o.text for step in report.result.steps for o in step.observations]
    assert seen[0] == "def add(a, b):\n    return a - b"
    assert "Did you mean" not in seen[1] and "There is no tool 'read_file'" in seen[1]
    assert seen[2] == "Edited calc.py: 1 replacement."
    assert seen[3].startswith("def add(a, b):\n    return a + b\n")
