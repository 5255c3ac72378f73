"""The chat as a person meets it: a program in a terminal, keys typed, the screen read."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.chat.typed_lines import BUILT_IN
from tests.support.chat_screens import SCREEN_ROWS, SCREENS, TURNS, WIDTHS, play
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
        self,
        *turns: str,
        flags: tuple[str, ...] = (),
        columns: int = 80,
        rows: int = 40,
        **env: str,
    ) -> Terminal:
        """Start a chat whose model speaks ``turns``, and wait until the session is open."""
        if turns:
            self._turns.write_text(json.dumps(turns))
        command = [sys.executable, "-m", "tests.support.scripted_chat"]
        places = [str(self._checkpoint), str(self.repo), str(self._turns), *flags]
        terminal = Terminal([*command, *places], cwd=ROOT, env=env, columns=columns, rows=rows)
        self._open.append(terminal)
        opened = "demonstration model" if env.get("TERM") == "dumb" else "context 0 of"
        terminal.wait(opened if "--resume=" not in str(flags) else "going on with")
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


def test_a_whole_repair_with_all_that_a_person_may_do_on_the_way(chats: Chats, script) -> None:
    says = script.turn(content="It subtracted.")
    long = script.turn(script.call("run_shell_command", command="sleep 60"))
    chat = chats.start(*script.repair(), says, long, script.turn(content="Eighth."))
    wrong, right = ((chats.repo / "calc.py").read_text().replace("-", s) for s in "-+")
    chat.type("add subtracts\r")
    chat.wait("may it run?")
    chat.type("y")
    chat.wait("edit calc.py: may it run?")
    assert "+    return a + b" in chat.text
    assert (chats.repo / "calc.py").read_text() == wrong
    chat.type("a")
    chat.wait("python3 -B test_calc.py: may it run?")
    chat.type("y")
    chat.wait(lambda text: "submit" in text and "may it run" not in text.splitlines()[-6])
    assert (chats.repo / "calc.py").read_text() == right

    chat.type("/btw why was it red?\r")
    assert "It subtracted." in chat.wait("asked aside: ")
    chat.type("/tree\r")
    chat.wait("now: after step 5")
    chat.type("/try 2 say it in a word\r")
    chat.wait("=== try 2: answered, nothing changed")
    chat.wait("tokens not computed again, ")
    chat.resize(44, 30)
    chat.type("/context\r")
    chat.wait("5 steps")
    assert all(len(line) <= 44 for line in chat.screen.display)
    chat.resize(90, 40)

    chat.type(SHIFT_TAB + SHIFT_TAB)
    chat.wait("auto mode")
    chat.type("say it\r")
    chat.wait(lambda text: text.count("It subtracted.") == 2)
    chat.type("wait a minute\r")
    chat.wait("● run_shell_command sleep 60")
    chat.type("and then this\r")
    chat.wait("waits: and then this")
    chat.type(ESC)
    chat.wait("stopped; what was done is kept")
    chat.wait("Eighth.")
    chat.type("/rewind 5\r")
    chat.wait("back at the end of step 5 (no token computed again)")
    assert (chats.repo / "calc.py").read_text() == right

    chat.child.kill(9)
    chat.close()
    again = chats.start(flags=("--resume=",))
    assert "going on with session" in again.text
    again.type("/context\r")
    again.wait("5 steps")
    again.type("say it again\r")
    again.wait("It subtracted.")
    again.type("/export talk.md\r")
    again.wait("written to talk.md")
    again.type("/diff\r")
    again.wait("-    return a - b")
    again.type(CTRL_D)
    assert "agent --resume " in again.wait("go on with:")
    assert again.end() == 0
    Path("talk.md").unlink()


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_screen_is_as_recorded(chats: Chats, columns: int) -> None:
    chat = chats.start(*TURNS, columns=columns, rows=SCREEN_ROWS)
    assert play(chat) == (SCREENS / f"{columns}.txt").read_text("utf-8")


def test_a_terminal_that_can_do_little_gets_plain_words(chats: Chats, script) -> None:
    edit = script.call("edit", file_path="calc.py", old_string="a - b", new_string="a + b")
    bold = script.turn(edit, content="**bold** words")
    chat = chats.start(bold, script.turn(content="`Done`."), TERM="dumb", LANG="C", LC_ALL="C")
    chat.type("hello\r")
    chat.wait("or say what to do instead, Enter")
    assert "* edit calc.py: may it run?" in chat.text
    chat.type("y")
    chat.wait("`Done`.")
    assert "**bold** words" in chat.text
    assert chat.raw.isascii()
    assert not any(code in chat.raw for code in (b"\x1b[31m", b"\x1b[1m", b"\x1b[2m"))
    chat.type(CTRL_D)
    assert chat.end() == 0


def test_what_is_typed_by_mistake_does_no_harm(chats: Chats, script) -> None:
    chat = chats.start(script.turn(content="Read."), script.turn(content="Twice."))
    lines = "\n".join(f"line {number}" for number in range(40))
    chat.type(f"\x1b[200~{lines}\x1b[201~")
    chat.wait("[pasted text 1: 40 lines]")
    chat.type("\r")
    chat.wait("Read.")
    assert "line 39" in chat.text
    chat.type("\x1b[200~rings \x07 and \x1b]0;moves\x07\x1b[201~\r")
    chat.wait("Twice.")
    assert b"\x1b]0;" not in chat.raw
    assert "rings ␇ and ␛]0;moves␇" in chat.text
    chat.type("half a mess")
    chat.wait("half a mess")
    chat.type(CTRL_C)
    chat.wait(lambda text: "half a mess" not in text)
    chat.type(ESC + ESC)
    chat.wait("back at the end of step 1")
    chat.type(CTRL_C)
    chat.type(CTRL_C)
    assert chat.end() == 0


COMMANDS = [
    ("/permissions", "there are no rules"),
    ("/mcp", "no MCP server is configured"),
    ("/tools", "run_shell_command"),
    ("/model", "/model NAME goes on with another one"),
    ("/model other", "context 1,048,576 tokens"),
    ("/effort", "none|low|medium|high|xhigh|auto"),
    ("/effort high", "effort high: "),
    ("/effort", "effort high"),
    ("/thinking drop", "thinking is now drop"),
    ("/thinking loudly", "is no way of thinking"),
    ("/compact", "there is nothing to compact yet"),
    ("/apply", "there are no tries"),
    ("/rewind", "there is no turn to take back"),
    ("/rewind far", "takes the number of a step"),
    ("/try many", "/try takes a number and a message"),
    ("/btw", "/btw takes a question"),
    ("/export", "/export takes the name of a file"),
    ("/resume 1999", "no session "),
    ("/sessoins", "did you mean /sessions"),
    ("hello", "One."),
    ("/compact", "the context is given up for a summary"),
    ("/check exit 3", ": fails"),
    ("/fork", "forked: /resume "),
    ("/sessions", "hello"),
    ("/new", "new session "),
    ("/resume", "after step 1"),
    ("/init", "One."),
]
"""What is typed, and what comes of it."""


def test_every_other_command_does_what_its_help_says(chats: Chats, script) -> None:
    typed = {line.split()[0].removeprefix("/") for line, _ in COMMANDS}
    elsewhere = {"help", "undo", "tree", "context", "diff", "quit"}
    assert set(BUILT_IN) <= typed | elsewhere
    chat = chats.start(script.turn(content="One."), columns=100)
    for line, said in COMMANDS:
        before = chat.text.count(said)
        assert said not in line
        chat.type(f"{line}\r")
        chat.wait(lambda text, before=before, said=said: text.count(said) > before)
    chat.type("/quit\r")
    chat.wait("go on with:")
    assert chat.end() == 0
