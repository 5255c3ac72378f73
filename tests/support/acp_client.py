"""A client of the Agent Client Protocol with nothing between the test and the frames.

Every frame in both directions is held against the published schema; those that a test means to be
wrong are sent with ``raw``.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from agent.acp.hub import Hub
from agent.acp.server import Server
from agent.acp.stdio import Frames
from agent.loading import LoadedModel
from agent.sessions.store import SessionStore
from tests.support.acp_wire import Judge, Schema

ANSWER_S = 60.0
Answer = Callable[[dict[str, Any]], Any]


class Refused(Exception):
    """The agent answered with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code = error["code"]
        self.data = error.get("data")


class RawClient:
    """Speaks over two descriptors. ``answers`` maps a method that the agent asks to its answer.

    An answer may be a value, or a function of the parameters, or ``None`` for never.
    """

    def __init__(self, read: int, write: int) -> None:
        self.updates: list[tuple[str, dict[str, Any]]] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Any] = {"session/request_permission": allow}
        self.nameless: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.on_update: Callable[[dict[str, Any]], None] = lambda update: None
        self._judge = Judge(Schema())
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        threading.Thread(target=self._read, args=(read,), daemon=True).start()

    async def initialize(self, **capabilities: Any) -> dict[str, Any]:
        return await self.request("initialize", protocolVersion=1, clientCapabilities=capabilities)

    async def new(self, folder: Any, **more: Any) -> str:
        answer = await self.request("session/new", cwd=str(folder), mcpServers=[], **more)
        return str(answer["sessionId"])

    async def prompt(self, session: str, text: str) -> dict[str, Any]:
        blocks = [{"type": "text", "text": text}]
        return await self.request("session/prompt", sessionId=session, prompt=blocks)

    async def request(self, method: str, /, **params: Any) -> Any:
        """The result. Raises ``Refused``."""
        return await asyncio.wait_for(self.ask(method, **params), ANSWER_S)

    def ask(self, method: str, /, **params: Any) -> asyncio.Future[Any]:
        """Send a request; its answer comes in the future."""
        self._number += 1
        future = self._waiting[self._number] = self._loop.create_future()
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        self._judge.frame("client", message)
        self.raw(message)
        return future

    def notify(self, method: str, /, **params: Any) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        self._judge.frame("client", message)
        self.raw(message)

    def raw(self, message: Any) -> None:
        """Send a frame, or bytes, whatever they are."""
        data = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
        if isinstance(message, dict) and "method" in message and "id" in message:
            number = message["id"]
            if isinstance(number, int | str):
                self._judge.asked["client", number] = message["method"]
        while data:
            data = data[os.write(self._write, data) :]

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The updates of one kind, over all sessions."""
        return [update for _, update in self.updates if update["sessionUpdate"] == kind]

    def text(self, kind: str = "agent_message_chunk") -> str:
        return "".join(update["content"]["text"] for update in self.told(kind))

    def hang_up(self) -> None:
        """Go away: the agent reads the end."""
        if self._write >= 0:
            os.close(self._write)
            self._write = -1

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as file, suppress(RuntimeError):
            for line in file:
                self._loop.call_soon_threadsafe(self._frame, json.loads(line))

    def _frame(self, message: dict[str, Any]) -> None:
        if message.get("id", 0) is None:
            self.nameless.put_nowait(message)
            return
        self._judge.frame("agent", message)
        if "method" not in message:
            future = self._waiting.pop(message["id"], None)
            if future is not None and not future.done():
                if "error" in message:
                    future.set_exception(Refused(message["error"]))
                else:
                    future.set_result(message["result"])
            elif future is None:
                self.nameless.put_nowait(message)
        elif message["method"] == "session/update":
            params = message["params"]
            self.updates.append((params["sessionId"], params["update"]))
            self.on_update(params["update"])
        else:
            self._answer(message)

    def _answer(self, message: dict[str, Any]) -> None:
        method, params = message["method"], message["params"]
        self.asked.append((method, params))
        answer = self.answers.get(method, KeyError)
        if answer is None:
            return
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            if answer is KeyError:
                raise Refused({"code": -32601, "message": "Method not found"})
            reply["result"] = answer(params) if callable(answer) else answer
        except Refused as error:
            reply["error"] = {"code": error.code, "message": str(error)}
        self._judge.frame("client", reply)
        self.raw(reply)


def allow(params: dict[str, Any]) -> dict[str, Any]:
    """Choose what allows once."""
    return choose("allow_once")(params)


def choose(kind: str) -> Answer:
    """Choose the option of that kind."""

    def answer(params: dict[str, Any]) -> dict[str, Any]:
        option = next(o["optionId"] for o in params["options"] if o["kind"] == kind)
        return {"outcome": {"outcome": "selected", "optionId": option}}

    return answer


class Served:
    """A server in this process over real pipes, and the client at their other ends.

    An async context manager; leaving it hangs up and waits until the server has ended.
    """

    def __init__(self, model: LoadedModel, store: SessionStore, **flags: Any) -> None:
        self._flags = {"sandbox": "local", "model": "scripted", **flags}
        self._mode = self._flags.pop("mode", "ask")
        self.hub = Hub(self._flags, store)
        self.hub._models["scripted"] = model

    async def __aenter__(self) -> RawClient:
        to_agent, from_agent = os.pipe(), os.pipe()
        frames = Frames(to_agent[0], from_agent[1])
        self._ends = (to_agent[0], from_agent[1])
        server = Server(frames, self._flags, self._mode, make_hub=lambda flags: self.hub)
        self._serving = asyncio.ensure_future(server.serve())
        self.client = RawClient(from_agent[0], to_agent[1])
        return self.client

    async def __aexit__(self, *_: object) -> None:
        self.client.hang_up()
        await asyncio.wait_for(self._serving, ANSWER_S)
        for end in self._ends:
            os.close(end)
