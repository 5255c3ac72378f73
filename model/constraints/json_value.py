"""A JSON array or object, written byte by byte: its syntax, not the schema of what is in it."""

from __future__ import annotations

from collections.abc import Iterable

from model.chat.arguments import MAX_DEPTH
from model.constraints.text_state import TextState
from model.constraints.token_table import TokenTable

_HEX = b"0123456789abcdefABCDEF"
_SPACE = b" \t\n\r"
_WORDS = (b"true", b"false", b"null")
_NUMBER = {
    "minus": "0d",
    "zero": ".e",
    "digits": "0d.e",
    "point": "0d",
    "fraction": "0de",
    "e": "0d+",
    "sign": "0d",
    "power": "0d",
}
_NUMBER_ENDS = ("zero", "digits", "fraction", "power")
_STRINGS = ("text", "key")


class JsonValue(TextState):
    """Inside a JSON value. ``stack`` are its open brackets, ``place`` what is being written.

    Places are ``value`` and ``first`` (the same, or the end of an empty container), ``after`` a
    value, ``colon``, ``name`` (a key must come), ``text`` and ``key`` (inside a string), the same
    with ``\\`` or ``\\uN`` for an escape, parts of numbers, and ``word:`` with what is left of
    true, false and null.
    """

    def __init__(
        self,
        then: TextState,
        stack: bytes = b"",
        place: str = "value",
        known: dict[tuple[bytes, str], JsonValue] | None = None,
        opening: bytes = b"[{",
    ) -> None:
        super().__init__()
        self._then, self._stack, self._place, self._opening = then, stack, place, opening
        self._known = {} if known is None else known
        self._known[stack, place] = self
        self.free = place in _STRINGS

    def suspects(self, table: TokenTable) -> Iterable[int]:
        """Return the tokens that may end a string or escape in it, besides the marked ones."""
        return table.quoting

    def firsts(self) -> Iterable[int]:
        """Return the bytes that may come outside of strings."""
        place = self._place
        if place.startswith("word:"):
            return [ord(place[5])]
        if "\\u" in place:
            return _HEX
        if place.endswith("\\"):
            return b'"\\/bfnrtu'
        ends = self._then.firsts() if place == "after" and not self._stack else ()
        return {*b'{}[],:"-+.eE0123456789tfn \t\n\r', *ends}

    def _step(self, byte: int) -> TextState | None:
        place = self._place
        if place in _STRINGS or "\\" in place:
            return self._in_string(byte)
        if place.startswith("word:"):
            if byte != ord(place[5]):
                return None
            return self._at(place[:5] + place[6:] if len(place) > 6 else "after")
        if place in _NUMBER:
            if (part := self._number(byte)) is not None:
                return self._at(part)
            return self._after(byte) if place in _NUMBER_ENDS else None
        if place == "after":
            return self._after(byte)
        if byte in _SPACE and self._stack:
            return self
        if place == "colon":
            return self._at("value") if byte == ord(":") else None
        closes = place in ("first", "firstname") and byte == self._closing
        if closes:
            return self._at("after", self._stack[:-1])
        if place in ("name", "firstname"):
            return self._at("key") if byte == ord('"') else None
        return self._value(byte)

    @property
    def _closing(self) -> int:
        return ord("]") if self._stack.endswith(b"[") else ord("}")

    def _value(self, byte: int) -> TextState | None:
        if not self._stack and byte not in self._opening:
            return None
        if byte in b"[{":
            if len(self._stack) >= MAX_DEPTH:
                return None
            return self._at(
                "first" if byte == ord("[") else "firstname", self._stack + bytes([byte])
            )
        if byte == ord('"'):
            return self._at("text")
        word = next((word for word in _WORDS if word[0] == byte), None)
        if word is not None:
            return self._at("word:" + word[1:].decode())
        part = {ord("-"): "minus", ord("0"): "zero"}.get(byte)
        part = part or ("digits" if byte in b"123456789" else None)
        return None if part is None else self._at(part)

    def _number(self, byte: int) -> str | None:
        char, place = chr(byte), self._place
        kind = {"0": "0", ".": ".", "e": "e", "E": "e", "+": "+", "-": "+"}.get(char)
        kind = "d" if kind is None and char in "123456789" else kind
        if kind is None or kind not in _NUMBER[place]:
            return None
        if kind in "0d":
            if place == "minus":
                return "zero" if kind == "0" else "digits"
            return {"point": "fraction", "e": "power", "sign": "power"}.get(place, place)
        return {".": "point", "e": "e", "+": "sign"}[kind]

    def _after(self, byte: int) -> TextState | None:
        if not self._stack:
            return self._then.step(byte)
        if byte in _SPACE:
            return self._at("after")
        if byte == ord(","):
            return self._at("value" if self._stack.endswith(b"[") else "name")
        return self._at("after", self._stack[:-1]) if byte == self._closing else None

    def _in_string(self, byte: int) -> TextState | None:
        base, slash, escape = self._place.partition("\\")
        if escape:
            if byte not in _HEX:
                return None
            left = int(escape[1]) - 1
            return self._at(f"{base}\\u{left}" if left else base)
        if slash:
            if byte == ord("u"):
                return self._at(f"{base}\\u4")
            return self._at(base) if byte in b'"\\/bfnrt' else None
        if byte == ord('"'):
            return self._at("after" if base == "text" else "colon")
        if byte == ord("\\"):
            return self._at(base + "\\")
        return self if byte >= 32 else None

    def _at(self, place: str, stack: bytes | None = None) -> JsonValue:
        stack = self._stack if stack is None else stack
        known = self._known.get((stack, place))
        return known or JsonValue(self._then, stack, place, self._known, self._opening)
