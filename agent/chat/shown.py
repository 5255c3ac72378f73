"""The pictures that a typed message names with ``@path``."""

from __future__ import annotations

import re
from pathlib import Path

from model.vision.picture import MOST_BYTES, Picture, format_of, read_picture_file

MOST = 16
"""The most pictures of one message."""

_NAMED = re.compile(r"(?<!\S)@(?:\"([^\"\n]+)\"|(\S+))")


def pictures_in(text: str, folder: Path) -> tuple[Picture, ...]:
    """Return the pictures among the files that ``text`` names, relative to ``folder``.

    Files of other kinds are left to the model. Raises ``PictureError`` for a picture that cannot be
    seen.
    """
    found: dict[Path, Picture] = {}
    for quoted, plain in _NAMED.findall(text):
        path = folder / Path(quoted or plain.rstrip(".,;:!?)")).expanduser()
        if path not in found and len(found) < MOST and is_picture(path):
            found[path] = read_picture_file(path)
    return tuple(found.values())


def is_picture(path: Path) -> bool:
    """Return whether there is a file that begins as a picture does."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return False
        with path.open("rb") as file:
            return format_of(file.read(16)) is not None
    except (OSError, ValueError):
        return False
