"""Look of the chat: one console that turns renderables into lines for the terminal.

rich is imported when the first line is rendered, after the prompt stands.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.text import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

MIN_COLUMNS = 20


@dataclass(frozen=True)
class Style:
    """Abilities of the terminal, and the lines rendered for it.

    ``plain`` is for screen readers and dumb terminals: no colours, no Markdown rendering, words in
    place of marks.
    """

    colours: bool = True
    unicode: bool = True
    plain: bool = False

    @property
    def dot(self) -> str:
        """The mark before a tool call."""
        return "●" if self.unicode else "*"

    @property
    def dash(self) -> str:
        """The mark between two facts on a line."""
        return "·" if self.unicode else "-"

    @property
    def arrow(self) -> str:
        """The mark before what the user typed."""
        return "›" if self.unicode else ">"

    def lines(self, item: RenderableType, columns: int, *, indent: int = 0) -> list[str]:
        """Render ``item`` for ``columns`` columns; return its lines with escape sequences."""
        from rich.console import Console

        out = io.StringIO()
        console = Console(
            file=out,
            width=max(MIN_COLUMNS, columns - indent),
            force_terminal=self.colours,
            no_color=not self.colours,
            color_system="standard" if self.colours else None,
            legacy_windows=False,
            highlight=False,
            emoji=False,
            markup=False,
        )
        console.print(item)
        pad = " " * indent
        return [pad + line.rstrip() if line.strip() else "" for line in _split(out.getvalue())]

    def text(self, words: str, style: str = "", *, columns: int, indent: int = 0) -> list[str]:
        """Render plain words, wrapped between words; control characters become pictures."""
        from rich.text import Text

        return self.lines(Text(visible(words), style=style), columns, indent=indent)

    def markdown(self, words: str, *, columns: int) -> list[str]:
        """Render Markdown as it streams in; links stay words, so that nothing is followed."""
        shown = visible(words)
        if self.plain:
            return self.text(shown, columns=columns)
        from rich.markdown import Markdown

        theme = "ansi_dark" if self.colours else "default"
        item = Markdown(shown, hyperlinks=False, code_theme=theme, inline_code_theme=theme)
        return self.lines(item, columns)

    def diff(self, patch: str, *, columns: int, indent: int = 2) -> list[str]:
        """Render a unified diff with its lines coloured."""
        shown = visible(patch.rstrip("\n"))
        if self.plain or not self.colours:
            return self.text(shown, columns=columns, indent=indent)
        from rich.syntax import Syntax

        item = Syntax(shown, "diff", theme="ansi_dark", word_wrap=True, background_color="default")
        return self.lines(item, columns, indent=indent)


def _split(text: str) -> list[str]:
    """Split at line feeds only: other line ends are inside of a line for a terminal."""
    return text.removesuffix("\n").split("\n")
