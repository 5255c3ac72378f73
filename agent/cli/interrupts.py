"""Ctrl-C and its kin as a token that the loop looks at, not as an exception out of nowhere.

The first signal is remembered, so that decoding and the running command stop at their next look and
the session is saved. A second one changes nothing but says so at a terminal: saving goes on. Only
the third raises ``KeyboardInterrupt`` at once, and costs the step under way.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self

from sandboxes.stop import Stop

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RAISES_AT = 3
_SAVING = b"\r\nsaving the session; once more ends at once and loses the step under way\r\n"


class Interrupts(Stop):
    """The token that ``SIGNALS`` set while it is entered.

    Only for the main thread, as Python's signal handlers are. ``count`` is how many came, and
    ``by_person`` whether all of them were Ctrl-C.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.by_person = True
        self._immediate = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            # nohup asks that SIGHUP be ignored; keep it so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Let the first signal raise within the block: for long work that leaves nothing behind."""
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False

    def clear(self) -> None:
        """Forget what came: the person wants to go on."""
        self.count = 0
        super().clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.cancel()
        self.by_person = self.by_person and number == signal.SIGINT
        if self._immediate or self.count >= RAISES_AT:
            raise KeyboardInterrupt
        if self.count == RAISES_AT - 1:
            # Not through sys.stderr, which the main program may be writing to just now.
            with suppress(OSError, ValueError, AttributeError):
                if os.isatty(descriptor := sys.stderr.fileno()):
                    os.write(descriptor, _SAVING)
