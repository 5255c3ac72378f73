"""Ctrl-C and its kin as a question that the loop asks, not as an exception out of nowhere.

The first signal is remembered, so that decoding and the running command stop at their next look and
the session is saved. A second one raises ``KeyboardInterrupt`` at once.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While entered, catches ``SIGNALS``. Calling it says whether one came.

    Only for the main thread, as Python's signal handlers are.
    """

    def __init__(self) -> None:
        self._asked = False
        self._immediate = False
        self._previous: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        return self._asked

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
        """Within it the first signal already raises: for long work that leaves nothing behind."""
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self._asked = self._asked, True
        if again or self._immediate:
            raise KeyboardInterrupt
