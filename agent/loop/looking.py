"""The pictures that tools found: read for a model with eyes, told in words for one without."""

from __future__ import annotations

import dataclasses
from typing import TypeGuard

from agent.events import Listener, Notice
from model.errors import PictureError
from model.vision.picture import Picture, read_picture
from tools.types import Observation, PictureFile


def look_at(seen: Observation, listen: Listener, *, sees: bool) -> Observation:
    """Return ``seen`` with its pictures read; without them for a model that does not see.

    A file that is no picture to see is a sentence more in the text.
    """
    if not seen.pictures:
        return seen
    if not sees:
        names = ", ".join(picture.name for picture in seen.pictures)
        listen(Notice(f"the model has no eyes: it is told of {names} in words"))
        return dataclasses.replace(seen, pictures=())
    read: list[Picture] = []
    words = []
    for file in seen.pictures:
        try:
            picture = file if isinstance(file, Picture) else read_picture(file.data, file.name)
        except PictureError as error:
            words.append(f"[{error}]")
            continue
        read.append(picture)
        if picture.note:
            words.append(f"[{picture.name}: {picture.note}]")
    text = "\n".join([seen.text, *words])
    return dataclasses.replace(seen, text=text, pictures=tuple(read))


def is_read(file: PictureFile) -> TypeGuard[Picture]:
    """Return whether a picture was read, and can go into a message."""
    return isinstance(file, Picture)
