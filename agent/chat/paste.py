"""Long pastes as one word in the input, whole again when the message is sent."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

FOLDED_FROM_LINES = 8
FOLDED_FROM_CHARACTERS = 1000
MAX_CHARACTERS = 2_000_000
_MARK = re.compile(r"\[pasted text (\d+): [\d,]+ (?:lines|characters)\]")


@dataclass
class Pastes:
    """The long texts that were pasted, by number."""

    texts: list[str] = field(default_factory=list)

    def fold(self, text: str) -> str:
        """Return what goes into the input: ``text``, or a mark that stands for it.

        Raises ``ValueError`` if it is longer than any message may be.
        """
        if len(text) > MAX_CHARACTERS:
            raise ValueError(
                f"the pasted text has {len(text):,} characters; save it in a file and write @FILE"
            )
        lines = text.count("\n") + 1
        if lines < FOLDED_FROM_LINES and len(text) < FOLDED_FROM_CHARACTERS:
            return text
        self.texts.append(text)
        size = f"{lines:,} lines" if lines > 1 else f"{len(text):,} characters"
        return f"[pasted text {len(self.texts)}: {size}]"

    def unfold(self, text: str) -> str:
        """Return ``text`` with every mark replaced by what was pasted."""

        def whole(match: re.Match[str]) -> str:
            index = int(match[1]) - 1
            return self.texts[index] if index < len(self.texts) else match[0]

        return _MARK.sub(whole, text)
