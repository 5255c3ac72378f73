"""The chat where something is wrong around it: each ends in one line, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.chat.session_thread import MAX_QUEUED, SessionThread
from agent.cli.app import call
from agent.sessions.store import SessionStore
from tests.support.terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start(buggy_repo: Path, tiny_checkpoint: Path, tmp_path: Path) -> Iterator[object]:
    """``start(turns, *flags)`` starts a chat whose model speaks ``turns``; closed at the end."""
    opened: list[Terminal] = []
    turns_file = tmp_path / "turns.json"

    def begin(turns: tuple[str, ...], *flags: str, before: tuple[str, ...] = ()) -> Terminal:
        turns_file.write_text(json.dumps(turns))
        program = [*before, sys.executable, "-m", "tests.support.scripted_chat"]
        places = [str(tiny_checkpoint), str(buggy_repo), str(turns_file), *flags]
        opened.append(Terminal([*program, *places], cwd=ROOT, env={}))
        return opened[-1]

    yield begin
    for terminal in opened:
        terminal.close()


def test_without_a_terminal_solve_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert call(["chat"]) == 2
    assert capfd.readouterr().err == (
        "error: a chat needs a terminal; use agent solve for a task from a script\n"
    )


def test_a_hundred_messages_wait_and_the_next_is_not_taken() -> None:
    jobs, go, began, ran = SessionThread(), threading.Event(), threading.Event(), []

    def first() -> None:
        began.set()
        assert go.wait(30)

    jobs.start()
    assert jobs.add("first", first)
    assert began.wait(30)
    assert all(jobs.add(str(n), lambda n=n: ran.append(n)) for n in range(MAX_QUEUED))
    assert not jobs.add("one more", lambda: ran.append(-1))
    assert jobs.waiting == [str(n) for n in range(MAX_QUEUED)]
    done = threading.Event()
    jobs.drop_waiting()
    assert jobs.add("last", done.set)
    go.set()
    assert done.wait(30)
    assert jobs.finish(30)
    assert ran == []


def test_a_session_in_use_is_refused_and_a_closed_window_saves_it(
    start, script, store: SessionStore
) -> None:
    look = script.turn(script.call("run_shell_command", command="echo seen > seen.txt"))
    sleep = script.turn(script.call("run_shell_command", command="sleep 600"))
    chat = start((look, sleep))
    chat.wait("context 0 of")
    chat.type("\x1b[Z\x1b[Z")
    chat.wait("auto mode")
    chat.type("go\r")
    chat.wait("run_shell_command sleep 600")
    (saved,) = store.sessions()

    other = start((look, sleep), f"--resume={saved.id}")
    assert other.end() == 1
    assert f"session {saved.id} is in use" in " ".join(other.text.split())
    assert "Traceback" not in other.text

    pid = chat.child.pid
    # The terminal's own end: whoever has it as its terminal gets SIGHUP.
    chat.child.ptyproc.fileobj.close()
    chat.child.ptyproc.wait()
    assert chat.child.ptyproc.exitstatus == 129
    assert not Path(f"/proc/{pid}").exists()
    after = saved.reread()
    assert after.status == "interrupted"
    assert after.info.steps == 2
    with after.claim():
        pass


def test_a_full_disk_is_one_line_and_the_chat_goes_on(start, script, own_places: Path) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting a small file system needs root and unshare")
    own_places.mkdir(parents=True)
    mount = f'mount -t tmpfs -o size=3m tmpfs {own_places} && exec "$@"'
    before = ("unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh")
    fill = f"dd if=/dev/zero of={own_places}/ballast bs=64k 2>/dev/null; echo filled"
    turns = script.turn(script.call("run_shell_command", command=fill)), script.turn(content="Ok.")
    chat = start(turns, before=before)
    if "permission denied" in chat.text.lower():
        pytest.skip("mounting is not allowed here")
    chat.wait("context 0 of")
    chat.type("\x1b[Z\x1b[Z")
    chat.wait("auto mode")
    chat.type("fill it\r")
    text = " ".join(chat.wait("the turn could not go on:").split())
    assert "No space left" in text or "diskspace" in text
    assert "Traceback" not in text
    chat.type("/help\r")
    chat.wait("List the commands and keys")
    chat.type("\x04")
    assert chat.end() in (0, 1)
