"""The line under the input: model, context, what this turn cost, mode, branch, sandbox."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.text import visible

if TYPE_CHECKING:
    from agent.events import Event
    from model.usage import Usage


@dataclass(frozen=True)
class Facts:
    """Facts that the footer shows. Sizes are in tokens."""

    model: str = ""
    device: str = ""
    used: int = 0
    size: int = 0
    reused: int = 0
    prefilled: int = 0
    rate: float = 0.0
    drafts: str = ""
    mode: str = "ask"
    branch: str = ""
    sandbox: str = ""
    queued: int = 0

    def new_turn(self) -> Facts:
        """Return the facts at the beginning of a user turn, which has cost nothing yet."""
        return replace(self, reused=0, prefilled=0)

    def hear(self, event: Event) -> Facts:
        """Return the facts after ``event``."""
        usage = getattr(getattr(event, "step", None), "usage", None)
        return self if usage is None else self.after(usage, usage.context_tokens)

    def after(self, usage: Usage, used: int) -> Facts:
        """Return the facts after a step that cost ``usage``."""
        rate = usage.generated_tokens / usage.decode_s if usage.decode_s > 0 else self.rate
        return replace(
            self,
            used=used,
            reused=self.reused + usage.reused_tokens,
            prefilled=self.prefilled + usage.prefilled_tokens,
            rate=rate,
            drafts=usage.drafts,
        )

    def line(self, columns: int, dash: str) -> str:
        """Return the line for ``columns`` columns; what matters least is left out first."""
        parts = [
            (0, f"{self.mode} mode"),
            (1, self._context()),
            (2, visible(self.model)),
            (4, f"{self.reused:,} reused {self.prefilled:,} prefilled" if self.used else ""),
            (3, f"{self.rate:,.0f} tokens/s" if self.rate else ""),
            (5, self.drafts),
            (2, f"{self.queued} queued" if self.queued else ""),
            (6, visible(self.sandbox)),
            (7, visible(self.branch)),
            (8, self.device),
        ]
        shown = [part for part in parts if part[1]]
        while len(text := f" {dash} ".join(words for _, words in shown)) > columns - 1:
            if len(shown) == 1:
                return text[: columns - 1]
            shown.remove(max(shown))
        return text

    def _context(self) -> str:
        if not self.size:
            return ""
        return f"context {self.used:,} of {self.size:,} ({100 * self.used / self.size:.0f} %)"
