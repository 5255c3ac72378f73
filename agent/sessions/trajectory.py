"""The record of a session: one JSON object a line, only ever appended to.

Each line is flushed and fsynced before the run goes on, so a kill at any moment loses at most the
step under way. A last line that was cut short is ignored by readers and cut off by the next writer.

Each line ends with ``crc``, a CRC-32 over all bytes of the file up to there, so that a bit that
flipped or a line that is gone is found when the file is read. Lines of version 0.1.0 have none.

``agent.sessions.records`` has the types of records and their JSON.

The ids of all ``prompt`` and ``step`` records, joined in order, are the session's ids, as long as
nothing was rewound or cut; ``agent.sessions.history`` knows how in any case.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.errors import TrajectoryError
from agent.sessions.pictures import keep_pictures, place_pictures
from agent.sessions.records import (
    PromptRecord,
    Record,
    WordsRecord,
    record_from_json,
    record_to_json,
)
from agent.types import Compaction, Step
from model.messages import Message
from model.vision.picture import Picture

_CRC = re.compile(rb', "crc": "([0-9a-f]{8})"\}\n\Z')


class TrajectoryWriter:
    """Appends records to a file, and has all of them in memory.

    Raises ``OSError`` when the disk refuses.
    """

    def __init__(self, path: Path, records: Sequence[Record] = ()) -> None:
        """Open the file; ``records`` are those that it has; they are not read again."""
        self.records: list[Record] = list(records)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _cut_torn_line(self._descriptor)
        self._crc = _crc_of(self._descriptor)
        self._folder = path.parent

    def write(self, record: Record) -> None:
        """Append one record and wait until it is on disk, its pictures before it."""
        keep_pictures(self._folder, pictures_of(record))
        body = _dump(record_to_json(record)).encode("ascii")
        line = body[:-1] + b', "crc": "%08x"}\n' % zlib.crc32(body, self._crc)
        view = memoryview(line)
        start = os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)
        except OSError:
            # Half a record would spoil the next one if the disk has room again by then.
            with suppress(OSError):
                os.ftruncate(self._descriptor, start)
            raise
        self._crc = zlib.crc32(line, self._crc)
        self.records.append(record)

    def prompt(
        self,
        messages: Sequence[Message],
        ids: Sequence[int],
        *,
        at: int | None = None,
        tokenizer: str | None = None,
        compacted: Compaction | None = None,
    ) -> None:
        """Append the tokens that were just prefilled, and the messages they spell."""
        self.write(PromptRecord(tuple(messages), tuple(ids), at, tokenizer, compacted))

    def words(self, messages: Sequence[Message]) -> None:
        """Append what a user said after an interrupt, with all that the model is told next."""
        self.write(WordsRecord(tuple(messages)))

    def step(self, step: Step) -> None:
        """Append a finished step."""
        self.write(step)

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_records(path: Path) -> Iterator[Record]:
    """Read the records in order.

    Raises ``TrajectoryError`` for a damaged line that is not the last.
    """
    for number, data in enumerate(read_lines(path), start=1):
        try:
            yield record_from_json(place_pictures(data, path.parent))
        except TrajectoryError as error:
            raise TrajectoryError(f"{path}, line {number}: {error}") from error


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the records as the JSON that they are, without their checksums.

    Raises ``TrajectoryError`` as above.
    """
    crc, checked = 0, False
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            body = line
            if found := _CRC.search(line):
                body = line[: found.start()] + b"}"
            try:
                record = json.loads(body)
            except (ValueError, RecursionError):
                record = None
            if checked or found:
                checked = True
                if found is None or int(found[1], 16) != zlib.crc32(body, crc):
                    record = None
            crc = zlib.crc32(line, crc)
            if not isinstance(record, dict) or "type" not in record:
                raise TrajectoryError(f"{path} is damaged at line {number}; it cannot be read")
            yield record


def pictures_of(record: Record) -> Iterator[Picture]:
    """Yield the pictures of a record's messages and observations."""
    messages = getattr(record, "messages", None) or ()
    for message in messages:
        yield from message.pictures
    if isinstance(record, Step):
        for seen in record.observations:
            yield from (item for item in seen.pictures if isinstance(item, Picture))


def read_steps(path: Path) -> list[Step]:
    """Read the steps of a trajectory."""
    return [record for record in read_records(path) if isinstance(record, Step)]


def session_ids(path: Path) -> list[int]:
    """Read all token ids of the session, prefilled and sampled, in order."""
    ids: list[int] = []
    for record in read_records(path):
        if isinstance(record, PromptRecord):
            ids += record.ids
        elif isinstance(record, Step):
            ids += record.token_ids
    return ids


def _dump(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=True, allow_nan=False, default=str)


def _crc_of(descriptor: int) -> int:
    """Return the CRC-32 of a file."""
    crc = 0
    for start in range(0, os.fstat(descriptor).st_size, 1 << 20):
        crc = zlib.crc32(os.pread(descriptor, 1 << 20, start), crc)
    return crc


def _cut_torn_line(descriptor: int) -> None:
    """Drop what a killed writer left after the last newline."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    position = end
    while position > 0:
        start = max(0, position - 65_536)
        block = os.pread(descriptor, position - start, start)
        newline = block.rfind(b"\n")
        if newline >= 0:
            position = start + newline + 1
            break
        position = start
    if position < end:
        os.ftruncate(descriptor, position)
