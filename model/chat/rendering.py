"""Compile and render chat templates; as a program, do so for a parent that trusts no template.

A template is a program: it may loop for ever, or write more than the memory holds, and nothing
inside one interpreter bounds both. ``TemplateWorker`` therefore runs a template of unknown origin
in a process of its own with a limit on memory, ends it after ``SECONDS``, and takes no more text
than a conversation of that size can need. This file imports nothing of the project, so that it
starts quickly and by its path alone.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import resource
import selectors
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 5.0
"""The longest time that one rendering may take."""
MEMORY = 1 << 30
"""The address space of a worker in bytes."""
MOST_SOURCE = 1 << 20
"""The longest template in characters; the longest official one has 9,000."""
_FREE_TEXT = 1 << 22
_GROWTH = 8
"""A rendering has at most ``_FREE_TEXT`` characters and ``_GROWTH`` for each of its input."""

Render = Callable[[Mapping[str, Any]], str]


class TemplateError(Exception):
    """A template cannot be compiled, or fails or exceeds a limit while it renders: one line."""


def compile_template(source: str) -> Render:
    """Compile ``source`` as transformers does it. Raises ``TemplateError``."""
    if len(source) > MOST_SOURCE:
        raise TemplateError(f"it has more than {MOST_SOURCE:,} characters")
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _now
    try:
        template = environment.from_string(source)
    except Exception as error:  # besides TemplateError: RecursionError, SyntaxError, MemoryError …
        raise TemplateError(_line(error)) from error

    def render(variables: Mapping[str, Any]) -> str:
        try:
            return template.render(**variables)
        except Exception as error:  # a template is a program and may fail in any way
            raise TemplateError(_line(error)) from error

    return render


class TemplateWorker:
    """Renders one template in a process of its own; a worker that was ended starts anew."""

    def __init__(self, source: str) -> None:
        """Start the process. Raises ``TemplateError`` if ``source`` cannot be compiled in it."""
        self._source = source
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        with self._lock:
            self._start()

    def __call__(self, variables: Mapping[str, Any]) -> str:
        """Return the text for ``variables`` (JSON-like data). Raises ``TemplateError``."""
        try:
            request = json.dumps(variables)
        except (TypeError, ValueError, RecursionError) as error:
            raise TemplateError(_line(error)) from error
        with self._lock:
            if self._process is None:
                self._start()
            return self._ask(request, _FREE_TEXT + _GROWTH * len(request))

    def _start(self) -> None:
        command = [sys.executable, "-P", __file__]
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            raise TemplateError(f"no process can be started for it: {_line(error)}") from error
        weakref.finalize(self, _end, self._process)
        self._ask(json.dumps({"source": self._source}), 100)

    def _ask(self, request: str, most: int) -> str:
        """Send one request and return the answer's text of at most ``most`` characters."""
        assert self._process is not None
        try:
            answer = _exchange(self._process, request.encode() + b"\n", 6 * most + 100)
            said = json.loads(answer)
        except BaseException as error:  # also an interrupt: its answer would be the next one's
            _end(self._process)
            self._process = None
            if isinstance(error, OSError | EOFError | ValueError):
                reason = f"its process ended; it may need more than {MEMORY >> 20} MiB"
                raise TemplateError(reason) from error
            raise
        if "error" in said:
            raise TemplateError(said["error"])
        if len(said["text"]) > most:
            raise TemplateError(f"it writes more than {most:,} characters")
        return str(said["text"])


def _exchange(process: subprocess.Popen[bytes], request: bytes, most: int) -> bytes:
    """Send ``request`` and return the line that answers it, within time and ``most`` bytes."""
    assert process.stdin is not None and process.stdout is not None
    deadline = monotonic() + SECONDS
    process.stdin.write(request)
    process.stdin.flush()
    parts: list[bytes] = []
    size = 0
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not parts or not parts[-1].endswith(b"\n"):
            if not selector.select(max(0.0, deadline - monotonic())):
                raise TemplateError(f"it takes longer than {SECONDS:g} s")
            part = process.stdout.read1(1 << 20)  # type: ignore[attr-defined]
            if not part:
                raise EOFError
            parts.append(part)
            size += len(part)
            if size > most:
                raise TemplateError(f"it writes more than {most // 6:,} characters")
    return b"".join(parts)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _serve() -> None:
    """Answer requests, one line of JSON each, until the parent is gone."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    render: Render | None = None
    for line in sys.stdin.buffer:
        try:
            request = json.loads(line)
            if render is None:
                render, text = compile_template(request["source"]), ""
            else:
                text = render(request)
            answer = json.dumps({"text": text})
        except TemplateError as error:
            answer = json.dumps({"error": str(error)})
        except (MemoryError, RecursionError, ValueError) as error:
            answer = json.dumps({"error": _line(error)})
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Sequence[str] | None = None,
    sort_keys: bool = False,
) -> str:
    pair = (separators[0], separators[1]) if separators else None
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=pair, sort_keys=sort_keys
    )


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(format: str) -> str:
    return datetime.datetime.now().strftime(format)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


if __name__ == "__main__":
    _serve()
