"""The judge that a user names: a checkpoint of ours, or an OpenAI-compatible address.

Graders of some suites ask a language model, and some tasks have a user whom one plays. ``--judge``
names it. The address may end with ``#MODEL``; without it the server's only model is taken. Its key
is the variable ``OPENAI_API_KEY``, which never enters a container.
"""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Protocol

import requests

from agent.loading import LoadedModel, load_for
from agent.settings.table import Settings
from evals.errors import EvalError
from model.errors import ModelError
from model.messages import Message

TIMEOUT_S = 600.0
MAX_QUESTION = 64_000_000
MOST_TOKENS = 8192
ChatMessages = Sequence[Mapping[str, Any]]


class JudgeError(EvalError):
    """The judge gave no answer; the message is one line."""


class Judge(Protocol):
    """A language model that answers one conversation at a time."""

    def answer(self, messages: ChatMessages, *, temperature: float, max_tokens: int) -> str:
        """Return what the judge says next. Raises ``JudgeError``."""
        ...


@dataclass(frozen=True)
class RemoteJudge:
    """A judge behind an OpenAI-compatible address, such as ``https://HOST/v1``."""

    address: str
    model: str

    @classmethod
    def at(cls, name: str) -> RemoteJudge:
        """Return the judge that ``ADDRESS#MODEL`` names. Raises ``JudgeError``."""
        address, _, model = name.partition("#")
        address = address.rstrip("/")
        if not model:
            data = _asked("GET", f"{address}/models", None).get("data")
            names = [item.get("id") for item in data or () if isinstance(item, dict)]
            if len(names) != 1:
                raise JudgeError(f"{address} has {len(names)} models; name one: {address}#MODEL")
            model = str(names[0])
        return cls(address, model)

    def answer(self, messages: ChatMessages, *, temperature: float, max_tokens: int) -> str:
        """Ask the server."""
        body = {
            "model": self.model,
            "messages": list(messages),
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        data = _asked("POST", f"{self.address}/chat/completions", body)
        try:
            text = data["choices"][0]["message"]["content"]
        except (LookupError, TypeError) as error:
            raise JudgeError(f"the judge at {self.address} answered no completion") from error
        return str(text or "")


@dataclass(frozen=True)
class LocalJudge:
    """A checkpoint of ours as the judge. It answers one question at a time."""

    model: LoadedModel
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def answer(self, messages: ChatMessages, *, temperature: float, max_tokens: int) -> str:
        """Let the checkpoint answer, without thinking."""
        told = [_message(item) for item in messages]
        chat, engine = self.model.chat, self.model.engine
        params = replace(engine.generation, temperature=temperature)
        with self.lock:
            try:
                session = engine.session(seed=0)
                try:
                    session.extend(chat.begin(told, (), thinking=False))
                    parser = chat.parser((), False)
                    most = min(max_tokens, MOST_TOKENS)
                    for token in session.generate(params, max_tokens=most, stop_ids=chat.stop_ids):
                        parser.push(token.id)
                    return parser.finish().content
                finally:
                    session.close()
            except ModelError as error:
                raise JudgeError(f"the judge cannot answer: {error}") from error


def open_judge(name: str | None, settings: Settings) -> Judge | None:
    """Return the judge that ``--judge`` names; None without one. Raises ``EvalError``."""
    if name is None:
        return None
    if name.startswith(("http://", "https://")):
        return RemoteJudge.at(name)
    return LocalJudge(load_for(settings, name))


@contextmanager
def open_door(judge: Judge | None, folder: Path) -> Iterator[None]:
    """Let whoever sees ``folder`` ask ``judge`` by HTTP, at its file ``socket``."""
    if judge is None:
        yield
        return
    path = folder / "socket"

    class Handler(_Questions):
        asked = judge

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    # A socket's path may have 108 bytes, a folder's more: it is named by its descriptor.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        server = Server(f"/proc/self/fd/{descriptor}/socket", Handler)
    finally:
        os.close(descriptor)
    with server:
        path.chmod(0o666)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="judge")
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            path.unlink(missing_ok=True)


class _Questions(BaseHTTPRequestHandler):
    """Answers ``POST …/chat/completions``, whatever model it names."""

    asked: Judge | None = None

    def do_POST(self) -> None:
        """Answer one question; what goes wrong is a status with one line."""
        try:
            length = int(self.headers.get("Content-Length") or 0)
            if not 0 < length <= MAX_QUESTION:
                raise ValueError("the question has no length, or too much of it")
            data = json.loads(self.rfile.read(length))
            assert self.asked is not None
            text = self.asked.answer(
                list(data["messages"]),
                temperature=float(data.get("temperature") or 0.0),
                max_tokens=int(data.get("max_tokens") or MOST_TOKENS),
            )
        except JudgeError as error:
            self._send(502, {"error": {"message": str(error)}})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._send(400, {"error": {"message": f"no question: {error}"}})
        else:
            said = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": said, "finish_reason": "stop"}
            answer = {"id": "judge", "object": "chat.completion", "created": 0, "model": "judge"}
            self._send(200, {**answer, "choices": [choice]})

    def _send(self, status: int, data: Mapping[str, Any]) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "the grader"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a grader's questions are no news."""


def _asked(method: str, url: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a server's JSON answer. Raises ``JudgeError``."""
    key = os.environ.get("OPENAI_API_KEY", "")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = requests.request(method, url, json=body, headers=headers, timeout=TIMEOUT_S)
        answer.raise_for_status()
        data = answer.json()
    except (requests.RequestException, ValueError) as error:
        told = " ".join(str(error).split())[:200]
        raise JudgeError(f"the judge at {url} does not answer: {told}") from error
    if not isinstance(data, dict):
        raise JudgeError(f"the judge at {url} answered no JSON object")
    return data


def _message(item: Mapping[str, Any]) -> Message:
    """Return a chat message as ours. Raises ``JudgeError`` for pictures, which it cannot see."""
    role, content = item.get("role"), item.get("content")
    if isinstance(content, list):
        if any(part.get("type") != "text" for part in content):
            raise JudgeError("a checkpoint as the judge sees no pictures; name an address")
        content = "\n".join(str(part.get("text", "")) for part in content)
    if role not in ("system", "user", "assistant"):
        raise JudgeError(f"the judge was asked with the role {role!r}")
    return Message(role, str(content or ""))
