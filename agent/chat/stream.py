"""Text that streams in: whole Markdown blocks leave, the unfinished rest stays live."""

from __future__ import annotations

from dataclasses import dataclass

FENCE = ("```", "~~~")


@dataclass
class MarkdownStream:
    """Text of the model as it grows. ``rest`` is what has not left yet."""

    rest: str = ""

    def feed(self, text: str) -> str:
        """Add ``text``; return the blocks that are complete now, or an empty text.

        A block ends at an empty line outside of a code fence. A fence that stays open keeps its
        lines until it is closed or the turn ends.
        """
        self.rest += text
        end = _last_break(self.rest)
        done, self.rest = self.rest[:end], self.rest[end:]
        return done

    def flush(self) -> str:
        """Return all that is left."""
        done, self.rest = self.rest, ""
        return done

    def tail(self, lines: int) -> str:
        """Return the last lines of what has not left yet."""
        return "\n".join(self.rest.rstrip("\n").split("\n")[-lines:])


def _last_break(text: str) -> int:
    """Return the index after the last empty line that is outside of every fence; 0 if none."""
    fence, at, end = "", 0, 0
    for line in text.splitlines(keepends=True):
        at += len(line)
        bare = line.strip()
        mark = bare[:3]
        if fence:
            if mark == fence and not bare.strip(fence[0]):
                fence = ""
        elif mark in FENCE:
            fence = mark
        elif not bare and line.endswith("\n"):
            end = at
    return end
