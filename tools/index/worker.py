"""The process that parses. It reads requests on its input and writes answers on its output.

A request is a task, a language and a source; an answer is one or more byte strings. The process
limits its own memory, time and files before the first byte, so a source that makes a grammar run
away or crash costs this process and that one answer.
"""

from __future__ import annotations

import json
import resource
import signal
import struct
import sys
from collections.abc import Sequence
from typing import BinaryIO

from tools.index.extract import Extractor, columns_in_characters
from tools.index.tags import pack

REQUEST = struct.Struct("<III")
COUNT = struct.Struct("<I")
MEMORY_BYTES = 3 * 1024**3


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """Read ``size`` bytes. Raises ``EOFError`` if the stream ends before."""
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def read_answer(stream: BinaryIO) -> list[bytes]:
    """Read the parts of one answer. Raises ``EOFError``."""
    (count,) = COUNT.unpack(read_exactly(stream, COUNT.size))
    sizes = [COUNT.unpack(read_exactly(stream, COUNT.size))[0] for _ in range(count)]
    return [read_exactly(stream, size) for size in sizes]


def write_answer(stream: BinaryIO, parts: Sequence[bytes]) -> None:
    """Write the parts that ``read_answer`` reads."""
    stream.write(COUNT.pack(len(parts)))
    for part in parts:
        stream.write(COUNT.pack(len(part)))
    for part in parts:
        stream.write(part)
    stream.flush()


def write_request(stream: BinaryIO, task: str, language: str, source: bytes) -> None:
    """Ask for ``task`` (``tags`` or ``problems``) of a source."""
    words = task.encode(), language.encode()
    stream.write(REQUEST.pack(*map(len, words), len(source)))
    for part in (*words, source):
        stream.write(part)
    stream.flush()


def main(cpu_seconds: float) -> None:
    """Answer until the input ends; ``cpu_seconds`` is what one source may take."""
    _limit()
    extractor = Extractor()
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while head := requests.read(REQUEST.size):
        sizes = REQUEST.unpack(head)
        task, language, source = (read_exactly(requests, size) for size in sizes)
        extractor.load(language.decode())
        # The kernel ends the process when the time is up, also inside the grammar's C code. The
        # time is the processor's, so a busy machine fails no file.
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        answer = _answer(extractor, task.decode(), language.decode(), source)
        signal.setitimer(signal.ITIMER_PROF, 0)
        write_answer(answers, answer)


def _answer(extractor: Extractor, task: str, language: str, source: bytes) -> list[bytes]:
    if task == "tags":
        return list(vars(pack(extractor.tags(language, source))).values())
    problems = columns_in_characters(source, extractor.problems(language, source))
    rows = [[problem.line, problem.column, problem.missing] for problem in problems]
    return [json.dumps(rows).encode()]


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
