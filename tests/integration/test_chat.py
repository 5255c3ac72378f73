"""The chat as a person meets it: a program in a terminal, keys typed, the screen read."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]
ESC, CTRL_C, CTRL_D, SHIFT_TAB = "\x1b", "\x03", "\x04", "\x1b[Z"


class Chats:
    """Starts chats on one repository; each is closed at the test's end."""

    def __init__(self, repo: Path, checkpoint: Path, folder: Path) -> None:
        self.repo = repo
        self._checkpoint = checkpoint
        self._turns = folder / "turns.json"
        self._open: list[Terminal] = []

    def start(
        self, *turns: str, flags: tuple[str, ...] = (), columns: int = 80, **env: str
    ) -> Terminal:
        """Start a chat whose model speaks ``turns``, and wait until the session is open."""
        if turns:
            self._turns.write_text(json.dumps(turns))
        command = [sys.executable, "-m", "tests.support.scripted_chat"]
        places = [str(self._checkpoint), str(self.repo), str(self._turns), *flags]
        terminal = Terminal([*command, *places], cwd=ROOT, env=env, columns=columns)
        self._open.append(terminal)
        terminal.wait("context 0 of" if "--resume=" not in str(flags) else "going on with")
        return terminal

    def close(self) -> None:
        """Kill what still runs."""
        for terminal in self._open:
            terminal.close()


@pytest.fixture
def chats(buggy_repo: Path, tiny_checkpoint: Path, tmp_path: Path) -> Iterator[Chats]:
    """Chats on the repository with one wrong operator."""
    started = Chats(buggy_repo, tiny_checkpoint, tmp_path)
    yield started
    started.close()


def test_a_repair_with_approvals(chats: Chats, script) -> None:
    chat = chats.start(*script.repair())
    chat.type("add subtracts\r")
    chat.wait("may it run?")
    chat.type("y")
    chat.wait("edit calc.py: may it run?")
    assert "+    return a + b" in chat.text
    chat.type("a")
    chat.wait("python3 -B test_calc.py: may it run?")
    chat.type("y")
    chat.wait(lambda text: "submit" in text and "may it run" not in text.splitlines()[-6])
    assert (chats.repo / "calc.py").read_text() == "def add(a, b):\n    return a + b\n"
    chat.type("/diff\r")
    chat.wait("-    return a - b")
    chat.type(CTRL_D)
    assert "go on with: agent --resume " in chat.wait("go on with")
    assert chat.end() == 0


def test_a_refusal_in_words_is_heard_and_undo_takes_all_back(chats: Chats, script) -> None:
    turns = script.repair()
    chat = chats.start(turns[2], script.turn(content="As you like."), script.turn(content="Done."))
    chat.type("repair it\r")
    chat.wait("may it run?")
    chat.type("use subtraction instead\r")
    chat.wait("As you like.")
    assert "says: use subtraction instead" in chat.text
    chat.type("/undo\r")
    chat.wait("back at the end of step 0")
    assert "no token computed again" in chat.text
    assert (chats.repo / "calc.py").read_text() == "def add(a, b):\n    return a - b\n"


def test_messages_wait_and_escape_keeps_the_work(chats: Chats, script) -> None:
    long = script.call("run_shell_command", command="sleep 60")
    chat = chats.start(script.turn(long), script.turn(content="First."), script.turn(content="Ok."))
    chat.type(SHIFT_TAB + SHIFT_TAB)
    chat.wait("auto mode")
    chat.type("wait a minute\r")
    chat.wait("sleep 60")
    chat.type("and then this\r")
    chat.wait("waits: and then this")
    chat.type(ESC)
    chat.wait("stopped; what was done is kept")
    chat.wait("› and then this")


def test_a_killed_chat_goes_on_where_it_was(chats: Chats, script) -> None:
    turns = (script.turn(content="It is red."), script.turn(content="Still red."))
    chat = chats.start(*turns)
    chat.type("look\r")
    chat.wait("It is red.")
    chat.wait(lambda text: "context 0 of" not in text)
    chat.child.kill(9)
    chat.close()
    again = chats.start(flags=("--resume=",))
    again.type("and now?\r")
    text = again.wait("Still red.")
    assert "going on with session" in text


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(chats: Chats, script, columns: int) -> None:
    said = "A long sentence that has to be wrapped between its words. " * 4
    chat = chats.start(script.turn(content=said), columns=columns)
    chat.type("speak\r")
    text = chat.wait("between its words.")
    words = {"sentence", "wrapped", "between", "words."}
    assert words <= {word for line in text.split("\n") for word in line.split()}


def test_hostile_output_never_reaches_the_terminal_raw(chats: Chats, script) -> None:
    hostile = "printf '\\033]0;owned\\007\\033]52;c;Zm9v\\007\\033[2Jx\\342\\200\\256y\\n'"
    says = script.turn(content="\x1b]0;owned\x07 **hi** \x1b[2J \u202e")
    chat = chats.start(script.turn(script.call("run_shell_command", command=hostile)), says)
    chat.type(SHIFT_TAB + SHIFT_TAB)
    chat.wait("auto mode")
    chat.type("show\r")
    chat.wait(lambda text: "hi" in text and "auto mode" in text)
    for sequence in (b"\x1b]0;", b"\x1b]52;", b"\x1b[2J", "\u202e".encode()):
        assert sequence not in chat.raw


def test_without_colours_nothing_is_coloured(chats: Chats, script) -> None:
    chat = chats.start(script.turn(content="**bold** words"), NO_COLOR="1")
    chat.type("hello\r")
    chat.wait("bold words")
    assert b"\x1b[31m" not in chat.raw
    assert b"\x1b[1m" not in chat.raw


def test_control_c_clears_then_leaves(chats: Chats, script) -> None:
    chat = chats.start(script.turn(content="x"))
    chat.type("half a mess")
    chat.wait("half a mess")
    chat.type(CTRL_C)
    chat.wait(lambda text: "half a mess" not in text)
    chat.type(CTRL_C)
    assert chat.end() == 0


def test_a_long_paste_is_folded_and_sent_whole(chats: Chats, script) -> None:
    chat = chats.start(script.turn(content="Read."))
    lines = "\n".join(f"line {number}" for number in range(40))
    chat.type(f"\x1b[200~{lines}\x1b[201~")
    chat.wait("[pasted text 1: 40 lines]")
    chat.type("\r")
    chat.wait("Read.")
    assert "line 39" in chat.text
