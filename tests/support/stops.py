"""A cancellation token that looks at what has happened."""

from __future__ import annotations

from collections.abc import Callable

from sandboxes.stop import Stop


class StopWhen(Stop):
    """Set while ``asks`` says so."""

    def __init__(self, asks: Callable[[], bool]) -> None:
        super().__init__()
        self._asks = asks

    def is_set(self) -> bool:
        return self._asks()
