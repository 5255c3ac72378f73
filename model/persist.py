"""Saved sessions on disk: one JSON record, and safetensors files that never change.

``session_state.json`` is the record. It names, with their SHA-256, the files under ``state/``:
``span-START-END-HASH`` hold the token ids and keys and values of those positions, and
``point-HASH`` what has a fixed size (DeltaNet states, logits, the random generator). A save writes
only the positions that are new since the last one, and a new point; the rest is kept, or linked
from where an earlier save of the same session has it. Renaming the record is the moment the new
save takes effect, and what it does not name is removed afterwards: a kill at any point leaves the
old save or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from kernels.storage import write_named, write_whole
from model.errors import StateError

RECORD = "session_state.json"
_FORMAT = 2
_MOST_SPANS = 256
"""With more files than this the next save writes all positions into one."""

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Span:
    """A saved file of positions ``start`` to ``end``, and where it was written."""

    start: int
    end: int
    path: Path
    sha256: str


@dataclass(frozen=True)
class Saved:
    """A saved session as ``read`` finds it: the record, the point's tensors, and its spans."""

    record: dict[str, Any]
    point: dict[str, Tensor]
    spans: tuple[Span, ...]

    def tensors(self) -> Iterator[dict[str, Tensor]]:
        """Yield the tensors of each span in turn. Raises ``StateError`` if one is damaged."""
        for span in self.spans:
            yield _read(span.path, span.sha256)


def write(
    directory: Path,
    record: Mapping[str, Any],
    point: Tensors,
    length: int,
    known: Sequence[Span],
    cut: Callable[[int, int], Tensors],
) -> tuple[Span, ...]:
    """Save a session of ``length`` positions into ``directory``; returns the spans it consists of.

    ``known`` are the spans that earlier saves of this very sequence wrote, anywhere; ``cut(start,
    end)`` gives the tensors of a span that is not there. Raises ``StateError`` if it cannot be
    written; an earlier save there then still stands.
    """
    folder = directory / "state"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        spans = _adopt(folder, known, length)
        start = spans[-1].end if spans else 0
        if start < length:
            name = f"span-{start:09}-{length:09}"
            spans.append(Span(start, length, *_write(folder, name, cut(start, length))))
        place, digest = _write(folder, "point", point)
        body = {
            **record,
            "format": _FORMAT,
            "spans": [[s.start, s.end, s.path.name, s.sha256] for s in spans],
            "point": [place.name, digest],
        }
        with write_whole(directory / RECORD) as draft:
            draft.write_text(json.dumps({**body, "checksum": _checksum(body)}), encoding="utf-8")
        # The save before this one, and what a killed process left.
        named = {place, *(span.path for span in spans)}
        for old in (*folder.iterdir(), *directory.glob(f".{RECORD}-*")):
            if old not in named:
                old.unlink()
    except (OSError, SafetensorError) as error:
        remedy = "; free some space there" if "No space left" in str(error) else ""
        raise StateError(f"cannot save the session in {directory}: {error}{remedy}") from error
    return tuple(spans)


def read(directory: Path, fingerprint: str) -> Saved:
    """Read a session that ``write`` left.

    Raises ``StateError`` if there is nothing, if a file was damaged, or if the record's
    ``fingerprint`` is another one.
    """
    path = directory / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StateError(f"there is no saved session in {directory}") from error
    except (OSError, ValueError) as error:
        raise StateError(f"{path} is damaged or unreadable: {error}") from error
    if not isinstance(record, dict) or record.pop("checksum", None) != _checksum(record):
        raise StateError(f"{path} is damaged: its checksum does not match")
    if record.get("format") != _FORMAT:
        raise StateError(f"{path} has format {record.get('format')}; this version reads {_FORMAT}")
    if record.get("fingerprint") != fingerprint:
        raise StateError(f"the session in {directory} was made with another model; load that one")
    folder = directory / "state"
    try:
        spans = tuple(
            Span(int(start), int(end), folder / Path(name).name, str(digest))
            for start, end, name, digest in record["spans"]
        )
        name, digest = record["point"]
        point = folder / Path(name).name
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path} is malformed: {error}") from error
    if [span.start for span in spans] != [0, *(span.end for span in spans)][: len(spans)]:
        raise StateError(f"{path} contradicts itself: its spans do not follow each other")
    return Saved(record, _read(point, digest), spans)


def saved_length(directory: Path) -> int:
    """Return how many tokens a saved session has; 0 if there is none or it cannot be read."""
    try:
        record = json.loads((directory / RECORD).read_bytes())
        return max((int(end) for _start, end, _name, _digest in record["spans"]), default=0)
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def _adopt(folder: Path, known: Sequence[Span], length: int) -> list[Span]:
    """Return the spans of ``known`` that lie before ``length`` without a gap and are, or can be
    linked or copied, here.
    """
    spans: list[Span] = []
    if len(known) >= _MOST_SPANS:
        return spans
    for span in known:
        here = folder / span.path.name
        if span.end > length:
            break
        if not here.exists():
            try:
                _link(span.path, here)
            except FileNotFoundError:
                break
        spans.append(Span(span.start, span.end, here, span.sha256))
    return spans


def _link(source: Path, target: Path) -> None:
    """Have the file under another name too; copied where links are not to be had."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        with write_whole(target) as draft:
            shutil.copyfile(source, draft)


def _write(folder: Path, name: str, tensors: Tensors) -> tuple[Path, str]:
    """Write a file of tensors under ``name`` and its hash, whole or not at all."""
    with write_named(folder, ".writing-") as draft:
        save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, draft.file)
        digest = _digest(draft.file)
        target = draft.keep_as(f"{name}-{digest[:16]}.safetensors")
    return target, digest


def _read(file: Path, sha256: str) -> dict[str, Tensor]:
    """Read a file's tensors, proven to be those that were written."""
    try:
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StateError(f"{file} is damaged: its checksum does not match")
        return load(data)
    except (OSError, SafetensorError) as error:
        raise StateError(f"{file} is missing or unreadable: {error}") from error


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
