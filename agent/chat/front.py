"""Interface through which the session's thread uses the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from agent.events import Event


class Front(Protocol):
    """The screen, as the session's thread sees it. Both may be called from any thread."""

    def tell(self, event: Event) -> None:
        """Show what happened."""
        ...

    def redraw(self) -> None:
        """Draw the lower lines anew."""
        ...
