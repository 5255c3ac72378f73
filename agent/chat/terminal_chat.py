"""The chat: what keys do, and what becomes of a typed line.

The main thread draws and reads keys. The session's thread loads the model, opens the session and
runs turns; it tells events, which become lines here. A message typed while the model works waits.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.chat.completion import ChatCompleter
from agent.chat.footer import Facts
from agent.chat.keys import make_keys
from agent.chat.paste import Pastes
from agent.chat.screen import Screen
from agent.chat.session_thread import SessionThread
from agent.chat.style import Style
from agent.chat.typed_lines import BUILT_IN, Line, help_lines, read_line
from agent.chat.wanted import MODES, Opening
from agent.settings.extensions import Extensions, find_extensions

if TYPE_CHECKING:
    # These come in on the worker's thread: the prompt does not wait for them.
    from agent.chat.chat_session import ChatSession
    from agent.chat.obey import Obey, Said
    from agent.chat.transcript import Transcript
    from agent.control.approvals import Verdict
    from agent.events import Event

TWICE_WITHIN_S = 1.5
OPENING_SHOWN_AFTER_S = 1.0
CLOSE_WITHIN_S = 10.0
"""How long leaving waits for the session to be closed before the process ends all the same."""
TITLE_CHARACTERS = 60
SWITCH_S = 0.001
"""How long one thread may keep the interpreter while another waits (Python's own is 0.005)."""
HUNG_UP = 129
"""The exit code after SIGHUP or SIGTERM, as shells count it."""


@dataclass(frozen=True)
class Desk:
    """The session and its commands, made by the worker's thread once its imports were done."""

    session: ChatSession
    transcript: Transcript
    obey: Obey


class Chat:
    """One chat. Made and used on the main thread, except where a method says otherwise."""

    def __init__(self, opening: Opening, style: Style, history: Path | None, own: Path) -> None:
        self._opening = opening
        self._style = style
        self._extensions: Extensions = find_extensions(opening.repo, own)
        self._pastes = Pastes()
        self._facts = Facts(mode=opening.mode)
        self._said: list[str] = []
        self._asked_in_words: list[str] = []
        self._desk: Desk | None = None
        self._code = 0
        self._began = self._last_escape = self._last_interrupt = time.monotonic()
        self._jobs = SessionThread()
        self._screen = Screen(
            style,
            make_keys(self),
            ChatCompleter(self._command_help(), opening.repo),
            history,
            self,
        )

    def run(self) -> int:
        """Run until the user leaves; return the exit code."""
        self._screen.show([*self._extensions.troubles, "/help lists commands and keys"])
        asyncio.run(self._screen.run())
        self._cancel()
        self._jobs.drop_waiting()
        ended = self._jobs.finish(CLOSE_WITHIN_S)
        if self._desk is not None and ended:
            self._desk.session.close()
            self._screen.show(self._desk.session.farewell())
        self._screen.flush()
        return self._code if ended else 1

    def drawn(self) -> None:
        """Load the rest, now that the prompt stands: nothing slow was imported before."""
        self._add("open the session", self._open)
        self._jobs.start()

    # What keys do.

    def asks(self) -> bool:
        """Tell whether a call waits for approval and nothing was typed."""
        desk = self._desk
        return desk is not None and desk.session.approver.asks and not self._screen.text

    def decide(self, verdict: Verdict) -> None:
        """Answer the call that waits."""
        if self._desk is not None:
            self._desk.session.approver.decide(verdict)

    def escape(self) -> None:
        """Stop what runs; when idle and pressed twice, edit the last message."""
        pressed, self._last_escape = self._last_escape, time.monotonic()
        if self._jobs.busy:
            self._cancel()
        elif self._last_escape - pressed <= TWICE_WITHIN_S and self._said and not self._screen.text:
            self._screen.put_text(self._said.pop())
            self._command(Line("undo", ""))

    def interrupt(self) -> None:
        """Clear the input; pressed twice, leave."""
        pressed, self._last_interrupt = self._last_interrupt, time.monotonic()
        if self._screen.text:
            self._screen.put_text("")
        elif self._last_interrupt - pressed <= TWICE_WITHIN_S:
            self.leave()
        else:
            self._note("Ctrl-C again leaves; Esc stops the model", "dim")

    def leave(self) -> None:
        """Leave: stop what runs, save, and end."""
        self._cancel()
        self._screen.leave()

    def hang_up(self) -> None:
        """Leave at once, with what was done saved: the window was closed."""
        self._code = HUNG_UP
        self.leave()

    def next_mode(self) -> None:
        """Go on to the next mode."""
        mode = MODES[(MODES.index(self._facts.mode) + 1) % len(MODES)]
        if self._desk is not None:
            self._desk.session.set_mode(mode)
            self._facts = replace(self._facts, mode=mode)
        self._screen.redraw()

    def toggle_thinking(self) -> None:
        """Show or hide thinking."""
        if self._desk is not None:
            transcript = self._desk.transcript
            transcript.show_thinking = not transcript.show_thinking
        self._screen.redraw()

    def unfold(self) -> None:
        """Print the last long output, or the whole call that waits."""
        if self._desk is None:
            return
        lines = self._desk.session.approver.whole() or self._desk.transcript.folded
        text = "\n".join(lines) or "nothing is folded"
        self._screen.show(self._style.text(text, "dim", columns=self._screen.columns, indent=2))

    def paste(self, text: str) -> None:
        """Insert pasted text, folded if it is long."""
        try:
            self._screen.insert(self._pastes.fold(text))
        except ValueError as error:
            self._note(str(error), "red")

    # What becomes of a typed line.

    def submit(self, typed: str) -> bool:
        """Take what was typed; return False to leave."""
        text = self._pastes.unfold(typed).strip()
        desk = self._desk
        if desk is not None and desk.session.approver.asks and not text.startswith("/"):
            self._screen.show(desk.transcript.asked(text))
            desk.session.approver.refuse(text)
            return True
        try:
            line = read_line(text, self._extensions.found)
        except ValueError as error:
            self._note(str(error), "red")
            return True
        if line.command == "quit":
            return False
        if line.command == "help":
            self._screen.show(help_lines(self._own_help()))
        elif line.command in BUILT_IN:
            self._command(line)
        elif line.command:
            self._send(self._extensions.found[line.command].message(line.rest))
        else:
            self._send(text)
        return True

    def _command(self, line: Line) -> None:
        self._add(f"/{line.command}", lambda: self._obey(line))

    def _send(self, text: str) -> None:
        if not self._add(_title(text), lambda: self._turn(text)):
            self._note("too many messages wait already; this one was not taken", "red")
            self._screen.put_text(text)

    # What the session's thread may call.

    def tell(self, event: Event) -> None:
        """Show what happened, from any thread."""
        self._screen.call(lambda: self._told(event))

    def redraw(self) -> None:
        """Draw the lower lines anew, from any thread."""
        if self._style.plain:
            self._screen.call(self._ask_in_words)
        self._screen.redraw()

    # What runs on the session's thread.

    def _add(self, name: str, job: Callable[[], None]) -> bool:
        def run() -> None:
            try:
                job()
            except BaseException as error:
                self._failed(error)

        return self._jobs.add(name, run)

    def _open(self) -> None:
        from agent.chat.chat_session import ChatSession
        from agent.chat.obey import Obey
        from agent.chat.transcript import Transcript

        try:
            wanted = self._opening.read()
            session = ChatSession(wanted, self)
            desk = Desk(session, Transcript(self._style), Obey(session))
            self._screen.call(lambda: self._furnish(desk))
            for line in session.open():
                self._note(line)
        except BaseException as error:
            self._code = int(getattr(error, "exit_code", 1))
            self._failed(error)
            self._screen.call(self.leave)
            return
        self._screen.call(self._know)
        if wanted.first:
            self._turn(wanted.first)

    def _obey(self, line: Line) -> None:
        if self._desk is not None:
            said = self._desk.obey.run(line)
            self._screen.call(lambda: self._answered(said))

    def _turn(self, text: str) -> None:
        desk = self._desk
        if desk is None:
            return
        self._screen.call(lambda: self._asked(text))
        if text.startswith("!"):
            remark = desk.session.shell(text[1:].strip())
        else:
            remark = desk.session.turn(text, self._pastes)
        self._screen.call(lambda: self._ended(remark))

    def _failed(self, error: BaseException) -> None:
        from agent.text import explain

        line = explain(error).message
        self._screen.call(lambda: self._ended(""))
        self._note(line, "red")

    # What the session's thread told, on the main thread.

    def _furnish(self, desk: Desk) -> None:
        self._desk = desk
        self._know()

    def _know(self) -> None:
        if self._desk is not None:
            self._facts = self._desk.session.facts(self._facts)
        self._screen.redraw()

    def _answered(self, said: Said) -> None:
        columns = self._screen.columns
        if said.words:
            self._screen.show(self._style.markdown(said.words, columns=columns))
        if said.patch:
            self._screen.show(self._style.diff(said.patch, columns=columns))
        self._ended(said.remark)

    def _asked(self, text: str) -> None:
        assert self._desk is not None
        self._said.append(text)
        self._facts = self._facts.new_turn()
        self._screen.show(self._desk.transcript.asked(text))

    def _told(self, event: Event) -> None:
        if self._desk is None:
            return
        self._desk.transcript.resize(self._screen.columns)
        lines = self._desk.transcript.feed(event)
        self._facts = self._facts.hear(event)
        if lines:
            self._screen.show(lines)
        self._screen.redraw()

    def _ended(self, remark: str) -> None:
        if self._desk is not None:
            self._screen.show(self._desk.transcript.end_turn())
            self._know()
        if remark:
            self._note(remark)

    def _ask_in_words(self) -> None:
        """Print the call that waits as lines: a screen reader hears these, and not what changes."""
        if self._desk is None:
            return
        lines = self._desk.session.approver.lines(self._style, self._screen.columns)
        if lines and lines != self._asked_in_words:
            self._screen.show(lines)
        self._asked_in_words = lines

    # Small things.

    def _cancel(self) -> None:
        if self._desk is not None:
            self._desk.session.cancel()

    def above(self) -> list[str]:
        """Return what runs now, the call that waits for approval, and what waits in line."""
        columns, desk = self._screen.columns, self._desk
        if desk is None:
            waited = time.monotonic() - self._began
            return [f"opening {waited:.0f} s"] if waited > OPENING_SHOWN_AFTER_S else []
        desk.transcript.resize(columns)
        if self._style.plain:
            return []
        lines = desk.session.approver.lines(self._style, columns) or desk.transcript.live()
        for name in self._jobs.waiting[:3]:
            lines += self._style.text(f"waits: {name}", "dim", columns=columns)[:1]
        return lines

    def footer(self, columns: int) -> str:
        """Return the line under the input."""
        facts = replace(self._facts, queued=len(self._jobs.waiting))
        return facts.line(columns, self._style.dash)

    def _command_help(self) -> Mapping[str, str]:
        return {**{name: text for name, (_, text) in BUILT_IN.items()}, **self._own_help()}

    def _own_help(self) -> dict[str, str]:
        return {name: found.description for name, found in self._extensions.found.items()}

    def _note(self, text: str, style: str = "yellow") -> None:
        """Print a remark, from any thread."""

        def show() -> None:
            columns = self._screen.columns
            self._screen.show(self._style.text(text, style, columns=columns))

        self._screen.call(show)


def _title(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TITLE_CHARACTERS else line[: TITLE_CHARACTERS - 1] + "…"


def chat(opening: Opening, *, plain: bool, history: Path, own: Path) -> int:
    """Run a chat at this process's terminal; return the exit code."""
    # The session's thread computes in Python too: keys and drawing shall not wait for their turn.
    sys.setswitchinterval(SWITCH_S)
    dumb = os.environ.get("TERM", "") in ("", "dumb")
    language = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG", "")
    style = Style(
        colours="NO_COLOR" not in os.environ and not dumb and not plain,
        unicode="utf" in language.lower() and not plain,
        plain=plain or dumb,
    )
    return Chat(opening, style, history, own).run()
