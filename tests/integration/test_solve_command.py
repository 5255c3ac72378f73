"""What ``agent solve`` prints: a patch, one JSON object, or one event a line; errors likewise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli.solve import Output, run

ROOT = Path(__file__).parents[2]
KEYS = {
    "attempts",
    "notices",
    "session",
    "status",
    "exit_status",
    "patch",
    "summary",
    "steps",
    "usage",
    "check",
    "model",
    "sandbox",
}


def test_json_is_one_object_and_nothing_else(
    buggy_repo, script, scripted_model, capfd, contents
) -> None:
    before = contents(buggy_repo)
    flags = {"sandbox": "local", "check": script.CHECK}
    model = scripted_model(*script.repair())
    code = run("add subtracts", buggy_repo, flags, output=Output.JSON, model=model)
    out, err = capfd.readouterr()
    data = json.loads(out)
    assert out.count("\n") == 1
    assert set(data) == KEYS
    assert (code, data["exit_status"], data["status"]) == (0, 0, "submitted")
    assert (data["steps"], data["model"], data["sandbox"]) == (5, "scripted", "local")
    assert data["check"]["before"]["exit_code"] == 1
    assert data["check"]["passed"] is True
    usage = data["usage"]
    assert usage["prefilled_tokens"] + usage["generated_tokens"] == usage["context_tokens"]
    assert contents(buggy_repo) == before
    assert "(0 prefilled twice); 5 steps" in err
    subprocess.run(
        ["git", "apply", "--check", "-"],
        input=data["patch"].encode(),
        cwd=buggy_repo,
        check=True,
    )


def test_text_is_the_patch_and_the_summary_goes_to_stderr(
    buggy_repo, script, scripted_model, capfd
) -> None:
    flags = {"sandbox": "local", "check": script.CHECK}
    model = scripted_model(*script.repair())
    assert run("x", buggy_repo, flags, model=model) == 0
    out, err = capfd.readouterr()
    assert out.startswith("diff --git ")
    subprocess.run(["git", "apply", "-"], input=out.encode(), cwd=buggy_repo, check=True)
    lines = err.splitlines()
    assert lines[0] == "submitted: add subtracted; it adds now"
    assert lines[1].endswith("before: fails (exit code 1); after: passes")
    assert lines[2].startswith("usage: ")
    assert lines[3].startswith("session ")
    assert len(lines) == 4


def test_stream_json_is_one_event_a_line_and_the_result_last(
    buggy_repo, script, scripted_model, capfd
) -> None:
    flags = {"sandbox": "local", "check": script.CHECK}
    model = scripted_model(*script.repair())
    assert run("x", buggy_repo, flags, output=Output.STREAM_JSON, model=model) == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    kinds = [event.pop("event") for event in events]
    turn = ["call", "observation", "step"]
    assert kinds == ["start", "check", *turn * 5, "check", "end", "result"]
    assert set(events[-1]) == KEYS
    assert events[0]["session"] == events[-1]["session"]
    assert events[2] == {"name": "run_shell_command", "arguments": {"command": script.CHECK}}


def test_apply(buggy_repo, script, scripted_model, capfd) -> None:
    model = scripted_model(*script.repair())
    assert run("x", buggy_repo, {"sandbox": "local"}, model=model, apply=True) == 0
    assert (buggy_repo / "calc.py").read_text() == "def add(a, b):\n    return a + b\n"
    assert f"applied to {buggy_repo}" in capfd.readouterr().err


@pytest.mark.parametrize("output", [Output.JSON, Output.STREAM_JSON])
def test_an_error_is_one_line_and_one_object(output, buggy_repo, capfd) -> None:
    code = run("x", buggy_repo, {"max_steps": 0}, output=output)
    out, err = capfd.readouterr()
    data = json.loads(out)
    assert data.pop("event", "result") == "result"
    assert set(data) == KEYS
    assert (code, data["exit_status"], data["status"]) == (2, 2, "error")
    assert err == f"error: {data['summary']}\n"


def test_an_unknown_model_offline(buggy_repo, capfd) -> None:
    flags = {"model": "nobody/nothing", "sandbox": "local"}
    assert run("x", buggy_repo, flags, output=Output.JSON) == 2
    out, err = capfd.readouterr()
    assert "nobody/nothing" in json.loads(out)["summary"]
    assert err.count("\n") == 1


def test_docker_not_running(buggy_repo, capfd, monkeypatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    assert run("x", buggy_repo, {}, output=Output.JSON) == 1
    out, err = capfd.readouterr()
    data = json.loads(out)
    assert (data["status"], data["session"], data["sandbox"]) == ("error", None, "docker")
    assert "Docker" in data["summary"]
    assert err.count("\n") == 1


def test_an_image_that_is_not_there(
    docker_engine, buggy_repo, script, scripted_model, capfd
) -> None:
    flags = {"image": "tenuto.invalid/no/such:image"}
    assert run("x", buggy_repo, flags, model=scripted_model(*script.repair())) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "tenuto.invalid/no/such:image" in err
    assert err.count("\n") == 1


def test_a_repository_cannot_ask_for_no_isolation(buggy_repo, capfd) -> None:
    (buggy_repo / ".agent.toml").write_text('sandbox = "local"\n')
    assert run("x", buggy_repo, {}) == 2
    assert "which a repository may not decide" in capfd.readouterr().err


def test_a_repository_may_name_its_check(buggy_repo, script, scripted_model, capfd) -> None:
    (buggy_repo / ".agent.toml").write_text(f'check = "{script.CHECK}"\n')
    model = scripted_model(*script.repair())
    assert run("x", buggy_repo, {"sandbox": "local"}, output=Output.JSON, model=model) == 0
    assert json.loads(capfd.readouterr().out)["check"]["command"] == script.CHECK


def test_a_patch_that_is_no_utf8(git_repo, script, scripted_model, capfdbinary) -> None:
    repo = git_repo({"a.txt": b"caf\xe9\nx = 1\n"})
    command = r"printf 'caf\351\nx = 2\n' > a.txt"
    turns = (
        script.turn(script.call("run_shell_command", command=command)),
        script.turn(script.call("submit", summary="two")),
    )
    assert run("x", repo, {"sandbox": "local"}, model=scripted_model(*turns)) == 0
    patch = capfdbinary.readouterr().out
    subprocess.run(["git", "apply", "-"], input=patch, cwd=repo, check=True)
    assert (repo / "a.txt").read_bytes() == b"caf\xe9\nx = 2\n"
    model = scripted_model(*turns)
    subprocess.run(["git", "checkout", "-q", "."], cwd=repo, check=True)
    assert run("x", repo, {"sandbox": "local"}, output=Output.JSON, model=model) == 0
    assert json.loads(capfdbinary.readouterr().out)["exit_status"] == 0


def agent_command(repo: Path, checkpoint: Path, task: str, output: str) -> list[str]:
    """A run of the whole program that ends after one short turn."""
    return [
        *(sys.executable, "-c", "from agent.cli.main import main; main()", "solve", task),
        *("--repo", str(repo), "--model", str(checkpoint), "--sandbox=local"),
        *("--max-steps=1", "--max-turn-tokens=3", f"--output={output}"),
    ]


def test_the_task_is_read_from_stdin(buggy_repo, tiny_checkpoint) -> None:
    done = subprocess.run(
        agent_command(buggy_repo, tiny_checkpoint, "-", "json"),
        input="the task, fr\u00fch\n".encode(),
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    data = json.loads(done.stdout)
    assert (done.returncode, data["status"]) == (4, "limit_steps")
    assert data["usage"]["generated_tokens"] <= 3
    folder = Path(os.environ["XDG_STATE_HOME"]) / "tenuto" / "sessions" / data["session"]
    assert json.loads((folder / "session.json").read_text())["task"] == "the task, fr\u00fch"


def test_a_closed_pipe_is_quiet_and_keeps_the_exit_code(buggy_repo, tiny_checkpoint) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            agent_command(buggy_repo, tiny_checkpoint, "x", "stream-json"),
            stdout=writer,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.returncode == 4
    assert b"Traceback" not in done.stderr
    assert b"Broken" not in done.stderr
