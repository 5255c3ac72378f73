"""The running MCP servers: one event loop in a thread of its own, called with time-outs.

Whatever a server does, hang, die, flood, answer nonsense, change its tools, costs its own tools and
never the run: a call gets an answer the model can act on, within its time-out.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, Implementation, PaginatedRequestParams, Tool
from pydantic import ValidationError

from sandboxes.stop import Stop
from tools.files.places import printable
from tools.mcp.cleaning import reduce_schema
from tools.mcp.spec import McpServer
from tools.mcp.transport import Meter, connect
from tools.text.truncate import cut_line

MAX_TOOLS = 128
MAX_PAGES = 20
MAX_RESTARTS = 5
_POLL_S = 0.05
_GRACE_S = 2.0
_LOSSES_TOLD = 20
_LATE = "it did not answer within"


class ServerFailed(Exception):
    """A server that could not do what was asked; the message is one sentence."""


@dataclass
class _Connected:
    """One running server. ``why`` says why it can no longer be used."""

    server: McpServer
    meter: Meter | None = None
    session: ClientSession | None = None
    stop: anyio.Event | None = None
    tools: list[Tool] = field(default_factory=list)
    why: str = ""
    restarts: int = 0
    task: concurrent.futures.Future[None] | None = None


class RunningServers:
    """The started servers. Made, called and closed from ordinary threads."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._live: dict[str, _Connected] = {}
        self._restarting = threading.Lock()

    def start(self, servers: tuple[McpServer, ...], stop: Stop) -> list[str]:
        """Start them all at once; returns a line for each that could not be, or lost a tool.

        Afterwards ``tools`` has what the others offer. ``stop`` gives up waiting.
        """
        if not servers:
            return []
        self._portal = self._stack.enter_context(start_blocking_portal(name="mcp"))
        begun = [self._begin(self._portal, server) for server in servers]
        said = []
        for live, ready in begun:
            try:
                _wait(ready, live.server.start_timeout + _GRACE_S, stop)
                self._live[live.server.name] = live
                said += _describe_losses(live)
            except ServerFailed as error:
                said.append(f"MCP server {live.server.name} is left out: {error}")
        return said

    def tools(self) -> list[tuple[McpServer, Tool]]:
        """Return the tools that are offered and wanted, as listed at the start."""
        return [
            (live.server, tool)
            for live in self._live.values()
            for tool in live.tools
            if live.server.offers(tool.name)
        ]

    def call(
        self,
        name: str,
        tool: str,
        arguments: Mapping[str, Any],
        stop: Stop,
    ) -> CallToolResult:
        """Call a tool of the server ``name``, which is started again first if it has ended.

        A call during which it ends is not repeated: it may have done a part. Raises
        ``ServerFailed``.
        """
        portal = self._portal
        if portal is None:
            raise ServerFailed("it is closed")
        live = self._get_living(portal, name, stop)
        try:
            ready = portal.start_task_soon(self._call, live, tool, dict(arguments))
            result: CallToolResult = _wait(ready, live.server.timeout + _GRACE_S, stop)
        except ServerFailed as error:
            if live.meter is not None and live.meter.why and live.task is not None:
                # Its last words come with its end.
                concurrent.futures.wait([live.task], timeout=_GRACE_S)
            if not live.why:
                raise
            raise ServerFailed(f"{live.why}; one more call would start it again") from error
        return result

    def starts(self, name: str) -> int:
        """Return how often the server ``name`` was started again."""
        return self._live[name].restarts

    def _begin(
        self, portal: BlockingPortal, server: McpServer
    ) -> tuple[_Connected, concurrent.futures.Future[None]]:
        """Start ``server``; the future hears how that went."""
        live, ready = _Connected(server), concurrent.futures.Future[None]()
        live.task = portal.start_task_soon(self._serve, live, ready)
        return live, ready

    def _get_living(self, portal: BlockingPortal, name: str, stop: Stop) -> _Connected:
        """Return the running server ``name``, restarted if it ended. Raises ``ServerFailed``."""
        with self._restarting:
            old = self._live[name]
            if not old.why:
                return old
            if old.restarts >= MAX_RESTARTS:
                raise ServerFailed(
                    f"{old.why}; it has ended {MAX_RESTARTS + 1} times or did not start again"
                )
            # Counted also if it fails: the next call tries once more, and not for ever.
            old.restarts += 1
            live, ready = self._begin(portal, old.server)
            live.restarts = old.restarts
            try:
                _wait(ready, live.server.start_timeout + _GRACE_S, stop)
            except ServerFailed as error:
                raise ServerFailed(f"it had ended, and did not start again: {error}") from error
            # What it offers now makes no difference: the model was told the list of the start.
            live.tools = old.tools
            self._live[name] = live
            return live

    def close(self) -> None:
        """End all servers, with every process they started. May be called twice; never raises."""
        portal, self._portal = self._portal, None
        if portal is None:
            return
        for live in self._live.values():
            if live.stop is not None:
                with suppress(RuntimeError):
                    portal.start_task_soon(_set, live.stop)
        waiting = [live.task for live in self._live.values() if live.task is not None]
        concurrent.futures.wait(waiting, timeout=_GRACE_S)
        with suppress(RuntimeError):
            portal.start_task_soon(portal.stop, True)
        self._stack.close()

    async def _serve(self, live: _Connected, ready: concurrent.futures.Future[None]) -> None:
        """Hold the connection until it is to stop or is lost; ``ready`` hears how it began."""
        live.meter, live.stop = Meter(), anyio.Event()
        meter, stop = live.meter, live.stop
        try:
            async with connect(live.server, meter) as (read, write):
                who = Implementation(name="tenuto", version="0")
                async with ClientSession(read, write, client_info=who) as session:
                    live.tools = await self._begin_session(live, session, meter)
                    live.session = session
                    ready.set_result(None)
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(_cancel_when, meter.lost, tasks.cancel_scope)
                        await stop.wait()
                        tasks.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:
            why = _describe_error(error, live.server.start_timeout)
            live.why = why if isinstance(_find_first(error), ServerFailed) else meter.why or why
        finally:
            live.session = None
            live.why = live.why or meter.why or "it is closed"
            if words := meter.last_words:
                live.why += f" (it said: {words})"
            with suppress(concurrent.futures.InvalidStateError):
                ready.set_exception(ServerFailed(live.why))

    async def _begin_session(
        self, live: _Connected, session: ClientSession, meter: Meter
    ) -> list[Tool]:
        """Agree with the server and list its tools. Raises ``ServerFailed``."""
        tools: list[Tool] = []
        try:
            with anyio.fail_after(live.server.start_timeout):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_cancel_when, meter.lost, tasks.cancel_scope)
                    await session.initialize()
                    tools = await _list(session)
                    tasks.cancel_scope.cancel()
        except Exception as error:
            # To close the connection is to lose it, which must not hide why it is closed.
            if not meter.lost.is_set():
                raise ServerFailed(_describe_error(error, live.server.start_timeout)) from error
            raise
        if meter.lost.is_set():
            raise ServerFailed(meter.why)
        return tools

    async def _call(self, live: _Connected, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        session, meter = live.session, live.meter
        if session is None or meter is None:
            raise ServerFailed(live.why or "it ended")
        meter.reset()
        result: CallToolResult | None = None
        try:
            with anyio.fail_after(live.server.timeout):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_cancel_when, meter.lost, tasks.cancel_scope)
                    result = await session.call_tool(tool, arguments)
                    tasks.cancel_scope.cancel()
        except Exception as error:
            raise ServerFailed(meter.why or _describe_error(error, live.server.timeout)) from error
        if result is None:
            raise ServerFailed(meter.why or "it ended")
        return result


def _describe_losses(live: _Connected) -> list[str]:
    """Return a line for each tool that is left out or offered with a shorter schema."""
    losses = dict(live.meter.left_out) if live.meter is not None else {}
    losses = {tool: f"is left out: {why}" for tool, why in losses.items()}
    for tool in live.tools:
        if note := reduce_schema(tool.input_schema)[1]:
            losses[tool.name] = f"is offered, but {note}"
    lines = [
        f"MCP server {live.server.name}: its tool {cut_line(printable(tool), 80)} {said[:300]}"
        for tool, said in losses.items()
        if live.server.offers(tool)
    ]
    more = len(lines) - _LOSSES_TOLD
    if more > 0:
        lines[_LOSSES_TOLD:] = [f"MCP server {live.server.name}: so are {more:,} more of its tools"]
    return lines


async def _list(session: ClientSession) -> list[Tool]:
    """List what the server offers, page by page up to ``MAX_TOOLS``."""
    tools: list[Tool] = []
    names: set[str] = set()
    cursors = {""}
    cursor = None
    for _ in range(MAX_PAGES):
        parameters = PaginatedRequestParams(cursor=cursor) if cursor else None
        page = await session.list_tools(params=parameters)
        tools += [tool for tool in page.tools if tool.name not in names]
        names |= {tool.name for tool in page.tools}
        cursor = page.next_cursor or ""
        if cursor in cursors or len(tools) >= MAX_TOOLS:
            break
        cursors.add(cursor)
    return tools[:MAX_TOOLS]


async def _cancel_when(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def _set(event: anyio.Event) -> None:
    event.set()


def _wait(ready: concurrent.futures.Future[Any], most_s: float, stop: Stop) -> Any:
    """Wait for the result. Raises ``ServerFailed`` after ``most_s`` seconds, or when cancelled."""
    deadline = time.monotonic() + most_s
    while True:
        done, _ = concurrent.futures.wait([ready], timeout=_POLL_S)
        if done:
            break
        if stop.is_set():
            ready.cancel()
            raise ServerFailed("the call was stopped")
        if time.monotonic() >= deadline:
            ready.cancel()
            raise ServerFailed("it does not answer")
    try:
        return ready.result()
    except ServerFailed:
        raise
    except concurrent.futures.CancelledError:
        raise ServerFailed("it is closed") from None
    except Exception as error:
        raise ServerFailed(_describe_error(error, most_s)) from error


def _find_first(error: BaseException) -> BaseException:
    """Return the first error that is in a group of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _describe_error(error: BaseException, timeout_s: float) -> str:
    """Describe the error in one line; of a group, its first error."""
    error = _find_first(error)
    if isinstance(error, TimeoutError):
        return f"{_LATE} {timeout_s:g} s"
    if isinstance(error, ServerFailed):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return f"its program is not there: {error.filename}"
    if isinstance(error, ValidationError):
        wrong = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, wrong["loc"]))
        return f"its answer is not as the protocol says: {place}: {wrong['msg'].lower()}"
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return f"it failed: {text}" if isinstance(error, MCPError | OSError) else f"it failed ({text})"
