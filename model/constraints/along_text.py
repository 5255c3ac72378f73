"""A value that is a part of a given text, long enough to stand there only once."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch

from model.constraints.call_grammar import ValuePlace
from model.constraints.free_value import CLOSE, FreeValue
from model.constraints.text_state import TextState
from model.constraints.token_table import TokenTable
from model.steering import ANY, TokenMask

MOST_BYTES = 200_000
"""In a longer text the search for what may come first would hold up a turn for too long."""
_SET_LENGTH = 12
_MOST_PLACES = 4096
_MARKS = (b"<parameter=", b"</function")


_MARKUP = re.compile(rb"(?:^|\n)</?(?:tool_call|function|parameter)", re.IGNORECASE)


def along_text(text: bytes, place: ValuePlace) -> AlongText | None:
    """Return the state at the beginning of a value that is a part of ``text``.

    None for a text that no value can be bound by: an empty one, one longer than ``MOST_BYTES``, and
    one with lines that begin like markup of a call, in which the value might have no end.
    """
    if not text or len(text) > MOST_BYTES or _MARKUP.search(text):
        return None
    return AlongText(text, place)


class AlongText(TextState):
    """Inside a value that follows a text (see ``along_text``).

    ``written`` is there of it, perhaps with a part of the end tag. ``reading`` is what the parser
    makes of it: where the value ends is its to say.
    """

    def __init__(
        self, text: bytes, place: ValuePlace, reading: FreeValue | None = None, written: bytes = b""
    ) -> None:
        super().__init__()
        self._text, self._place, self._written = text, place, written
        # A value whose end may not come has no end at all.
        self._closings = [CLOSE + mark for mark in _MARKS if place.then(mark, None) is not None]
        self._reading = reading or FreeValue(
            lambda mark: place.then(mark, None), place.awaited, b"\n"
        )

    def _step(self, byte: int) -> TextState | None:
        reading = self._reading.step(byte)
        if reading is None or not isinstance(reading, FreeValue):
            return reading
        if not self._written and 0x80 <= byte < 0xC0:
            return None  # the middle of a character
        written = self._written + bytes([byte])
        if written in self._text or self._ends(written, reading.tail):
            return AlongText(self._text, self._place, reading, written)
        return None

    def _ends(self, written: bytes, tail: bytes) -> bool:
        """Tell whether ``written`` is a value that may end, and ``tail`` a part of its end."""
        if not tail or not written.endswith(tail) or not self._closes(tail):
            return False
        value = written[: -len(tail)]
        first = self._text.find(value)
        if not value or first < 0 or self._text.find(value, first + 1) >= 0:
            return False
        return not _is_cut(value)

    def _closes(self, tail: bytes) -> bool:
        return any(closing.startswith(tail) for closing in self._closings)

    def _find_mask(self, table: TokenTable, stops: list[int]) -> TokenMask:
        if not self._written:
            places = _occurring(self._text, table)
        else:
            places = {at for rest in self._rests(table) for at in self._fitting(rest, table)}
            tail = self._reading.tail
            for end in self._closings if tail and self._written.endswith(tail) else ():
                if end.startswith(tail):
                    places.update(table.beginnings(end[len(tail) :]))
                    places.update(table.starting(end[len(tail) :]))
        fits = [table.ids[at] for at in places if self.feed(table.words[at]) is not None]
        return TokenMask(only=torch.tensor(sorted(fits))) if fits else ANY

    def _rests(self, table: TokenTable) -> set[bytes]:
        """Return the different bytes that follow ``written`` in the text."""
        rests: set[bytes] = set()
        at, length = self._text.find(self._written), len(self._written)
        for _ in range(_MOST_PLACES):
            if at < 0:
                break
            rests.add(self._text[at + length : at + length + table.longest])
            at = self._text.find(self._written, at + 1)
        return rests

    def _fitting(self, rest: bytes, table: TokenTable) -> Iterable[int]:
        """Yield the places of the tokens that go along ``rest``, or leave it for the end tag."""
        places = range(table.count)
        for length in range(len(rest) + 1):
            if length:
                places = table.narrow(places, rest[:length])
            if not places:
                return
            at = places.start
            while length and at < places.stop and len(table.words[at]) == length:
                yield at
                at += 1
            yield from table.narrow(places, rest[:length] + b"\n")


def _occurring(text: bytes, table: TokenTable) -> set[int]:
    """Return the places of all tokens that stand in ``text``."""
    found: set[int] = set()
    parts: set[bytes] = set()
    by_length = table.by_length
    for length in range(1, _SET_LENGTH + 1):
        parts = {text[at : at + length] for at in range(len(text) - length + 1)}
        words = by_length.get(length, {})
        found.update(words[word] for word in parts & words.keys())
    for length, words in by_length.items():
        if length > _SET_LENGTH:
            found.update(
                at for word, at in words.items() if word[:_SET_LENGTH] in parts and word in text
            )
    return found


def _is_cut(value: bytes) -> bool:
    """Tell whether ``value`` ends inside a character."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return True
    return False
