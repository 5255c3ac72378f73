"""A person at the terminal: asked about calls, and for words after an interrupt.

Questions and answers go through ``/dev/tty``, so that a task may come on stdin and the result may
go down a pipe.
"""

from __future__ import annotations

import os
import select
import termios
from contextlib import suppress
from typing import Self

from agent.cli.interrupts import Interrupts
from agent.control.approvals import Answer, Request
from agent.control.subjects import written
from agent.text import visible
from tools.edits.preview import diff_lines

TTY = "/dev/tty"
SHOWN_LINES = 40
MAX_ANSWER = 10_000
_POLL_S = 0.1
_END = "\x04"
"""What Ctrl-D reads as."""
_YES = frozenset({"y", "yes"})
_ALWAYS = frozenset({"a", "always"})
_NO = frozenset({"n", "no", _END})
_NEVER = frozenset({"v", "never"})


class Terminal:
    """The ``Approver`` at ``/dev/tty``. ``interrupts`` counts the Ctrl-C so far."""

    def __init__(self, descriptor: int, interrupts: Interrupts) -> None:
        self._tty = descriptor
        self._interrupts = interrupts
        self._colours = "NO_COLOR" not in os.environ

    @classmethod
    def open(cls, interrupts: Interrupts) -> Self | None:
        """Open the terminal of this process; return None if it has none."""
        try:
            return cls(os.open(TTY, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC), interrupts)
        except OSError:
            return None

    def close(self) -> None:
        """Close it. May be called twice."""
        if self._tty >= 0:
            os.close(self._tty)
            self._tty = -1

    def ask(self, request: Request) -> Answer:
        """Show the call and wait for an answer; ``cancelled`` at Ctrl-C or if the terminal goes."""
        # What was typed before the question was shown is no answer to it.
        with suppress(termios.error):
            termios.tcflush(self._tty, termios.TCIFLUSH)
        self._say(f"\n{self._bold(f'{request.call.name}: may it run?')} ({request.reason})\n")
        full = self._show(request, SHOWN_LINES)
        more = "" if full else "   d show all"
        always = ", ".join(request.always)
        self._say(f"  y yes   n no   a always: {always}   v never this{more}\n")
        self._say("  or write what the model should do instead\n")
        while True:
            answer = self._read("> ")
            if answer is None:
                return Answer("cancelled")
            match answer.strip().lower():
                case "":
                    continue
                case word if word in _YES:
                    return Answer("allow")
                case word if word in _ALWAYS:
                    return Answer("allow_always")
                case word if word in _NO:
                    return Answer("reject")
                case word if word in _NEVER:
                    return Answer("reject_always")
                case "d" if not full:
                    full = self._show(request, None)
                case _:
                    return Answer("reject", answer.strip())

    def words(self) -> str | None:
        """Return the person's words to the model after an interrupt; None (empty, Ctrl-C) ends."""
        with suppress(termios.error):
            termios.tcflush(self._tty, termios.TCIFLUSH)
        self._say(f"\n{self._bold('Stopped.')} What should the model do? Empty ends the session.\n")
        answer = self._read("> ")
        return None if answer in (None, _END) else answer.strip() or None

    def _show(self, request: Request, most: int | None) -> bool:
        """Print what would happen, ``most`` lines of it; False if lines were left out."""
        if request.changes:
            lines = [line for change in request.changes for line in diff_lines(change)]
        else:
            command = written(request.call)
            text = "\n".join(request.subjects) if command is None else command
            lines = text.split("\n")
            if request.kind == "external":
                lines += [f"{key}: {value}" for key, value in request.call.arguments.items()]
            elif len(request.subjects) > 1 or request.subjects != (text,):
                lines += ["", "asked for:", *(f"  {subject}" for subject in request.subjects)]
        shown = lines if most is None else lines[:most]
        for line in shown:
            self._say(f"    {self._painted(line, bool(request.changes))}\n")
        if len(shown) < len(lines):
            self._say(f"    … {len(lines) - len(shown)} more lines\n")
        return len(shown) == len(lines)

    def _read(self, prompt: str) -> str | None:
        """Read one line; return None at Ctrl-C, or once the terminal has gone."""
        before = self._interrupts.count
        self._say(prompt)
        data = b""
        while not data.endswith(b"\n") and len(data) < MAX_ANSWER:
            if self._interrupts.count > before:
                return None
            try:
                ready, _, _ = select.select([self._tty], [], [], _POLL_S)
                piece = os.read(self._tty, 4096) if ready else None
            except OSError:
                return None
            if piece == b"":
                return _END
            data += piece or b""
        return data.decode("utf-8", "replace")

    def _say(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        with suppress(OSError):
            while data:
                data = data[os.write(self._tty, data) :]

    def _bold(self, text: str) -> str:
        return f"\x1b[1m{visible(text)}\x1b[0m" if self._colours else visible(text)

    def _painted(self, line: str, is_diff: bool) -> str:
        text = visible(line)
        colour = {"+": "32", "-": "31", "@": "36"}.get(text[:1]) if is_diff else None
        return f"\x1b[{colour}m{text}\x1b[0m" if colour and self._colours else text
