"""The pictures of a saved session: files named by the hash of their pixels, each stored once.

They lie in the session's folder under ``pictures/``; records name them and say what they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agent.errors import StoreError
from agent.sessions.typed_json import Fields
from model.vision.picture import ENDINGS, Picture
from sandboxes.paths import private_dir, write_whole

FOLDER = "pictures"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def picture_to_json(picture: Picture) -> dict[str, Any]:
    """Return what a record says of a picture."""
    data = {
        "digest": picture.digest,
        "format": picture.format,
        "width": picture.width,
        "height": picture.height,
        "name": picture.name,
    }
    return data | ({"note": picture.note} if picture.note else {})


def picture_from_json(data: Any) -> Picture:
    """Return the inverse of ``picture_to_json``, of a record that ``place_pictures`` has seen.

    Raises ``LookupError``, ``TypeError``, ``ValueError``.
    """
    fields = Fields(data)
    digest, kind = fields.text("digest"), fields.text("format")
    width, height = fields.number("width"), fields.number("height")
    if not _DIGEST.fullmatch(digest) or kind not in ENDINGS or min(width, height) < 1:
        raise ValueError("a picture has a wrong hash, format or size")
    file = Path(fields.text("folder", FOLDER)) / f"{digest}.{ENDINGS[kind]}"
    name, note = fields.text("name", "picture"), fields.text("note", "")
    return Picture(file, kind, width, height, digest, name, note)


def picture_words(pictures: Iterable[object]) -> list[str]:
    """Return what the pictures of an observation or message are, in words for people."""
    return [picture.words for picture in pictures if isinstance(picture, Picture)]


def keep_pictures(folder: Path, pictures: Iterable[Picture]) -> None:
    """Store pictures in the session's ``folder``, where they are not yet. Raises ``OSError``."""
    for picture in pictures:
        file = folder / FOLDER / f"{picture.digest}.{picture.ending}"
        if not file.exists():
            private_dir(file.parent)
            with write_whole(file) as draft:
                draft.write_bytes(picture.data)


def pictures_by_hash(pictures: Iterable[Picture]) -> dict[str, Any]:
    """Return what ``session.json`` says of the task's pictures, in order."""
    return {picture.digest: picture_to_json(picture) for picture in pictures}


def task_pictures(told: Mapping[str, Any], folder: Path) -> tuple[Picture, ...]:
    """Return the inverse of ``pictures_by_hash``, for the session in ``folder``.

    Raises ``StoreError`` if they are damaged.
    """
    place = str(folder / FOLDER)
    try:
        return tuple(picture_from_json({**item, "folder": place}) for item in told.values())
    except (LookupError, TypeError, ValueError) as error:
        raise StoreError(f"the pictures of session {folder.name} are damaged: {error}") from error


def place_pictures(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a record's JSON with the place of each picture, in the session's ``folder``."""
    place = str(folder / FOLDER)

    def placed(item: Any) -> Any:
        if not isinstance(item, dict) or not isinstance(item.get("pictures"), list):
            return item
        found = [p | {"folder": place} if isinstance(p, dict) else p for p in item["pictures"]]
        return item | {"pictures": found}

    made = dict(data)
    for key in ("messages", "observations"):
        if isinstance(made.get(key), list):
            made[key] = [placed(item) for item in made[key]]
    return made
