"""``agent sessions`` after real runs."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import pytest

from agent.cli import app
from agent.cli.resume import run as resume
from agent.cli.solve import Output, run
from agent.sessions.info import SessionInfo
from agent.sessions.store import SavedSession, write_atomically


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
    size = r" +\d[\d.,]* [kM]B"
    told = f"{session}  submitted         5 steps     now{size}  add ␛\\[31msubtracts\n"
    assert re.fullmatch(told, line)
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
    write = script.call("write_file", file_path="min.js", content="".join(map(str, range(1500))))
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


def test_list_filters_by_repository(session, buggy_repo, tmp_path, capfd) -> None:
    app.call(["sessions", "list", "--repo", str(buggy_repo)])
    assert session in capfd.readouterr().out
    app.call(["sessions", "list", "--repo", str(tmp_path)])
    assert "no sessions in" in capfd.readouterr().out


def test_the_last_four_characters_name_a_session(session, capfd) -> None:
    assert app.call(["sessions", "show", session[-4:]]) == 0
    assert session in capfd.readouterr().out
    assert app.call(["sessions", "show", session[-3:]]) == 1


def test_prune_removes_by_age_and_size_and_tells_its_bounds(session, store, capfd) -> None:
    assert app.call(["sessions", "prune"]) == 0
    told = capfd.readouterr().err
    assert "removed 0 of 1 sessions" in told
    assert "30 days, 10,000 MB" in told
    assert app.call(["sessions", "prune", "--megabytes", "0", "--dry-run"]) == 0
    assert f"would remove {session}" in capfd.readouterr().out
    assert len(store.sessions()) == 1
    old = store.find(session)
    old_info = old.info.changed(updated="2020-01-01T00:00:00Z")
    write_atomically(old.path / "session.json", old_info.stored)
    assert app.call(["sessions", "list"]) == 0
    assert "1 of them are past the bounds (30 days, 10,000 MB)" in capfd.readouterr().err
    assert app.call(["sessions", "prune", "--days", "900"]) == 0
    assert store.sessions() == []


def test_a_patch_goes_into_a_repository_that_was_moved(
    session, buggy_repo, monkeypatch, capfd
) -> None:
    moved = buggy_repo.rename(buggy_repo.with_name("moved"))
    assert app.call(["sessions", "patch", session, "--apply"]) == 1
    assert "give its new place with --repo" in capfd.readouterr().err
    assert app.call(["sessions", "patch", session, "--apply", "--repo", str(moved)]) == 0
    assert "return a + b" in (moved / "calc.py").read_text()
    (moved / "calc.py").write_text("def add(a, b):\n    return a - b\n")
    monkeypatch.chdir(moved)
    assert app.call(["sessions", "patch", session, "--apply"]) == 0
    assert "return a + b" in (moved / "calc.py").read_text()


def test_show_has_what_the_user_said_later(
    session, buggy_repo, script, scripted_model, capfd
) -> None:
    again = scripted_model(script.turn(script.call("submit", summary="done")))
    resume(session, "Now a test for it.", {}, model=again)
    capfd.readouterr()
    app.call(["sessions", "show", session])
    assert "the user said:\n  Now a test for it." in capfd.readouterr().out


def test_the_newest_session_goes_on_also_where_it_was_moved_to(
    session, buggy_repo, script, scripted_model, store, monkeypatch, capfd
) -> None:
    again = scripted_model(script.turn(script.call("submit", summary="done")))
    moved = buggy_repo.rename(buggy_repo.with_name("moved"))
    monkeypatch.chdir(moved)
    assert resume(session, "More.", {}, model=again) == 0
    assert store.find(session).info.repo == moved
    assert "the repository was at" in capfd.readouterr().err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"And more.\n")))
    more = scripted_model(script.turn(script.call("submit", summary="done")))
    assert resume(None, "-", {"max_steps": 1}, model=more) in (0, 4)  # not an error
    assert "And more." in store.find(session).trajectory.read_text()


def test_a_flag_that_cannot_be_is_refused_without_torch(session) -> None:
    code = (
        "import sys; from agent.cli.main import main\n"
        "sys.argv = ['agent', 'resume', sys.argv[1], 'Go on.', '--max-steps', '0']\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, session], capture_output=True, text=True, check=False
    )
    assert "max_steps" in done.stderr.replace("-", "_")
    assert done.stdout == "2 False\n"


def test_a_session_in_use_is_refused_without_torch(session, own_places) -> None:
    (path,) = (own_places / "tenuto" / "sessions").iterdir()
    code = (
        "import sys; from agent.cli.main import main\n"
        "sys.argv = ['agent', 'resume', sys.argv[1]]\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, 'torch' in sys.modules)"
    )
    with SavedSession(path, SessionInfo()).claim():
        done = subprocess.run(
            [sys.executable, "-c", code, session], capture_output=True, text=True, check=False
        )
    assert "is in use by" in done.stderr
    assert done.stdout == "1 False\n"
