"""Connect to an MCP server over its standard streams or HTTP, with bounds on what it may send.

A program that floods us costs a bounded amount of memory and time: past ``MAX_BYTES`` or
``MAX_MESSAGES`` between two of our requests, or one message over ``MAX_MESSAGE`` bytes, the
connection is closed. The SDK's own stdio transport has no such bounds, passes on more of the
environment than is listed, and leaves processes behind a kill -9.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx2
from anyio.abc import ByteReceiveStream, ObjectReceiveStream, ObjectSendStream, Process
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCResponse, jsonrpc_message_adapter

from tools.mcp.cleaning import clean_result
from tools.mcp.spec import McpServer

MAX_MESSAGE = 8 << 20
MAX_BYTES = 32 << 20
MAX_MESSAGES = 10_000
_SAID = 2000
_WATCH = Path(__file__).with_name("watch.py")


class Flooded(Exception):
    """A server that sent more than it may."""


class Meter:
    """A count of what came since the last ``reset``, and why the connection is lost.

    ``left_out`` has the tools that cannot be offered, each with the reason.
    """

    def __init__(self) -> None:
        self.lost = anyio.Event()
        self.why = ""
        self.said = b""
        self.left_out: dict[str, str] = {}
        self._bytes = 0
        self._messages = 0

    def reset(self) -> None:
        """Begin a new request."""
        self._bytes = self._messages = 0

    def count(self, size: int, messages: int = 0) -> None:
        """Count bytes and messages. Raises ``Flooded``."""
        self._bytes += size
        self._messages += messages
        if self._bytes > MAX_BYTES or self._messages > MAX_MESSAGES:
            raise Flooded

    def lose(self, why: str) -> None:
        """Mark the connection as lost; the first reason stays."""
        self.why = self.why or why
        self.lost.set()

    @property
    def last_words(self) -> str:
        """The end of what a program wrote to stderr, on one line."""
        return " ".join(self.said.decode("utf-8", "replace").split())[-300:]


@asynccontextmanager
async def connect(server: McpServer, meter: Meter) -> AsyncIterator[tuple[Any, Any]]:
    """Open the read and write streams to ``server``. Raises ``OSError`` if it cannot start."""
    over = _over_stdio if server.url is None else _over_http
    async with over(server, meter) as (read, write), anyio.create_task_group() as tasks:
        cleaned, read_cleaned = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        tasks.start_soon(_clean, read, cleaned, meter)
        try:
            yield read_cleaned, write
        finally:
            tasks.cancel_scope.cancel()
            read_cleaned.close()


async def _clean(
    read: Any, cleaned: ObjectSendStream[SessionMessage | Exception], meter: Meter
) -> None:
    """Pass on what comes, with the results of the tools cleaned."""
    async with cleaned:
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            async for item in read:
                message = getattr(item, "message", None)
                if isinstance(message, JSONRPCResponse):
                    result = clean_result(message.result, meter.left_out)
                    item = SessionMessage(
                        message.model_copy(update={"result": result}), item.metadata
                    )
                await cleaned.send(item)


@asynccontextmanager
async def _over_http(server: McpServer, meter: Meter) -> AsyncIterator[tuple[Any, Any]]:
    async def bounded(response: httpx2.Response) -> None:
        response.stream = _Bounded(response.stream, meter)

    assert server.url is not None
    timeout = httpx2.Timeout(30.0, read=server.timeout + 30.0)
    async with (
        httpx2.AsyncClient(
            headers=server.all_headers(), timeout=timeout, event_hooks={"response": [bounded]}
        ) as client,
        streamable_http_client(
            server.url, http_client=client, max_sse_event_size=MAX_MESSAGE
        ) as streams,
    ):
        yield streams


class _Bounded(httpx2.AsyncByteStream):
    """A response's body, counted."""

    def __init__(self, stream: Any, meter: Meter) -> None:
        self._stream = stream
        self._meter = meter

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            try:
                self._meter.count(len(piece), 1)
            except Flooded:
                self._meter.lose("it sent more than it may")
                raise httpx2.ReadError("too much") from None
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def _over_stdio(server: McpServer, meter: Meter) -> AsyncIterator[tuple[Any, Any]]:
    theirs, ours = os.pipe()
    try:
        process = await anyio.open_process(
            [sys.executable, "-I", "-S", str(_WATCH), str(theirs), *server.command],
            env=server.environment(),
            cwd=server.folder,
            start_new_session=True,
            pass_fds=(theirs,),
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_receive, process, meter, incoming)
        tasks.start_soon(_send, process, meter, outgoing)
        tasks.start_soon(_listen, process, meter)
        try:
            yield read, write
        finally:
            # The watcher kills all that the server started.
            os.close(ours)
            with anyio.CancelScope(shield=True):
                await _wait_for(process)
            tasks.cancel_scope.cancel()
            for stream in (read, write):
                stream.close()


async def _receive(
    process: Process, meter: Meter, incoming: ObjectSendStream[SessionMessage | Exception]
) -> None:
    """Pass on the messages of the program until its output ends."""
    assert process.stdout is not None
    async with incoming:
        try:
            async for line in _read_lines(process.stdout, meter):
                with suppress(ValueError):  # a line that is no message is a log line
                    await incoming.send(SessionMessage(_read_message(line)))
            meter.lose("it ended")
        except Flooded:
            meter.lose("it sent more than it may")
        except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            meter.lose("it ended")


def _read_message(line: bytes) -> Any:
    """Read one message, also with bytes or escapes that are no text. Raises ``ValueError``."""
    try:
        return jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        try:
            value = json.loads(line.decode(errors="replace"))
        except RecursionError:
            raise ValueError("it nests too deep") from None
        text = json.dumps(value, ensure_ascii=False).encode(errors="replace")
        return jsonrpc_message_adapter.validate_json(text, by_name=False)


async def _send(
    process: Process, meter: Meter, outgoing: ObjectReceiveStream[SessionMessage]
) -> None:
    """Write our messages to the program's input."""
    assert process.stdin is not None
    async with outgoing:
        try:
            async for item in outgoing:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                await process.stdin.send(text.encode() + b"\n")
        except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            meter.lose("it ended")


async def _listen(process: Process, meter: Meter) -> None:
    """Keep the end of what the program writes to stderr."""
    assert process.stderr is not None
    try:
        async for piece in process.stderr:
            meter.said = (meter.said + piece)[-_SAID:]
            meter.count(len(piece))
    except Flooded:
        meter.lose("it sent more than it may")
    except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
        return


async def _wait_for(process: Process) -> None:
    """Wait for the watcher, then close its pipes; whoever does not obey is killed."""
    with anyio.move_on_after(6.0):
        while process.returncode is None:
            await anyio.sleep(0.01)
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    with suppress(Exception), anyio.move_on_after(1.0):
        await process.aclose()


async def _read_lines(stream: ByteReceiveStream, meter: Meter) -> AsyncIterator[bytes]:
    """Yield the lines that come. Raises ``Flooded`` if one is too long, or at too many."""
    pending = bytearray()
    async for piece in stream:
        meter.count(len(piece), piece.count(b"\n"))
        pending += piece
        if b"\n" not in piece:
            if len(pending) > MAX_MESSAGE:
                raise Flooded
            continue
        *lines, rest = bytes(pending).split(b"\n")
        pending = bytearray(rest)
        for line in lines:
            if line.strip():
                yield line
