"""Typed access to JSON that was read from a file: a wrong type is an error that names its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NEEDED: Any = object()


class Fields:
    """The members of one JSON object. Every reader raises ``LookupError`` or ``TypeError``."""

    def __init__(self, data: Any) -> None:
        if not isinstance(data, Mapping):
            raise TypeError(f"{data!r:.40} is no object")
        self._data = data

    def text(self, key: str, otherwise: str = _NEEDED) -> str:
        """Return a text; ``otherwise`` if it is missing."""
        return str(self._typed(key, str, otherwise))

    def maybe_text(self, key: str) -> str | None:
        """Return a text; None if it is missing or null."""
        value = self._typed(key, (str, type(None)), None)
        return None if value is None else str(value)

    def number(self, key: str, otherwise: int = _NEEDED) -> int:
        """Return a whole number; ``otherwise`` if it is missing."""
        return int(self._typed(key, int, otherwise))

    def maybe_number(self, key: str) -> int | None:
        """Return a whole number; None if it is missing or null."""
        value = self._typed(key, (int, type(None)), None)
        return None if value is None else int(value)

    def decimal(self, key: str) -> float:
        """Return a number."""
        return float(self._typed(key, (int, float), _NEEDED))

    def flag(self, key: str, otherwise: bool) -> bool:
        """Return true or false; ``otherwise`` if it is missing."""
        value = self._data.get(key, otherwise)
        if not isinstance(value, bool):
            raise TypeError(f"{key} is not true or false")
        return value

    def object(self, key: str) -> Mapping[str, Any]:
        """Return an object; an empty one if it is missing."""
        found: Mapping[str, Any] = self._typed(key, Mapping, {})
        return found

    def list(self, key: str, otherwise: list[Any] = _NEEDED) -> list[Any]:
        """Return a list; ``otherwise`` if it is missing."""
        found: list[Any] = self._typed(key, list, otherwise)
        return found

    def ids(self, key: str) -> tuple[int, ...]:
        """Return a list of token ids."""
        found = self.list(key)
        if not all(type(value) is int for value in found):
            raise TypeError(f"{key} are not whole numbers")
        return tuple(found)

    def is_null(self, key: str) -> bool:
        """Tell whether a member is missing or null."""
        return self._data.get(key) is None

    def _typed(self, key: str, kind: Any, otherwise: Any) -> Any:
        value = self._data[key] if otherwise is _NEEDED else self._data.get(key, otherwise)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{key} has the wrong type")
        return value
