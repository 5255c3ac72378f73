"""A person at a real pseudo-terminal: asked about calls, pressing Ctrl-C, giving words."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.sessions.store import SessionStore
from agent.sessions.trajectory import read_lines, read_steps

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "support" / "scripted_agent.py"
CTRL_C = b"\x03"


class Person:
    """A process at a terminal of its own; what it prints can be waited for."""

    def __init__(self, command: list[str]) -> None:
        self._ours, theirs = pty.openpty()

        def take_the_terminal() -> None:
            os.setsid()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "TERM": "dumb"},
            preexec_fn=take_the_terminal,
        )
        os.close(theirs)
        self.screen = ""
        self._read_to = 0

    def sees(self, text: str) -> None:
        """Wait until ``text`` is on the screen, after what was waited for before."""
        while (at := self.screen.find(text, self._read_to)) < 0:
            assert self._more(), f"no {text!r} after {self.screen[self._read_to :]!r}"
        self._read_to = at + len(text)

    def types(self, data: str | bytes) -> None:
        os.write(self._ours, data.encode() if isinstance(data, str) else data)

    def ends(self) -> tuple[int, str]:
        """Wait for the end; returns exit code and stdout."""
        while self._more():
            pass
        out, _ = self.process.communicate(timeout=60)
        os.close(self._ours)
        return self.process.returncode, out.decode()

    def _more(self) -> bool:
        ready, _, _ = select.select([self._ours], [], [], 100)
        assert ready, f"nothing more after {self.screen!r}"
        try:
            data = os.read(self._ours, 65_536)
        except OSError:  # the other side is closed
            return False
        self.screen += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)


@pytest.fixture
def at_terminal(
    tiny_checkpoint: Path, buggy_repo: Path, tmp_path: Path
) -> Iterator[Callable[..., Person]]:
    people: list[Person] = []

    def begin(turns: tuple[str, ...], *flags: str) -> Person:
        script = tmp_path / "turns.json"
        script.write_text(json.dumps(turns))
        command = [sys.executable, str(PROGRAM), str(tiny_checkpoint), str(buggy_repo)]
        people.append(Person([*command, str(script), "sandbox=local", *flags]))
        return people[-1]

    yield begin
    for person in people:
        person.process.kill()
        person.process.communicate()


class Sleep:
    """A command that says through a pipe that it runs, and then never ends."""

    def __init__(self, pipe: Path, before: str = "") -> None:
        os.mkfifo(pipe)
        self._pipe = pipe
        self.command = f"{before}echo begun > {pipe}; sleep 1000"

    def runs(self) -> None:
        """Wait until it does."""
        assert self._pipe.read_text() == "begun\n"


@pytest.fixture
def sleep(tmp_path: Path) -> Sleep:
    return Sleep(tmp_path / "pipe", "trap '' TERM INT; ")


def texts(store: SessionStore) -> list[str]:
    (saved,) = store.sessions()
    return [seen.text for step in read_steps(saved.trajectory) for seen in step.observations]


def test_a_person_allows_refuses_and_tells(at_terminal, script, store) -> None:
    old, new = "    return a - b", "    return a + b\x1b[2J"
    turns = (
        script.turn(script.call("run_shell_command", command="echo one && echo two")),
        script.turn(script.call("edit", file_path="calc.py", old_string=old, new_string=new)),
        script.turn(script.call("run_shell_command", command="echo three")),
        script.turn(script.call("run_shell_command", command="echo four")),
        script.turn(script.call("submit")),
    )
    person = at_terminal(turns, "approve=all")
    # Typed ahead, before there was a question: no answer.
    person.types("y\n")
    person.sees("run_shell_command: may it run? (--approve all)")
    person.sees("echo one && echo two\n")
    person.sees("  echo one\n      echo two\n")
    person.sees("a always: echo *")
    person.sees("> ")
    person.types("\n")
    person.sees("> ")
    person.types("yes\n")
    person.sees("edit: may it run?")
    person.sees("-    return a - b")
    person.sees("+    return a + b␛[2J")
    person.sees("> ")
    person.types("not like that\n")
    person.sees("echo three")
    person.sees("> ")
    person.types("a\n")
    code, out = person.ends()
    assert (code, out) == (3, "")
    assert "\x1b[2J" not in person.screen
    assert "may it run" not in person.screen[person.screen.index("echo four") :]
    assert texts(store) == [
        "one\ntwo\n[exit code 0]",
        "Not run: the user refused this call and says: not like that",
        "three\n[exit code 0]",
        "four\n[exit code 0]",
        "Submitted.",
    ]


def test_ctrl_c_stops_the_command_and_the_model_hears_the_words(
    at_terminal, script, store, sleep
) -> None:
    turn = script.turn(script.call("run_shell_command", command=sleep.command))
    person = at_terminal((turn, *script.repair()[1:]), "interactive=yes")
    sleep.runs()
    person.types(CTRL_C)
    person.sees("Stopped. What should the model do?")
    person.sees("> ")
    person.types("repair it, do not sleep\n")
    code, out = person.ends()
    assert code == 0
    assert "+    return a + b" in out
    assert texts(store)[0].endswith("[stopped; its processes were killed]")
    (saved,) = store.sessions()
    prompts = [r["messages"] for r in read_lines(saved.trajectory) if r["type"] == "prompt"]
    assert prompts[1][-1] == {"role": "user", "content": "repair it, do not sleep"}


@pytest.mark.parametrize("end", [CTRL_C, b"\n"])
def test_without_words_the_run_ends_and_is_saved(end, at_terminal, script, store, sleep) -> None:
    turn = script.turn(script.call("run_shell_command", command=sleep.command))
    person = at_terminal((turn,), "interactive=yes")
    sleep.runs()
    person.types(CTRL_C)
    person.sees("Stopped.")
    person.sees("> ")
    person.types(end)
    assert person.ends()[0] == 130
    (saved,) = store.sessions()
    assert saved.status == "interrupted"
    assert [text[-36:] for text in texts(store)] == ["[stopped; its processes were killed]"]


def test_ctrl_c_at_a_question_runs_nothing_and_asks_for_words(at_terminal, script, store) -> None:
    write = script.turn(script.call("write_file", file_path="made", content="x"))
    person = at_terminal((write, script.turn(script.call("submit"))), "approve=edits")
    person.sees("may it run?")
    person.sees("> ")
    person.types(CTRL_C)
    person.sees("Stopped.")
    person.sees("> ")
    person.types("submit at once\n")
    assert person.ends() == (3, "")
    (saved,) = store.sessions()
    prompts = [r["messages"] for r in read_lines(saved.trajectory) if r["type"] == "prompt"]
    assert [message["role"] for message in prompts[1]] == ["tool", "user"]
    assert prompts[1][0]["content"].startswith("Not run: the session stopped before")


def test_a_second_ctrl_c_costs_nothing(at_terminal, script, store, sleep) -> None:
    """It comes while the first one is being obeyed, and the step is saved all the same."""
    turn = script.turn(script.call("run_shell_command", command=sleep.command))
    person = at_terminal((turn,))
    sleep.runs()
    person.types(CTRL_C)
    person.types(CTRL_C)
    assert person.ends()[0] == 130
    (saved,) = store.sessions()
    assert saved.status == "interrupted"
    assert texts(store)[0].endswith("[stopped; its processes were killed]")


def test_whoever_wants_to_be_asked_needs_a_terminal(tiny_checkpoint, buggy_repo, tmp_path) -> None:
    (tmp_path / "turns.json").write_text('["x"]')
    arguments = [str(tiny_checkpoint), str(buggy_repo), str(tmp_path / "turns.json")]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments, "sandbox=local", "approve=all"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: --approve all asks at a terminal, and there is none; ")
    assert done.stderr.count("\n") == 1
