"""A value that is one of very many texts, such as the paths of a repository."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from model.constraints.call_grammar import AfterValue, ValuePlace
from model.constraints.free_value import CLOSE
from model.constraints.text_state import Choices, TextState, either


class ListedValue(TextState):
    """Inside a value that is one of ``words`` (sorted, unique, none empty), of which those at
    ``places`` begin with the ``length`` bytes that were written."""

    def __init__(
        self,
        words: Sequence[bytes],
        place: ValuePlace,
        places: range | None = None,
        length: int = 0,
    ) -> None:
        super().__init__()
        self._words, self._place, self._length = words, place, length
        self._places = range(len(words)) if places is None else places

    def firsts(self) -> Iterable[int]:
        """Return the bytes that come next in any of the words."""
        found, at = [], self._places.start
        while at < self._places.stop:
            byte = self._words[at][self._length]
            found.append(byte)
            at = self._with(byte, at).stop
        return found

    def _with(self, byte: int, start: int) -> range:
        """Return the places from ``start`` on of the words whose next byte is ``byte``."""
        prefix = self._words[self._places.start][: self._length]
        low = bisect_left(self._words, prefix + bytes([byte]), start, self._places.stop)
        after = prefix + bytes([byte + 1]) if byte < 255 else None
        stop = self._places.stop
        return range(low, stop if after is None else bisect_left(self._words, after, low, stop))

    def _step(self, byte: int) -> TextState | None:
        found = self._with(byte, self._places.start)
        states: list[TextState] = []
        if found and len(self._words[found.start]) == self._length + 1:
            word = self._words[found.start]
            states.append(Choices([(CLOSE, AfterValue(self._place, word))]))
            found = range(found.start + 1, found.stop)
        if found:
            states.append(ListedValue(self._words, self._place, found, self._length + 1))
        return either(states)
