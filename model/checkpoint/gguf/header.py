"""Read the header of a GGUF file of version 2 or 3, any number of which may be a lie."""

from __future__ import annotations

import math
import mmap
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.checkpoint.files import require_plain
from model.checkpoint.gguf.blocks import BLOCKS
from model.errors import CheckpointError

_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_MOST_TENSORS = 1 << 18
_MOST_KEYS = 1 << 14
_MOST_TEXT = 16 << 20
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class StoredBlocks:
    """Where a tensor lies: its type, its shape in row-major order, and its bytes in the file."""

    kind: int
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclass
class GgufFile:
    """One GGUF file: its metadata, and its tensors mapped into memory."""

    path: Path
    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, StoredBlocks] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> GgufFile:
        """Read the header and check it against the file. Raises ``CheckpointError``."""
        size = require_plain(path)
        if size < 24:
            raise CheckpointError(f"{path} is truncated; fetch it again")
        made = cls(path)
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
                _Reader(path, data, size).read(made)
        except (struct.error, UnicodeDecodeError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{path} is truncated or damaged ({' '.join(str(error).split())[:100]});"
                " fetch it again"
            ) from error
        return made

    def raw(self, name: str) -> Tensor:
        """Map the bytes of a tensor: uint8 ``[rows, row bytes]``."""
        found = self.tensors[name]
        mapped = np.memmap(self.path, np.uint8, "c", found.start, (found.nbytes,))
        rows = math.prod(found.shape[:-1])
        return torch.from_numpy(mapped).reshape(rows, -1)


class _Reader:
    """A position in a file, and what may be read from there."""

    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self._path, self._data, self._size = path, data, size
        self._at = 0

    def read(self, into: GgufFile) -> None:
        if self._data[:4] != b"GGUF":
            raise self._wrong("is no GGUF file")
        self._at = 4
        version = self._number("I")
        if version not in (2, 3):
            raise self._wrong(f"is GGUF of version {version}; versions 2 and 3 are read")
        tensors, keys = self._number("Q"), self._number("Q")
        if tensors > _MOST_TENSORS or keys > _MOST_KEYS:
            raise self._wrong(f"claims {tensors} tensors and {keys} keys, which is not believable")
        for _ in range(keys):
            key = self._text()
            into.metadata[key] = self._value(self._number("I"))
        found = [self._tensor() for _ in range(tensors)]
        align = into.metadata.get("general.alignment", 32)
        if not isinstance(align, int) or align < 8 or align & (align - 1):
            raise self._wrong(f"has an alignment of {align}, which is no power of two from 8 on")
        base = -(-self._at // align) * align
        end = 0
        for name, kind, shape, offset, nbytes in sorted(found, key=lambda entry: entry[3]):
            if name in into.tensors:
                raise self._wrong(f"names {name} twice")
            if offset % align or offset < end:
                raise self._wrong(f"places {name} inside another tensor")
            end = offset + nbytes
            if base + end > self._size:
                raise self._wrong(f"ends inside {name}: it is truncated")
            into.tensors[name] = StoredBlocks(kind, shape, base + offset, nbytes)

    def _tensor(self) -> tuple[str, int, tuple[int, ...], int, int]:
        name = self._text()
        dimensions = self._number("I")
        if not 0 < dimensions <= 4:
            raise self._wrong(f"gives {name[:80]} {dimensions} dimensions")
        shape = tuple(reversed([self._number("Q") for _ in range(dimensions)]))
        kind, offset = self._number("I"), self._number("Q")
        block = BLOCKS.get(kind)
        if block is None:
            raise self._wrong(
                f"stores {name[:80]} in a type that is not supported (number {kind});"
                " use another quantisation of the model"
            )
        if not all(0 < n < 1 << 40 for n in shape) or math.prod(shape) > 1 << 48:
            raise self._wrong(f"gives {name[:80]} the shape {list(shape)}")
        if shape[-1] % block.size:
            raise self._wrong(
                f"stores {name[:80]} {list(shape)} as {block.name}, whose blocks of {block.size} do"
                " not divide its rows"
            )
        return name, kind, shape, offset, math.prod(shape) // block.size * block.nbytes

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack_from("<" + form, self._data, self._at)
        self._at += struct.calcsize("<" + form)
        return value

    def _text(self) -> str:
        length = self._number("Q")
        if length > min(_MOST_TEXT, self._size - self._at):
            raise self._wrong(f"holds a text of {length} bytes, which is not believable")
        text = self._data[self._at : self._at + length]
        self._at += length
        return text.decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind != _ARRAY:
            raise self._wrong(f"has a value of the unknown type {kind}")
        inner, count = self._number("I"), self._number("Q")
        if inner == _STRING:
            if count * 8 > self._size - self._at:
                raise self._wrong(f"holds an array of {count} texts, which is not believable")
            return [self._text() for _ in range(count)]
        if inner not in _NUMBERS:
            raise self._wrong(f"has an array of the type {inner}")
        form = f"<{count}{_NUMBERS[inner]}"
        width = struct.calcsize("<" + _NUMBERS[inner])
        if count * width > self._size - self._at:
            raise self._wrong(f"holds an array of {count} numbers, which is not believable")
        values = struct.unpack_from(form, self._data, self._at)
        self._at += count * width
        return list(values)

    def _wrong(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self._path} {what}; fetch it again, or use another checkpoint")


def open_files(path: Path) -> list[GgufFile]:
    """Open a GGUF file and, of one that is split, all its parts, in order.

    Raises ``CheckpointError`` if a part is missing or does not belong to the others.
    """
    first = GgufFile.open(path)
    count = first.metadata.get("split.count", 1)
    if count in (0, 1):
        return [first]
    named = _SPLIT.fullmatch(path.name)
    if named is None or not isinstance(count, int) or int(named[3]) != count:
        raise CheckpointError(
            f"{path} is one of {count} parts, but its name does not end in -00001-of-"
            f"{count:05d}.gguf; give the parts their names back"
        )
    files = []
    for number in range(1, count + 1):
        part = path.with_name(f"{named[1]}-{number:05d}-of-{named[3]}.gguf")
        if not part.exists():
            raise CheckpointError(f"{part} is missing, one of {count} parts; fetch it")
        opened = first if part == path else GgufFile.open(part)
        if opened.metadata.get("split.count") != count:
            raise CheckpointError(f"{part} is no part of {path}; fetch it again")
        files.append(opened)
    return files
