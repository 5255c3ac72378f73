"""The command line: one line on stderr, the right exit code, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from agent.cli import app
from agent.cli import main as cli
from agent.cli.printing import how_it_ended
from agent.settings.option import Group
from agent.settings.table import OPTIONS

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("TENUTO_DEBUG", raising=False)


Outcome = tuple[int, str, str]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*arguments: str) -> Outcome:
        code = app.call(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom agent.cli import app\napp.call(['solve', '--help'])\n"
        "assert 'torch' not in sys.modules and 'docker' not in sys.modules, 'slow import'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--max-wall-time" in done.stdout


def test_what_is_told_of_an_interrupted_start_needs_no_torch() -> None:
    # A start that was interrupted while torch was being imported cannot import it again.
    code = (
        "import sys\nimport agent.cli.printing, agent.cli.sessions\n"
        "import agent.run.report, agent.sessions.store, agent.sessions.history\n"
        "import sandboxes.workspace.kept_record\n"
        "assert 'torch' not in sys.modules, 'slow import'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_version(call: Callable[..., Outcome]) -> None:
    code, out, _ = call("--version")
    assert code == 0
    assert out.startswith("tenuto ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("solve", "--nope"),
        ("nope",),
        ("solve", "x", "--max-steps", "many"),
        ("solve", "x", "--output", "xml"),
        ("sessions", "show"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    call: Callable[..., Outcome], arguments: tuple[str, ...]
) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("sessions",), ("sandbox",)])
def test_nothing_said_is_help_alone(
    call: Callable[..., Outcome], arguments: tuple[str, ...]
) -> None:
    code, out, err = call(*arguments)
    assert (code, err) == (2, "")
    assert "Usage: agent" in out


@pytest.mark.parametrize(
    ("arguments", "event"),
    [
        (("solve", "x", "--output=json", "--nope"), {}),
        (("solve", "x", "--max-steps", "many", "--output", "stream-json"), {"event": "result"}),
        (("resume", "--output=json"), {}),
    ],
)
def test_a_json_output_has_its_object_also_for_wrong_usage(
    call: Callable[..., Outcome], arguments: tuple[str, ...], event: dict[str, str]
) -> None:
    code, out, err = call(*arguments)
    assert (code, err.count("\n")) == (2, 1)
    data = json.loads(out)
    assert {"status": "error", "exit_status": 2, **event}.items() <= data.items()
    assert data["summary"] in err


def test_a_value_out_of_range_is_code_2(call: Callable[..., Outcome], tmp_path: Path) -> None:
    code, _, err = call("solve", "x", "--repo", str(tmp_path), "--max-steps", "0")
    assert code == 2
    assert err == (
        "error: max_steps = 0 in the command line: input should be greater than or equal to 1\n"
    )


def test_no_such_directory_is_code_2(call: Callable[..., Outcome], tmp_path: Path) -> None:
    code, _, err = call("solve", "x", "--repo", str(tmp_path / "nope"))
    assert code == 2
    assert "is not a directory" in err


@pytest.mark.parametrize("task", ["", "  \n "])
def test_an_empty_task_is_code_2(call: Callable[..., Outcome], task: str) -> None:
    code, _, err = call("solve", task)
    assert code == 2
    assert err == "error: the task is empty: say what to do\n"


def test_a_folder_that_is_no_repository_is_code_2(
    call: Callable[..., Outcome], tmp_path: Path
) -> None:
    code, out, err = call("solve", "x", "--repo", str(tmp_path))
    assert (code, out) == (2, "")
    assert "is not in a git repository" in err
    assert err.count("\n") == 1


def test_an_unknown_session_is_code_1(call: Callable[..., Outcome]) -> None:
    for command in ("show", "rm"):
        code, _, err = call("sessions", command, "20000101")
        assert code == 1
        assert err == "error: no session '20000101'; see agent sessions list\n"


def test_no_sessions_yet(call: Callable[..., Outcome]) -> None:
    code, out, _ = call("sessions", "list")
    assert code == 0
    assert out.startswith("no sessions in ")


def test_an_unknown_model_offline_is_one_line(call: Callable[..., Outcome]) -> None:
    code, _, err = call("model", "info", "nobody/nothing")
    assert code == 2
    assert err.startswith("error: nobody/nothing is not (or not all) on this machine")
    assert err.count("\n") == 1


def test_an_internal_error_is_one_line_unless_debugging(
    call: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("boom\nboom")

    monkeypatch.setattr(app, "version", broken)
    code, _, err = call("--version")
    assert code == 1
    assert (
        err == "error: internal error: RuntimeError: boom boom; set TENUTO_DEBUG=1 to see where\n"
    )
    monkeypatch.setenv("TENUTO_DEBUG", "1")
    _, _, err = call("--version")
    assert "Traceback" in err
    assert err.endswith("to see where\n")


@pytest.mark.parametrize("name", cli.SIBLINGS)
def test_other_packages_of_our_names_are_noticed(tmp_path: Path, name: str) -> None:
    """As when the command is run with PYTHONPATH=. inside a project that has such a folder."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('imported')")
    done = subprocess.run(
        [sys.executable, "-c", "from agent.cli.main import main; main()", "--version"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the package {name!r} is found at {tmp_path / name}")
    assert done.stderr.count("\n") == 1


def test_help_into_a_closed_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", "from agent.cli.main import main; main()", "--help"],
            stdout=writer,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.stderr == b""


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_streams_are_not_taken_by_other_files(closed: tuple[int, ...]) -> None:
    code = (
        "import os, sys\n"
        f"for number in {closed}: os.close(number)\n"
        "from agent.cli.main import open_closed_streams\n"
        "open_closed_streams()\n"
        f"ok = all(os.path.samestat(os.fstat(n), os.stat(os.devnull)) for n in {closed})\n"
        f"ok = ok and all(os.get_inheritable(n) for n in {closed})\n"
        "sys.exit(0 if ok and os.open('/', os.O_RDONLY) > 2 else 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0


def test_a_full_stdout_is_told_once() -> None:
    code = "from agent.cli.main import main; main()"
    arguments = ("solve", "t", "--repo", "/nowhere", "--output", "json")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: --repo /nowhere is not a directory"]


def test_a_flag_has_one_name_and_one_meaning_in_every_command() -> None:
    seen: dict[str, set[tuple[object, ...]]] = {}

    def walk(command: Any) -> None:
        for child in getattr(command, "commands", {}).values():
            walk(child)
        for option in command.params:
            if option.name in OPTIONS and option.opts[0].startswith("--"):
                meaning = option.help.partition(" (default")[0]
                shape = (*option.opts, *option.secondary_opts, option.metavar, meaning)
                seen.setdefault(option.name, set()).add(shape)

    walk(typer.main.get_command(app.app))
    assert set(seen) == {key for key, row in OPTIONS.items() if row.flag}
    assert {key: shapes for key, shapes in seen.items() if len(shapes) > 1} == {}


def test_an_evaluation_takes_quantize_and_the_network_by_its_mode(
    call: Callable[..., Outcome],
) -> None:
    code, out, _ = call("eval", "run", "--help")
    assert code == 0
    assert "--quantize" in out
    assert "--no-network" not in out


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become a user without a name")
def test_a_user_without_a_home_is_told_so_and_needs_none_with_the_xdg_folders() -> None:
    # What is needed is imported before, since that user may not read it.
    code = (
        "import os, sys, agent.cli.app, agent.sessions.caches\n"
        "from agent.cli.main import main\nos.setuid(54321)\nmain()\n"
    )
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    folders = {f"XDG_{kind}_HOME": "/nowhere" for kind in ("CONFIG", "CACHE", "STATE")}

    def run(variables: dict[str, str]) -> tuple[int, str]:
        command = [sys.executable, "-c", code, "cache", "list"]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    code_of, said = run(bare)
    assert code_of == 2
    assert said.startswith("error: HOME is not set and this user has no home folder; set HOME")
    assert said.count("\n") == 1
    assert run(bare | folders) == (0, "")


@pytest.mark.parametrize("columns", ["60", "80"])
def test_help_is_grouped_and_fits_the_terminal(
    call: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    code, out, _ = call("solve", "--help")
    assert code == 0
    assert [line for line in out.splitlines() if len(line) > max(80, int(columns))] == []
    assert [name for name in Group if f"\n{name.value}\n" in out] == list(Group)[:-1]
    assert "-m, --model NAME" in out
    assert "(default: docker)" in " ".join(out.split())
    assert "never|edits|commands|all" in out
    assert "\nExamples:\n  agent solve " in out


def test_an_error_of_usage_names_the_help_of_its_command(call: Callable[..., Outcome]) -> None:
    assert call("solve", "--nope")[2].endswith("(see agent solve --help)\n")
    assert call("sandbox", "nope")[2].endswith("(see agent sandbox --help)\n")
    assert call("eval", "run")[2].endswith("(see agent eval run --help)\n")
    assert call("nope")[2].endswith("(see agent --help)\n")


def test_a_group_without_a_command_prints_its_help(call: Callable[..., Outcome]) -> None:
    code, out, err = call("sessions")
    assert (code, err) == (2, "")
    assert out.startswith("Usage: agent sessions [OPTIONS] COMMAND\n")


def test_a_short_flag_asks_for_json_errors_too(call: Callable[..., Outcome]) -> None:
    code, out, _ = call("solve", "x", "--nope", "-o", "json")
    assert code == 2
    assert json.loads(out)["status"] == "error"


def test_what_is_named_and_is_not_there_is_code_2(
    call: Callable[..., Outcome], tmp_path: Path
) -> None:
    for arguments in (
        ("model", "info", str(tmp_path / "no-model")),
        ("eval", "report", str(tmp_path / "no-run")),
        ("eval", "grade", str(tmp_path / "no-run")),
        ("eval", "export", str(tmp_path / "no-run"), "--to", str(tmp_path / "to")),
        ("trace", "x", "--run", str(tmp_path / "no-run")),
        ("sandbox", "build", "--repo", str(tmp_path / "no-repository")),
    ):
        code, out, err = call(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), (arguments, err)


def test_a_model_of_another_kind_is_refused_for_what_it_is(
    call: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    code, _, err = call("model", "info", str(tmp_path))
    assert code == 1
    assert "architecture LlamaForCausalLM is not supported" in err
    assert "again" not in err


def test_a_state_folder_that_cannot_be_made_is_named(
    call: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    code, _, err = call("solve", "x", "--repo", str(tmp_path), "--sandbox", "local")
    assert code == 1
    assert err == (
        f"error: the state folder {tmp_path}/file/tenuto cannot be written: Not a directory; make "
        "it writable, or set HOME or XDG_STATE_HOME to a place that is\n"
    )


def test_a_wrong_docker_host_is_named(
    call: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    for host in ("tcp://127.0.0.1:1", "nonsense"):
        monkeypatch.setenv("DOCKER_HOST", host)
        code, _, err = call("sandbox", "build")
        assert code == 1
        assert f"DOCKER_HOST names ({host})" in err
        assert "start it" not in err


def test_how_a_run_ended_says_interrupted_once() -> None:
    summary = {"status": "interrupted", "summary": "interrupted; the session is saved"}
    assert how_it_ended(summary) == "interrupted: the session is saved"
