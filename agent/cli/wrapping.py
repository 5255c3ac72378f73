"""Text that comes in pieces, broken between words at the terminal's width."""

from __future__ import annotations

import re

from rich.cells import cell_len

_PARTS = re.compile(r"\n|[^\S\n]+|\S+")


class WordWrap:
    """Takes pieces of text and gives them back with line ends between words.

    A word is held until it is complete. Only one that is longer than a line is broken.
    """

    def __init__(self, width: int) -> None:
        self._width = max(width, 1)
        self._column = 0
        self._space = ""
        self._word = ""

    def push(self, text: str) -> str:
        """Return what can be shown once ``text`` has come."""
        parts = _PARTS.findall(self._word + text)
        self._word = parts.pop() if parts and not parts[-1].isspace() else ""
        return "".join(self._place(part) for part in parts)

    def finish(self) -> str:
        """Return what was held."""
        word, self._word = self._word, ""
        return self._place(word) if word else ""

    def _place(self, part: str) -> str:
        if part == "\n":
            self._column, self._space = 0, ""
            return part
        if part.isspace():
            # Spaces at the end of a line are not shown, so that they begin none.
            self._space = part.replace("\t", "    ")
            return ""
        space, self._space = self._space, ""
        length = cell_len(space) + cell_len(part)
        if self._column and self._column + length > self._width:
            self._column = cell_len(part) % self._width
            return f"\n{part}"
        self._column += length
        return space + part
