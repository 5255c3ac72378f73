"""The processes that parse: what they answer, and what becomes of them."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from sandboxes.stop import Stop
from tools.index.extract import Extractor
from tools.index.parsing import ParseFailed, ParseWorker, ParseWorkers
from tools.index.tags import Packed, pack, unpack

SOURCE = b"def total(items):\n    return sum(items)\n"


def alive(pid: int) -> bool:
    """Whether ``pid`` runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pid_of(worker: ParseWorker) -> int:
    process = worker._process
    assert process is not None
    return process.pid


@pytest.fixture
def worker():
    made = ParseWorker()
    yield made
    made.close()


def test_the_answer_is_that_of_the_extractor(worker: ParseWorker) -> None:
    expected = Extractor().tags("python", SOURCE)
    assert worker.tags("python", SOURCE) == pack(expected)
    assert unpack(worker.tags("python", SOURCE)) == expected
    assert worker.problems("json", b"[1,") != b"[]"


def test_one_process_serves_many_requests(worker: ParseWorker) -> None:
    worker.tags("python", SOURCE)
    first = pid_of(worker)
    worker.tags("go", b"package a\n")
    assert pid_of(worker) == first


def test_a_source_that_takes_too_long_ends_the_process_and_not_us() -> None:
    worker = ParseWorker(cpu_seconds=0.1)
    slow = b"x = [" + b"a.b(c)," * 140_000 + b"]"
    with pytest.raises(ParseFailed):
        worker.tags("python", slow)
    assert unpack(worker.tags("python", b"def f(): pass\n")).definitions[0].name == "f"
    worker.close()


def test_a_killed_process_is_replaced(worker: ParseWorker) -> None:
    worker.tags("python", SOURCE)
    first = pid_of(worker)
    os.kill(first, 9)
    try:
        worker.tags("python", SOURCE)
    except ParseFailed:
        worker.tags("python", SOURCE)
    assert pid_of(worker) != first
    assert not alive(first)


def test_no_process_outlives_its_owner() -> None:
    worker = ParseWorker()
    worker.tags("python", SOURCE)
    pid = pid_of(worker)
    assert alive(pid)
    del worker
    gc.collect()
    assert not alive(pid)


def test_the_process_has_nothing_of_our_environment(worker: ParseWorker, monkeypatch) -> None:
    monkeypatch.setenv("SOME_SECRET", "value")
    worker.tags("python", SOURCE)
    pid = pid_of(worker)
    assert b"SOME_SECRET" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert str(Path(f"/proc/{pid}/cwd").readlink()) == "/"
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert [
        line.split()[3:5] for line in limits.split("\n") if line.startswith("Max file size")
    ] == [["0", "0"]]


def test_many_sources_by_several_workers() -> None:
    workers = ParseWorkers()
    sources = [lambda n=n: ("python", f"def f{n}(): pass\n".encode()) for n in range(200)]
    sources[7] = lambda: None
    found: dict[int, Packed | None] = dict(workers.tags_of(sources, Stop()))
    assert set(found) == set(range(200)) - {7}
    for number, packed in found.items():
        assert packed is not None
        assert unpack(packed).definitions[0].name == f"f{number}"
    workers.close()


def test_a_batch_can_be_stopped() -> None:
    workers = ParseWorkers()
    sources = [lambda: ("python", b"x = 1\n")] * 500
    found = list(workers.tags_of(sources, Stop(after_s=0)))
    assert len(found) < 500
    workers.close()


def test_an_error_in_a_source_comes_to_the_caller() -> None:
    def broken() -> tuple[str, bytes]:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(ParseWorkers().tags_of([broken] * 100, Stop()))
