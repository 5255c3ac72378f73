"""Replace exact text; every byte outside the change stays, whatever the line endings."""

from __future__ import annotations

import bisect

from tools.text.text_file import find_dominant_newline


class NewlineMap:
    """A text with CRLF read as LF, and the map back to the original's positions.

    ``text`` is the normalised text, ``original`` the one it came from.
    """

    def __init__(self, original: str) -> None:
        self.original = original
        self.text = original.replace("\r\n", "\n")
        self._crlf: list[int] = []  # positions in ``text`` of the line feeds that were CRLF
        start = original.find("\r\n")
        while start >= 0:
            self._crlf.append(start - len(self._crlf))
            start = original.find("\r\n", start + 2)

    def position(self, index: int) -> int:
        """Return where ``text[index]`` begins in ``original``."""
        return index + bisect.bisect_left(self._crlf, index)


def find_occurrences(text: str, part: str, *, overlapping: bool) -> list[int]:
    """Find where ``part``, which is not empty, begins in ``text``, in order."""
    step = 1 if overlapping else len(part)
    found: list[int] = []
    start = text.find(part)
    while start >= 0:
        found.append(start)
        start = text.find(part, start + step)
    return found


def line_number(text: str, index: int) -> int:
    """Return the line of ``text[index]``, counted from 1."""
    return text.count("\n", 0, index) + 1


def replace_at(content: NewlineMap, found: list[int], old: str, new: str, newline: str) -> str:
    """Replace ``old`` by ``new`` in the original at each normalised position in ``found``.

    What ``old`` and ``new`` share at both ends is not touched, so unchanged lines keep their
    endings in a file that mixes them. New lines end as the lines they replace, else with
    ``newline``.
    """
    head = count_common_prefix(old, new)
    tail = count_common_prefix(old[head:][::-1], new[head:][::-1])
    middle = new[head : len(new) - tail]
    original = content.original
    pieces: list[str] = []
    done = 0
    for start in found:
        first = content.position(start + head)
        last = content.position(start + len(old) - tail)
        around = original[content.position(start) : content.position(start + len(old))]
        pieces.append(original[done:first])
        pieces.append(middle.replace("\n", find_dominant_newline(around) or newline))
        done = last
    pieces.append(original[done:])
    return "".join(pieces)


def count_common_prefix(one: str, other: str) -> int:
    """Count the characters that both begin with."""
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return length
