"""Updates on their way to the editor: put in from any thread, sent in order.

Text that waits behind a slow reader is joined, so that what waits stays small.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from acp.schema import AgentMessageChunk, AgentThoughtChunk, TextContentBlock

Send = Callable[[Any], Awaitable[None]]


class Outbox:
    """The updates of one session, made and flushed on the event loop."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting: deque[Any] = deque()
        self._called = False
        self._sending: asyncio.Task[None] | None = None

    def put(self, update: Any) -> None:
        """Send ``update`` after those before it. From any thread."""
        with self._lock:
            if not (self._waiting and _joined(self._waiting[-1], update)):
                self._waiting.append(update)
            if self._called:
                return
            self._called = True
        try:
            self._loop.call_soon_threadsafe(self._start)
        except RuntimeError:  # the event loop has ended, and the client with it
            return

    async def flush(self) -> None:
        """Wait until all that was put so far is on its way."""
        while True:
            with self._lock:
                idle = not self._waiting and not self._called
            if idle and self._sending is None:
                return
            if self._sending is not None:
                await asyncio.shield(self._sending)
            else:
                await asyncio.sleep(0)

    def _start(self) -> None:
        if self._sending is None:
            self._sending = self._loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            while True:
                with self._lock:
                    if not self._waiting:
                        self._called = False
                        return
                    update = self._waiting.popleft()
                await self._send(update)
        except ConnectionError:
            with self._lock:
                self._waiting.clear()
                self._called = False
        finally:
            self._sending = None


def _joined(last: Any, update: Any) -> bool:
    """Put the text of ``update`` behind that of ``last`` if both are pieces of one text."""
    if type(last) is not type(update):
        return False
    if not isinstance(update, AgentMessageChunk | AgentThoughtChunk):
        return False
    there, new = last.content, update.content
    if not isinstance(there, TextContentBlock) or not isinstance(new, TextContentBlock):
        return False
    there.text += new.text
    return True
