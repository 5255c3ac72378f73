"""Pastes as one word in the input: long texts, whole again when the message is sent, and pictures.

A terminal pastes text alone. So a picture comes as a data URL, or as the path that a file manager
gives when its file is dropped on the terminal.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agent.chat.shown import is_picture
from model.vision.picture import MOST_BYTES, Picture, read_data_url

FOLDED_FROM_LINES = 8
FOLDED_FROM_CHARACTERS = 1000
MAX_CHARACTERS = 2_000_000
MAX_PATH = 4_096
_PICTURE = re.compile(r"\[pasted picture (\d+): [\d,]+ kB\]")
_DATA_URL = re.compile(r"data:image/\S+", re.IGNORECASE)
_MARK = re.compile(r"\[pasted text (\d+): [\d,]+ (?:lines|characters)\]")


@dataclass
class Pastes:
    """The long texts and the pictures (data URLs) that were pasted, by number."""

    texts: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    def fold(self, text: str) -> str:
        """Return what goes into the input: ``text``, or a mark that stands for it.

        The path of a picture becomes ``@path``, which shows it. Raises ``ValueError`` if it is
        longer than any message may be.
        """
        if len(text) < MOST_BYTES * 3 // 2 and _DATA_URL.fullmatch(text.strip()):
            self.urls.append(text.strip())
            return f"[pasted picture {len(self.urls)}: {len(text) * 3 // 4096 + 1:,} kB]"
        if (path := _picture_path(text)) is not None:
            return f' @"{path}" '
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

    def pictures(self, text: str) -> tuple[Picture, ...]:
        """Return the pasted pictures that ``text`` names. Raises ``PictureError``."""
        numbers = [int(number) for number in _PICTURE.findall(text)]
        return tuple(
            read_data_url(self.urls[number - 1], f"pasted picture {number}")
            for number in dict.fromkeys(numbers)
            if 0 < number <= len(self.urls)
        )


def _picture_path(text: str) -> Path | None:
    """Return the picture whose absolute path ``text`` is, as terminals quote it; else None."""
    text = text.strip()
    if not text.startswith(("/", "~", "'", '"', "file://")) or len(text) > MAX_PATH:
        return None
    try:
        (word,) = [unquote(urlsplit(text).path)] if text[:5] == "file:" else shlex.split(text)
        path = Path(word).expanduser()
    except (ValueError, RuntimeError):
        return None
    named = '"' not in word and word.isprintable()
    return path if named and path.is_absolute() and is_picture(path) else None
