"""The screen: finished lines scroll away above, what runs now and the input stand below.

Built on prompt_toolkit's prompt, which keeps its few lines at the bottom and never repaints the
rest. Everything printed goes through ``Screen.show``, from whichever thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import Completer
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style as PromptStyle
from prompt_toolkit.utils import is_dumb_terminal

from agent.chat.style import Style

REFRESH_S = 0.1
ESCAPE_S = 0.05
_LOOK = PromptStyle.from_dict({"bottom-toolbar": "noreverse", "bottom-toolbar.text": "#888888"})


class Shown(Protocol):
    """Interface of the object that the screen shows and reports to, on the main thread."""

    def drawn(self) -> None:
        """Hear that the prompt stands for the first time."""
        ...

    def above(self) -> list[str]:
        """Return the lines between the scrolled text and the input."""
        ...

    def footer(self, columns: int) -> str:
        """Return the line under the input."""
        ...

    def hang_up(self) -> None:
        """Hear that the terminal is gone, or that the process is asked to end."""
        ...

    def submit(self, typed: str) -> bool:
        """Take a message; return False to end."""
        ...


class Screen:
    """Prints lines above the prompt and reads messages. Made and used on the main thread."""

    def __init__(
        self,
        style: Style,
        keys: KeyBindings,
        completer: Completer,
        history: Path | None,
        shown: Shown,
    ) -> None:
        self.style = style
        self._shown = shown
        self._lines: deque[str] = deque()
        self._wake: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reading: asyncio.Task[str] | None = None
        self._prompt: PromptSession[str] = PromptSession(
            message=self._message,
            bottom_toolbar=self._toolbar,
            multiline=True,
            erase_when_done=True,
            history=FileHistory(str(history)) if history else InMemoryHistory(),
            key_bindings=keys,
            completer=completer,
            complete_while_typing=True,
            complete_in_thread=True,
            refresh_interval=REFRESH_S,
            style=_LOOK,
            color_depth=None if style.colours else ColorDepth.DEPTH_1_BIT,
            reserve_space_for_menu=4,
            prompt_continuation="  ",
            include_default_pygments_style=False,
        )
        app = self._prompt.app
        app.ttimeoutlen = ESCAPE_S
        app.timeoutlen = ESCAPE_S
        app.after_render += self._drawn

    @property
    def columns(self) -> int:
        """The terminal's width."""
        return self._prompt.app.output.get_size().columns

    @property
    def text(self) -> str:
        """Text in the input."""
        return self._prompt.default_buffer.text

    def put_text(self, text: str) -> None:
        """Replace what stands in the input; the cursor goes to its end."""
        buffer = self._prompt.default_buffer
        buffer.text = text
        buffer.cursor_position = len(text)
        self.redraw()

    def insert(self, text: str) -> None:
        """Insert ``text`` at the cursor."""
        self._prompt.default_buffer.insert_text(text)

    def show(self, lines: list[str]) -> None:
        """Print lines above the prompt, in order, from any thread."""
        self._lines.extend(lines)
        self.call(self._woken)

    def redraw(self) -> None:
        """Draw the lower lines anew, from any thread."""
        self.call(self._prompt.app.invalidate)

    def call(self, work: Callable[[], None]) -> None:
        """Run ``work`` on the main thread soon, from any thread."""
        loop = self._loop
        if loop is None or loop.is_closed():
            work()
        else:
            loop.call_soon_threadsafe(work)

    async def run(self) -> None:
        """Read messages until ``Shown.submit`` returns False or the input ends."""
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._wake.set()
        for number in (signal.SIGHUP, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._hung_up)
        printer = asyncio.ensure_future(self._print_lines())
        if is_dumb_terminal():
            # There the prompt is written, not drawn, and nothing tells that it stands.
            self._loop.call_soon(self._shown.drawn)
        try:
            while True:
                reading = self._prompt.prompt_async(handle_sigint=False)
                self._reading = asyncio.ensure_future(reading)
                if not self._shown.submit(await self._reading):
                    return
        except (EOFError, KeyboardInterrupt, asyncio.CancelledError):
            return
        except OSError as error:
            # A terminal that is gone may be noticed before the signal comes.
            if error.errno != errno.EIO:
                raise
            self._hung_up()
        finally:
            printer.cancel()
            self.flush()

    def flush(self) -> None:
        """Print at once what waits; for after ``run``."""
        lines = []
        while self._lines:
            lines.append(self._lines.popleft())
        if lines:
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()

    def _hung_up(self) -> None:
        # Whatever is still written must not meet a terminal that is gone.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        self._shown.hang_up()

    def leave(self) -> None:
        """End ``run`` as if the input had ended."""
        app = self._prompt.app
        if app.is_running:
            app.exit(exception=EOFError())
        elif self._reading is not None:
            self._reading.cancel()

    def _drawn(self, app: object) -> None:
        self._prompt.app.after_render -= self._drawn
        self._shown.drawn()

    async def _print_lines(self) -> None:
        assert self._wake is not None
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._lines:
                continue
            if self._prompt.app.is_running:
                await run_in_terminal(self.flush)
            else:
                self.flush()
            # Lines that come close together are printed together: one redraw for all of them.
            await asyncio.sleep(REFRESH_S / 4)

    def _message(self) -> ANSI:
        lines = self._shown.above()
        return ANSI("\n".join([*lines, f"{self.style.arrow} "]))

    def _toolbar(self) -> ANSI | str:
        line = self._shown.footer(self.columns)
        return ANSI(f"\x1b[2m{line}\x1b[0m") if self.style.colours else line

    def _woken(self) -> None:
        if self._wake is not None:
            self._wake.set()
