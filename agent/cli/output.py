"""Write to stdout and stderr: the one place that everything a person reads passes.

On a terminal control characters are shown as pictures; a reader that has gone is no error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import IO, Any

from agent.text import visible


class Output(StrEnum):
    """Format in which a result is written to stdout."""

    TEXT = "text"
    JSON = "json"
    STREAM_JSON = "stream-json"


_GREEN, _RED, _CYAN, _BOLD, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[36m", "\x1b[1m", "\x1b[0m"


def write_out(text: str) -> None:
    """Write to stdout and flush: as it is to a file or pipe, made visible on a terminal.

    Bytes that came as surrogates go out as the bytes they were. A closed pipe is no error: the rest
    of the output goes nowhere.
    """
    _write(sys.stdout, _shown(sys.stdout, text))


def write_err(text: str) -> None:
    """Write to stderr and flush, like ``write_out``."""
    _write(sys.stderr, _shown(sys.stderr, text))


def _shown(stream: IO[str] | None, text: str) -> str:
    """Return ``text`` as ``stream`` takes it: a terminal is never steered by what is written."""
    return visible(text) if is_terminal(stream) else text


def write_json(data: Mapping[str, Any]) -> None:
    """Write one JSON object as one line to stdout, in ASCII, whatever is in it."""
    write_out(json.dumps(data, ensure_ascii=True, allow_nan=False, default=str) + "\n")


def write_patch(patch: str) -> None:
    """Write a patch to stdout: exactly its bytes to a file or pipe, coloured on a terminal."""
    if not is_terminal(sys.stdout) or "NO_COLOR" in os.environ:
        write_out(patch)
        return
    for line in patch.removesuffix("\n").split("\n") if patch else ():
        _write(sys.stdout, f"{_colour(line)}{visible(line)}{_PLAIN}\n")


def is_terminal(stream: IO[str] | None) -> bool:
    """Tell whether a person is likely to look at ``stream``; False if it is closed."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def at_terminal() -> bool:
    """Tell whether a person reads and types at this process's stdin and stdout."""
    return is_terminal(sys.stdin) and is_terminal(sys.stdout)


def _write(stream: IO[str] | None, text: str) -> None:
    if stream is None:
        return
    try:
        buffer = getattr(stream, "buffer", None)
        if buffer is None:
            stream.write(text)
        else:
            stream.flush()
            buffer.write(text.encode("utf-8", "surrogateescape"))
        stream.flush()
    except UnicodeEncodeError:
        _write(stream, text.encode("utf-8", "replace").decode("utf-8"))
    except (BrokenPipeError, ValueError):
        _to_nowhere(stream)


def _to_nowhere(stream: IO[str]) -> None:
    """Point the stream at /dev/null, so that the interpreter's own flush at exit is quiet too."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _colour(line: str) -> str:
    if line.startswith(("diff ", "index ", "+++", "---")):
        return _BOLD
    if line.startswith("@@"):
        return _CYAN
    if line.startswith("+"):
        return _GREEN
    return _RED if line.startswith("-") else ""
