"""The processes that parse, started when needed and again after a crash."""

from __future__ import annotations

import os
import queue
import select
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from sandboxes.stop import Stop
from tools.index.tags import Packed
from tools.index.worker import read_answer, write_request

_ROOT = str(Path(__file__).resolve().parents[2])
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from tools.index.worker import main; "
    "main(float(sys.argv[2]))"
)
CPU_SECONDS_A_FILE = 2.0
_WALL_SECONDS_A_FILE = 60.0
_FILES_WORTH_A_WORKER = 40
MAX_WORKERS = 4


class ParseFailed(Exception):
    """A source that took too much time or memory, or crashed the grammar."""


class ParseWorker:
    """One process that parses. Not for several threads at once."""

    def __init__(self, cpu_seconds: float = CPU_SECONDS_A_FILE) -> None:
        """Allow one source ``cpu_seconds`` of processor time."""
        self._cpu_seconds = cpu_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def tags(self, language: str, source: bytes) -> Packed:
        """Return the packed tags of a UTF-8 source. Raises ``ParseFailed``."""
        parts = self._ask("tags", language, source)
        if len(parts) != len(Packed.__dataclass_fields__):
            raise ParseFailed("the parser answered something else")
        return Packed(*parts)

    def problems(self, language: str, source: bytes) -> bytes:
        """Return JSON rows of line, column and what is missing. Raises ``ParseFailed``."""
        return self._ask("problems", language, source)[0]

    def close(self) -> None:
        """End the process. It may be used again afterwards, in a new process."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _ask(self, task: str, language: str, source: bytes) -> list[bytes]:
        process = self._process
        if process is None or process.poll() is not None:
            self.close()
            process = self._process = _start(self, self._cpu_seconds)
        assert process.stdin is not None and process.stdout is not None
        try:
            write_request(process.stdin, task, language, source)  # type: ignore[arg-type]
            ready, _, _ = select.select([process.stdout], [], [], _WALL_SECONDS_A_FILE)
            if not ready:
                raise ParseFailed("no answer in time")
            return read_answer(process.stdout)  # type: ignore[arg-type]
        except (OSError, EOFError):
            self.close()
            raise ParseFailed("the parser ended") from None
        except BaseException:
            self.close()
            raise


class ParseWorkers:
    """A pool with a worker for each processor; the first is kept, the others end after a batch."""

    def __init__(self, cpu_seconds: float = CPU_SECONDS_A_FILE) -> None:
        self._cpu_seconds = cpu_seconds
        self.first = ParseWorker(cpu_seconds)

    def tags_of(
        self,
        sources: Sequence[Callable[[], tuple[str, bytes] | None]],
        stop: Stop,
    ) -> Iterator[tuple[int, Packed | None]]:
        """Yield each source's index and tags as they become ready; None if it cannot be parsed.

        A source is a function that gives the language and the text, or None if it is not there any
        more (then nothing is yielded for it). Ends early once ``stop`` is set.
        """
        count = min(MAX_WORKERS, _count_processors(), 1 + len(sources) // _FILES_WORTH_A_WORKER)
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(sources)):
            waiting.put(index)
        done: queue.Queue[tuple[int, Packed | None] | BaseException | None] = queue.Queue(256)
        over = stop.joined()

        def work(worker: ParseWorker) -> None:
            try:
                while not over.is_set():
                    index = waiting.get_nowait()
                    source = sources[index]()
                    if source is not None:
                        done.put((index, _try_tags(worker, *source)))
            except queue.Empty:
                pass
            except BaseException as error:
                done.put(error)
            finally:
                if worker is not self.first:
                    worker.close()
                done.put(None)

        workers = [self.first, *(ParseWorker(self._cpu_seconds) for _ in range(count - 1))]
        threads = [threading.Thread(target=work, args=[w], daemon=True) for w in workers]
        for thread in threads:
            thread.start()
        running = len(threads)
        try:
            while running:
                item = done.get()
                if item is None:
                    running -= 1
                elif isinstance(item, BaseException):
                    raise item
                else:
                    yield item
                if stop.is_set():
                    break
        finally:
            over.cancel()
            while running:
                running -= done.get() is None
            for thread in threads:
                thread.join()

    def close(self) -> None:
        """End the kept worker."""
        self.first.close()


def _try_tags(worker: ParseWorker, language: str, source: bytes) -> Packed | None:
    try:
        return worker.tags(language, source)
    except ParseFailed:
        return None


def _start(owner: ParseWorker, cpu_seconds: float) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        # Isolated: no setting of the user's and no module of the current folder gets in.
        [sys.executable, "-I", "-c", _START, _ROOT, str(cpu_seconds)],
        cwd="/",
        env={},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    weakref.finalize(owner, _end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    streams: tuple[BinaryIO | None, ...] = (process.stdin, process.stdout)  # type: ignore[assignment]
    for stream in streams:
        if stream is not None:
            with suppress(OSError):
                stream.close()


def _count_processors() -> int:
    return len(os.sched_getaffinity(0))
