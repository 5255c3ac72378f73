"""The tags of one file (definitions and mentions), and their form in the cache.

The form is JSON for what has text and plain 32-bit integers for the rest: data from a cache is
read, never executed.
"""

from __future__ import annotations

import json
from array import array
from dataclasses import astuple, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Definition:
    """One definition. Lines count from 1; ``depth`` is how many definitions are around it.

    ``parent`` names these, with dots (for Go and C++ also the type a method belongs to). ``local``
    says that one of them is a function, so nobody outside can mean it.
    """

    name: str
    kind: str
    line: int
    last: int
    depth: int
    parent: str
    signature: str
    local: bool = False


def _make_integers() -> array[int]:
    return array("I")


@dataclass(frozen=True)
class Tags:
    """The definitions of a file, and the names it mentions elsewhere.

    ``names[i]`` is mentioned on ``counts[i]`` lines, ``weights[i]`` times in a place that reaches
    out (a call, a type, an import). ``lines`` holds the line numbers, one name after the other.
    """

    definitions: tuple[Definition, ...] = ()
    names: tuple[str, ...] = ()
    weights: array[int] = field(default_factory=_make_integers)
    counts: array[int] = field(default_factory=_make_integers)
    lines: array[int] = field(default_factory=_make_integers)

    def lines_of(self, name: str) -> list[int]:
        """Return the lines that mention ``name``, in order."""
        if name not in self.names:
            return []
        index = self.names.index(name)
        start = sum(self.counts[:index])
        return list(self.lines[start : start + self.counts[index]])


@dataclass(frozen=True)
class SyntaxProblem:
    """A place that does not parse: line and column from 1, and what is missing, if known."""

    line: int
    column: int
    missing: str


@dataclass(frozen=True)
class Packed:
    """``Tags`` as bytes. ``outline`` has the definitions; ``names`` and ``weights`` the rest.

    ``defined`` repeats the names of the definitions, so that a search need not read ``outline``:
    one a line, then an empty line, then those inside functions.
    """

    outline: bytes
    defined: bytes
    names: bytes
    weights: bytes
    counts: bytes
    lines: bytes


def pack(tags: Tags) -> Packed:
    """Pack tags into the bytes that ``unpack`` reads."""
    outline = [astuple(definition) for definition in tags.definitions]
    return Packed(
        outline=json.dumps(outline, separators=(",", ":")).encode(),
        defined="\n\n".join(
            "\n".join(
                definition.name.replace("\n", " ")
                for definition in tags.definitions
                if definition.local is local and definition.kind != "impl" and definition.name
            )
            for local in (False, True)
        ).encode("utf-8", "replace"),
        names="\n".join(tags.names).encode("utf-8", "replace"),
        weights=tags.weights.tobytes(),
        counts=tags.counts.tobytes(),
        lines=tags.lines.tobytes(),
    )


def unpack(packed: Packed) -> Tags:
    """Unpack tags. Raises ``ValueError`` if ``packed`` is not what ``pack`` makes."""
    names = tuple(split_names(packed.names))
    weights, counts, lines = (
        _read_integers(data) for data in (packed.weights, packed.counts, packed.lines)
    )
    if not len(names) == len(weights) == len(counts) or sum(counts) != len(lines):
        raise ValueError("the parts do not fit each other")
    return Tags(unpack_outline(packed.outline), names, weights, counts, lines)


def unpack_outline(data: bytes) -> tuple[Definition, ...]:
    """Unpack the definitions alone. Raises ``ValueError``."""
    rows = json.loads(data)
    if not isinstance(rows, list):
        raise ValueError("no list of definitions")
    return tuple(_read_definition(row) for row in rows)


def split_names(data: bytes) -> list[str]:
    """Split the names that ``pack`` joined. Raises ``ValueError``."""
    return data.decode("utf-8").split("\n") if data else []


def _read_definition(row: Any) -> Definition:
    kinds = (str, str, int, int, int, str, str, bool)
    if not isinstance(row, list) or [type(value) for value in row] != list(kinds):
        raise ValueError("no definition")
    return Definition(*row)


def _read_integers(data: bytes) -> array[int]:
    values = array("I")
    values.frombytes(data)
    return values
