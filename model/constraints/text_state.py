"""States of a text that is written byte by byte, and the mask for its next token.

A state knows which bytes may follow and where each leads. Steps and masks are kept with it, so that
the same place in a text costs its search but once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from model.constraints.token_table import TokenTable
from model.steering import ANY, TokenMask


class TextState:
    """One place in a text. Subclasses say what may follow in ``_step``.

    A ``free`` state takes nearly every token, so its mask lists those that it does not take; any
    other lists those that it takes. Inside a ``call`` a turn must not end.
    """

    free = False
    call = True

    def __init__(self) -> None:
        self._steps: dict[int, TextState | None] = {}
        self._mask: TokenMask | None = None

    def step(self, byte: int) -> TextState | None:
        """Return the state after ``byte``; None if it may not come."""
        if byte not in self._steps:
            self._steps[byte] = self._step(byte)
        return self._steps[byte]

    def feed(self, text: bytes) -> TextState | None:
        """Return the state after ``text``; None if it may not come."""
        state: TextState | None = self
        for byte in text:
            if state is None:
                return None
            state = state.step(byte)
        return state

    def mask(self, table: TokenTable, stops: Iterable[int]) -> TokenMask:
        """Return what may come next; ``stops`` are the ids that end a turn."""
        if self._mask is None:
            self._mask = self._find_mask(table, list(stops) if self.call else [])
        return self._mask

    def firsts(self) -> Iterable[int]:
        """Return the bytes that may follow, and perhaps others; only for a state that is not
        free."""
        return range(256)

    def suspects(self, table: TokenTable) -> Iterable[int]:
        """Return the places in ``table.words`` of tokens that a free state may refuse."""
        return table.marked

    def _step(self, byte: int) -> TextState | None:
        raise NotImplementedError

    def _find_mask(self, table: TokenTable, stops: list[int]) -> TokenMask:
        if self.free:
            words, ids = table.words, table.ids
            refused = {ids[at] for at in self.suspects(table) if self.feed(words[at]) is None}
            ids_out = sorted(refused.union(stops))
            return TokenMask(without=torch.tensor(ids_out)) if ids_out else ANY
        taken: list[int] = []
        self._gather(table, range(table.count), b"", taken)
        if not taken:
            return ANY  # no token spells what would have to come: the turn goes on unbound
        return TokenMask(only=torch.tensor(sorted(taken)))

    def _gather(self, table: TokenTable, places: range, prefix: bytes, taken: list[int]) -> None:
        """Add the ids of the words at ``places``, which all begin with ``prefix``, that fit."""
        for byte in self.firsts():
            longer = prefix + bytes([byte])
            found = table.narrow(places, longer)
            if not found or (state := self.step(byte)) is None:
                continue
            at = found.start
            while at < found.stop and len(table.words[at]) == len(longer):
                taken.append(table.ids[at])
                at += 1
            rest = range(at, found.stop)
            if state.free:
                taken += (table.ids[i] for i in rest if state.feed(table.words[i][len(longer) :]))
            elif rest:
                state._gather(table, rest, longer, taken)


class Choices(TextState):
    """One of several texts comes, each with the state that it leads to."""

    def __init__(self, choices: Iterable[tuple[bytes, TextState]]) -> None:
        super().__init__()
        self._choices = tuple(choices)

    def firsts(self) -> Iterable[int]:
        return {text[0] for text, _ in self._choices}

    def _step(self, byte: int) -> TextState | None:
        ends: list[TextState] = []
        rest: list[tuple[bytes, TextState]] = []
        for text, then in self._choices:
            if text[0] != byte:
                continue
            if len(text) == 1:
                ends.append(then)
            else:
                rest.append((text[1:], then))
        return either([*ends, *([Choices(rest)] if rest else [])])


class Either(TextState):
    """Several states at once: whatever any of them takes may come."""

    def __init__(self, states: tuple[TextState, ...]) -> None:
        super().__init__()
        self._states = states

    def firsts(self) -> Iterable[int]:
        return {byte for state in self._states for byte in state.firsts()}

    def _step(self, byte: int) -> TextState | None:
        found = (state.step(byte) for state in self._states)
        return either([state for state in found if state is not None])


def either(states: list[TextState]) -> TextState | None:
    """Return the state that takes what any of ``states`` takes; None if there are none.

    A free one among them takes everything that the others do.
    """
    unique = list(dict.fromkeys(states))
    if not unique:
        return None
    free = next((state for state in unique if state.free), None)
    return free or (unique[0] if len(unique) == 1 else Either(tuple(unique)))


class Number(TextState):
    """A number in JSON's form, or only a whole one; after it comes what ``then`` takes.

    ``written`` is there of it. It stays finite as a float, and no longer than ``_LONGEST``.
    """

    _LONGEST = 300

    _AFTER: dict[str, str] = {  # noqa: RUF012
        "start": "-0d",
        "minus": "0d",
        "zero": ".e",
        "digits": "d0.e",
        "point": "d0",
        "fraction": "d0e",
        "e": "+d0",
        "sign": "d0",
        "power": "d0",
    }
    _ENDS = ("zero", "digits", "fraction", "power")

    def __init__(
        self, then: TextState, *, whole: bool, place: str = "start", written: str = ""
    ) -> None:
        super().__init__()
        self._then, self._whole, self._place, self._written = then, whole, place, written

    def firsts(self) -> Iterable[int]:
        ends = self._then.firsts() if self._place in self._ENDS else ()
        return {*b"-+.eE0123456789", *ends}

    def _step(self, byte: int) -> TextState | None:
        place, written = self._next(chr(byte)), self._written + chr(byte)
        if place is not None:
            too_long = len(written) > self._LONGEST
            if too_long or (place in self._ENDS and math.isinf(float(written))):
                return None
            return Number(self._then, whole=self._whole, place=place, written=written)
        return self._then.step(byte) if self._place in self._ENDS else None

    def _next(self, char: str) -> str | None:
        kind = {"-": "-", "+": "+", ".": ".", "e": "e", "E": "e", "0": "0"}.get(char)
        kind = "d" if kind is None and char in "123456789" else kind
        place = self._place
        if kind == "-" and place == "e":
            kind = "+"
        if kind is None or kind not in self._AFTER[place] or (self._whole and kind in ".e"):
            return None
        if kind in "d0":
            if place in ("start", "minus"):
                return "zero" if kind == "0" else "digits"
            return {"point": "fraction", "e": "power", "sign": "power"}.get(place, place)
        return {"-": "minus", ".": "point", "e": "e", "+": "sign"}[kind]
