"""run_shell_command: what the model is told of how a command ran."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxes.base import ExecResult
from tools.registry import Registry
from tools.types import ToolContext


class CannedShell:
    """A shell with one answer ready; remembers what it was asked."""

    def __init__(self, result: ExecResult) -> None:
        self.result = result
        self.asked: list[tuple[str, float]] = []

    def run(self, command: str, *, timeout_s: float, **_: Any) -> ExecResult:
        self.asked.append((command, timeout_s))
        return self.result

    def running(self) -> None:
        return None


class CannedSandbox:
    root = "/workspace"

    def __init__(self, result: ExecResult) -> None:
        self._shell = CannedShell(result)

    def shell(self) -> CannedShell:
        return self._shell


def canned(result: ExecResult, **arguments: Any) -> tuple[Any, CannedShell]:
    sandbox: Any = CannedSandbox(result)
    registry = Registry(ToolContext(sandbox, command_timeout_s=45))
    return registry.run("run_shell_command", {"command": "make", **arguments}), sandbox.shell()


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("echo hi", "hi\n[exit code 0]"),
        ("true", "[exit code 0]"),
        ("echo hi; echo err >&2; exit 3", "hi\nerr\n[exit code 3]"),
        ("printf 'a\\n\\n\\n'", "a\n[exit code 0]"),
        ("printf 'no newline'", "no newline\n[exit code 0]"),
        ("printf '\\n  a'", "\n  a\n[exit code 0]"),
        ("nosuchcommand 2>/dev/null", "[exit code 127]"),
    ],
)
def test_output_then_exit_code(bench, command, text) -> None:
    observation = bench("run_shell_command", command=command)
    assert observation.text == text
    assert observation.ok is text.endswith("[exit code 0]")
    assert not observation.truncated


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (ExecResult("x\n", 0, 9.99), "x\n[exit code 0]"),
        (ExecResult("x\n", 1, 12.4), "x\n[exit code 1, took 12 s]"),
        (ExecResult("", 0, 10.0), "[exit code 0, took 10 s]"),
        (
            ExecResult("x\n", None, 45.0, timed_out=True),
            "x\n[timed out after 45 s; its processes were killed]",
        ),
        (
            ExecResult("", None, 0.1, shell_died=True),
            "[the shell ended; a new one starts in /workspace, without the variables set before]",
        ),
        (
            ExecResult("x", None, 1.0, timed_out=True),
            "x\n[stopped; its processes were killed]",
        ),
    ],
)
def test_every_ending_has_its_words(result, text) -> None:
    observation, _ = canned(result)
    assert observation.text == text
    assert observation.ok is (result.exit_code == 0)


def test_the_time_out_is_the_sessions_unless_given() -> None:
    done = ExecResult("", 0, 0.0)
    assert canned(done)[1].asked == [("make", 45)]
    assert canned(done, timeout="1.5")[1].asked == [("make", 1.5)]
    assert canned(done, timeout=None)[1].asked == [("make", 45)]


@pytest.mark.parametrize("timeout", [0, -1, 601, 120_000])
def test_a_time_out_out_of_range_is_explained(timeout) -> None:
    observation, shell = canned(ExecResult("", 0, 0.0), timeout=timeout)
    assert not observation.ok
    assert "timeout: expected seconds, more than 0 and at most 600, got" in observation.text
    assert shell.asked == []


def test_a_command_that_never_ends_is_killed(bench) -> None:
    observation = bench("run_shell_command", command="echo begun; sleep 1000", timeout=0.3)
    assert observation.text == "begun\n[timed out after 0.3 s; its processes were killed]"


@pytest.mark.parametrize("command", ["", "  \n"])
def test_an_empty_command_is_refused(bench, command) -> None:
    observation = bench("run_shell_command", command=command)
    assert (observation.text, observation.ok) == (
        "The command is empty: give a bash command.",
        False,
    )


def test_long_output_is_cut_in_the_middle(bench) -> None:
    observation = bench("run_shell_command", command="seq 100000")
    lines = observation.text.split("\n")
    assert observation.truncated
    assert len(observation.text) < 31_000
    assert lines[:2] == ["1", "2"]
    assert lines[-2:] == ["100000", "[exit code 0]"]
    (note,) = [line for line in lines if "left out" in line]
    left_out = int(
        re.fullmatch(r"\[\.\.\. ([\d,]+) characters left out \.\.\.\]", note)[1].replace(",", "")
    )
    kept = sum(len(line) + 1 for line in lines if line.isdigit())
    assert kept + left_out == sum(len(str(n)) + 1 for n in range(1, 100_001))


def test_what_the_sandbox_dropped_is_counted(make_bench: Callable[..., Any]) -> None:
    bench = make_bench(output_bytes=40_000)
    observation = bench("run_shell_command", command="seq 100000")
    assert observation.truncated
    lines = observation.text.split("\n")
    assert (lines[0], lines[-2]) == ("1", "100000")
    (note,) = [line for line in lines if "left out" in line]
    left_out = int(note.removeprefix("[... ").split()[0].replace(",", ""))
    assert left_out > sum(len(str(n)) + 1 for n in range(1, 100_001)) - 40_000


def test_a_sandbox_that_keeps_less_says_so_itself(make_bench: Callable[..., Any]) -> None:
    bench = make_bench(output_bytes=100)
    observation = bench("run_shell_command", command="seq 1000")
    assert observation.truncated
    assert observation.text.count("left out") == 1


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[2K\x1b[1Gdone", "done"),
        ("10%\r50%\r100%\ndone", "100%\ndone"),
        ("a\r\nb\r\n", "a\nb"),
        ("half\rwhole\r\nnext", "whole\nnext"),
        ("N\bNA\bA", "NA"),
        ("a\0b\x07c\x01d", "a\ufffdbc\ufffdd"),
        ("tab\tü ☃\x0c", "tab\tü ☃\x0c"),
        ("cut off \x1b[3", "cut off 3"),
    ],
)
def test_terminal_codes_are_cleaned(raw, text) -> None:
    observation, _ = canned(ExecResult(raw, 0, 0.0))
    assert observation.text == f"{text}\n[exit code 0]"


def test_a_directory_holds_for_one_command(bench) -> None:
    bench.write("sub dir/$x/a.txt", "")
    inside = bench("run_shell_command", command="pwd; ls # comment", directory="sub dir/$x")
    assert inside.text == f"{bench.root}/sub dir/$x\na.txt\n[exit code 0]"
    assert bench("run_shell_command", command="pwd").text == f"{bench.root}\n[exit code 0]"


@pytest.mark.parametrize(
    ("command", "code"), [("exit 4", 4), ("echo )", 2), ("cat <<END\nx\nEND", 0), ("false", 1)]
)
def test_a_directory_changes_nothing_else(bench, command, code) -> None:
    bench.write("sub/a.txt", "")
    observation = bench("run_shell_command", command=command, directory="sub")
    assert observation.text.endswith(f"[exit code {code}]")


@pytest.mark.parametrize("directory", ["..", "/tmp", "nowhere", "a.txt"])
def test_a_directory_must_be_one_of_the_repository(bench, directory) -> None:
    bench.write("a.txt", "")
    observation = bench("run_shell_command", command="pwd", directory=directory)
    assert not observation.ok
    assert "[exit code" not in observation.text


def test_a_background_command_goes_on(bench) -> None:
    bench.write("sub/a.txt", "")
    os.mkfifo(bench.root / "sub" / "in")
    os.mkfifo(bench.root / "sub" / "out")

    observation = bench(
        "run_shell_command",
        command="pwd; read word <in; echo got $word; echo >out",
        directory="sub",
        is_background="true",
    )

    found = re.match(r"Started in the background: pid (\d+), output in (\S+)\. ", observation.text)
    assert found, observation.text
    log = Path(found[2])
    try:
        os.kill(int(found[1]), 0)
        # Opening a pipe waits for the other end: both commands meet twice.
        talk = f"echo word >sub/in; read <sub/out; cat {log}"
        done = bench("run_shell_command", command=talk, timeout=60)
        assert done.text == f"{bench.root}/sub\ngot word\n[exit code 0]"
    finally:
        log.unlink()


def test_a_background_command_that_cannot_start_is_a_failure(bench) -> None:
    observation = bench("run_shell_command", command="x", directory="nowhere", is_background=True)
    assert not observation.ok
    assert observation.text == "There is no directory nowhere."
