"""``agent sessions`` after real runs."""

from __future__ import annotations

import json

import pytest

from agent.cli import app
from agent.cli.solve import Output, run


@pytest.fixture
def session(buggy_repo, script, scripted_model, capfd) -> str:
    """The id of a finished run."""
    flags = {"sandbox": "local", "check": script.CHECK}
    model = scripted_model(*script.repair())
    run("add \x1b[31msubtracts", buggy_repo, flags, output=Output.JSON, model=model)
    return json.loads(capfd.readouterr().out)["session"]


def test_list(session, capfd) -> None:
    assert app.call(["sessions", "list"]) == 0
    line = capfd.readouterr().out
    assert line == f"{session}  submitted         5 steps  add ␛[31msubtracts\n"
    assert app.call(["sessions", "list", "--output=json"]) == 0
    (data,) = json.loads(capfd.readouterr().out)["sessions"]
    assert (data["id"], data["steps"], data["check_result"]["passed"]) == (session, 5, True)


def test_show(session, capfd) -> None:
    assert app.call(["sessions", "show", session[:-2]]) == 0
    text = capfd.readouterr().out
    assert "\x1b" not in text
    assert "check before: exit code 1" in text
    assert "  > edit file_path='calc.py'" in text
    assert "    Edited calc.py: 1 replacement." in text
    assert "+    return a + b" in text
    assert app.call(["sessions", "show", session, "--output=json"]) == 0
    data = json.loads(capfd.readouterr().out)
    kinds = [record["type"] for record in data["records"]]
    turns = ["prompt", "step"] * 5
    assert kinds == ["session", "check", *turns, "check", "end"]


def test_show_cuts_a_line_that_is_a_whole_file(
    buggy_repo, script, scripted_model, store, capfd
) -> None:
    write = script.call("write_file", file_path="min.js", content="x" * 5000)
    read = script.call("read_file", file_path="min.js")
    model = scripted_model(script.turn(write, read), script.turn(script.call("submit")))
    run("t", buggy_repo, {"sandbox": "local"}, output=Output.JSON, model=model)
    capfd.readouterr()
    (saved,) = store.sessions()
    app.call(["sessions", "show", saved.id])
    steps = capfd.readouterr().out.partition("\npatch:")[0].split("step 1")[1]
    assert max(map(len, steps.split("\n"))) < 250
    assert "more characters" in steps


def test_rm(session, store, capfd) -> None:
    assert app.call(["sessions", "rm", session]) == 0
    assert capfd.readouterr().out == f"removed {session}\n"
    assert store.sessions() == []


def test_patch_prints_or_applies_what_the_session_changed(session, buggy_repo, capfd) -> None:
    assert app.call(["sessions", "patch", session]) == 0
    patch = capfd.readouterr().out
    assert patch.startswith("diff --git a/calc.py b/calc.py\n")
    before = (buggy_repo / "calc.py").read_text()
    assert app.call(["sessions", "patch", session, "--apply"]) == 0
    assert capfd.readouterr() == ("", f"applied to {buggy_repo}\n")
    assert (buggy_repo / "calc.py").read_text() != before
    # A second time it does not fit, and nothing is changed.
    assert app.call(["sessions", "patch", session, "--apply"]) == 1
    assert "error: " in capfd.readouterr().err
