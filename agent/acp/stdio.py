"""Frames over stdin and stdout: one JSON-RPC message a line.

Two threads read and write, so that any kind of descriptor will do (a pipe, a socket, a file). Once
``take`` was called, whatever else in the process prints lands in the log: file descriptor 1 is no
longer the protocol's, and descriptor 0 is empty.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import sys
import threading
from collections import deque
from typing import Any

_log = logging.getLogger(__name__)

MAX_FRAME_BYTES = 64 * 2**20
BACKLOG = 256
"""Frames that may wait for a slow reader before ``send`` waits with them."""

PARSE_ERROR, INVALID_REQUEST = -32700, -32600
Message = dict[str, Any]


def take(log: int) -> tuple[int, int]:
    """Return the protocol's descriptors, to read and to write.

    Descriptor 1 becomes ``log``, 0 the empty file.

    Child processes inherit neither of the two that are returned.
    """
    sys.stdout.flush()
    read, write = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(log, 1)
    return read, write


class Frames:
    """The SDK's transport over two descriptors. A frame that is none is answered and passed over.

    ``receive`` ends (None) when the client closes its side, or stops reading ours.
    """

    def __init__(self, read: int, write: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._waiting = 0
        self._room = asyncio.Event()
        self._room.set()
        self._less = asyncio.Event()
        self._gone = False
        self._prompts: dict[str | int, str] = {}
        threading.Thread(target=self._read, args=(read,), name="acp-in", daemon=True).start()
        self._writer = threading.Thread(
            target=self._write, args=(write,), name="acp-out", daemon=True
        )
        self._writer.start()

    async def send(self, message: Message) -> None:
        """Queue one frame. Raises ``ConnectionError`` if nobody reads any more."""
        if self._gone:
            raise ConnectionError("the client has gone")
        if "method" not in message:
            self._prompts.pop(message.get("id", ""), None)
        if "error" in message:
            message = {**message, "error": _plain_error(message["error"])}
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), default=str)
        self._waiting += 1
        if self._waiting >= BACKLOG:
            self._room.clear()
        self._out.put(text.encode("utf-8", "replace") + b"\n")
        await self._room.wait()

    async def receive(self) -> Message | None:
        """Return the next frame that is a message; None at the end."""
        while (line := await self._lines.get()) is not None:
            if not line.strip():
                continue
            message = await self._understood(line)
            if message is not None:
                return message
        return None

    async def written(self) -> None:
        """Wait until all that was sent so far is with the client, or it has gone."""
        while self._waiting and not self._gone:
            self._less.clear()
            await self._less.wait()

    async def close(self) -> None:
        """Write what waits, then stop."""
        self._out.put(None)
        await asyncio.to_thread(self._writer.join, 2.0)

    async def _understood(self, line: bytes) -> Message | None:
        """Return the message in ``line``; if there is none, None, and answer where that is due."""
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            await self._refuse(None, PARSE_ERROR, "Parse error", "a frame is one JSON line")
            return None
        if not isinstance(message, dict):
            why = "a frame is one object; batches are not part of the protocol"
            await self._refuse(None, INVALID_REQUEST, "Invalid request", why)
            return None
        number = message.get("id")
        if isinstance(number, bool) or not (number is None or isinstance(number, str | int)):
            why = "an id is a string, an integer or null"
            await self._refuse(None, INVALID_REQUEST, "Invalid request", why)
            return None
        if message.get("jsonrpc") != "2.0":
            why = 'jsonrpc must be "2.0"'
            await self._refuse(number, INVALID_REQUEST, "Invalid request", why)
            return None
        if "method" not in message:
            if "id" not in message or not ("result" in message or "error" in message):
                why = "neither a request nor a response"
                await self._refuse(number, INVALID_REQUEST, "Invalid request", why)
                return None
            if "error" in message and not isinstance(message["error"], dict):
                message["error"] = {"code": -32603, "message": "malformed error"}
            return message
        if not isinstance(message["method"], str):
            why = "a method is a string"
            await self._refuse(number, INVALID_REQUEST, "Invalid request", why)
            return None
        return self._with_cancels(message)

    def _with_cancels(self, message: Message) -> Message | None:
        """Turn ``$/cancel_request`` of a prompt into a cancel of its session, others into None.

        Every other message is returned as it is.
        """
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        if message["method"] == "session/prompt" and message.get("id") is not None:
            self._prompts[message["id"]] = str(params.get("sessionId"))
        if message["method"] != "$/cancel_request":
            return message
        asked = params.get("requestId")
        session = self._prompts.get(asked) if isinstance(asked, str | int) else None
        if session is None:
            return None
        return {"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": session}}

    async def _refuse(self, number: Any, code: int, text: str, why: str) -> None:
        _log.warning("refused a frame: %s", why)
        error = {"code": code, "message": text, "data": {"details": why}}
        await self.send({"jsonrpc": "2.0", "id": number, "error": error})

    def _read(self, descriptor: int) -> None:
        """Put whole lines into the queue, then None; runs as the reading thread."""
        pieces: deque[bytes] = deque()
        size = 0
        try:
            while data := os.read(descriptor, 1 << 20):
                *lines, rest = data.split(b"\n")
                for line in lines:
                    pieces.append(line)
                    whole = b"".join(pieces) if size <= MAX_FRAME_BYTES else b"too long"
                    pieces.clear()
                    size = 0
                    self._loop.call_soon_threadsafe(self._lines.put_nowait, whole)
                size += len(rest)
                if size <= MAX_FRAME_BYTES:
                    pieces.append(rest)
                else:
                    pieces.clear()
        except (OSError, RuntimeError) as error:  # RuntimeError: the event loop has ended
            _log.info("reading ended: %s", error)
        self._end()

    def _write(self, descriptor: int) -> None:
        """Write the queued frames; runs as the writing thread."""
        try:
            while (data := self._out.get()) is not None:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                self._loop.call_soon_threadsafe(self._written)
        except (OSError, RuntimeError) as error:
            _log.info("the client stopped reading: %s", error)
            self._gone = True
            self._end()

    def _written(self) -> None:
        self._waiting -= 1
        self._less.set()
        if self._waiting < BACKLOG:
            self._room.set()

    def _end(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._lines.put_nowait, None)
            self._loop.call_soon_threadsafe(self._room.set)
            self._loop.call_soon_threadsafe(self._less.set)
        except RuntimeError:
            pass


def _plain_error(error: Any) -> Any:
    """Return the error with pydantic's findings in one line: they repeat the whole input."""
    data = error.get("data") if isinstance(error, dict) else None
    found = data.get("errors") if isinstance(data, dict) else None
    if not isinstance(found, list) or not found:
        return error
    first = found[0]
    where = ".".join(str(part) for part in first.get("loc", ())[:6])
    return {**error, "data": {"details": f"{where or 'params'}: {first.get('msg', 'invalid')}"}}
