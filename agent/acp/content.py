"""A prompt's blocks as the text and pictures that the model gets, and the files they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from acp.schema import (
    EmbeddedResourceContentBlock,
    ImageContentBlock,
    ResourceContentBlock,
    TextContentBlock,
    TextResourceContents,
)

from agent.errors import ConfigError
from agent.settings.load import load_settings
from model.errors import PictureError
from model.vision.peek import has_eyes
from model.vision.picture import Picture, format_of, read_base64, read_picture_file

MAX_PROMPT_BYTES = 1_000_000
MAX_PICTURES = 8


@dataclass(frozen=True)
class EditorPrompt:
    """A prompt: ``text`` and ``pictures`` for the model.

    ``files`` are paths in the user's folder that it names.
    """

    text: str
    files: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()


def read_prompt(blocks: Sequence[Any], folder: Path) -> EditorPrompt:
    """Write a prompt's blocks as text, and read its pictures.

    Text stands as it is, a link to a file of the folder as its path, a resource at the end. A link
    to a picture of the folder shows it too.

    Raises ``ConfigError`` for what the model cannot read (audio), and for too much.
    """
    pictures: list[Picture] = []
    said: list[str] = []
    attached: list[str] = []
    files: list[str] = []
    for block in blocks:
        if isinstance(block, TextContentBlock):
            said.append(block.text)
        elif isinstance(block, ResourceContentBlock):
            path = _inside(block.uri, folder)
            if path is not None:
                files.append(path)
                pictures += _linked(folder / path)
            said.append(f"`{path or block.uri}`")
        elif isinstance(block, ImageContentBlock):
            pictures.append(_picture(block, len(pictures) + 1))
        elif isinstance(block, EmbeddedResourceContentBlock):
            resource = block.resource
            if not isinstance(resource, TextResourceContents):
                raise ConfigError("a resource that is no text cannot be read; attach text")
            path = _inside(resource.uri, folder)
            if path is not None:
                files.append(path)
            attached.append(_quoted(path or resource.uri, resource.text))
        else:
            kind = str(getattr(block, "type", "content"))
            raise ConfigError(f"{kind} blocks cannot be read; send text and pictures")
    text = "\n\n".join(["".join(said).strip(), *attached]).strip()
    # What was no Unicode arrives as surrogates, which no tokenizer takes.
    text = text.encode("utf-8", "replace").decode("utf-8")
    if not text and pictures:
        raise ConfigError("the prompt has no words: say what to do with the picture")
    if not text:
        raise ConfigError("the prompt is empty: say what to do")
    if len(pictures) > MAX_PICTURES:
        raise ConfigError(f"the prompt has {len(pictures)} pictures; send at most {MAX_PICTURES}")
    if len(text.encode()) > MAX_PROMPT_BYTES:
        raise ConfigError(f"the prompt is longer than {MAX_PROMPT_BYTES:,} bytes; shorten it")
    return EditorPrompt(text, tuple(dict.fromkeys(files)), tuple(pictures))


def sees_pictures(flags: Mapping[str, Any]) -> bool:
    """Return whether the model that is used by default has eyes; it need not be loaded yet."""
    try:
        settings = load_settings(flags)
    except ConfigError:  # whoever opens a session hears of it
        return False
    return has_eyes(settings.model, settings.mmproj)


def _picture(block: ImageContentBlock, number: int) -> Picture:
    """Read a picture that came with the prompt. Raises ``ConfigError``."""
    name = Path(unquote(urlsplit(block.uri).path)).name if block.uri else ""
    try:
        return read_base64(block.data, name or f"picture {number}")
    except PictureError as error:
        raise ConfigError(str(error)) from error


def _linked(file: Path) -> list[Picture]:
    """Return the picture that a linked file is; nothing if it is none, or damaged."""
    try:
        with file.open("rb") as opened:
            head = opened.read(16) if file.is_file() else b""
        return [read_picture_file(file)] if format_of(head) is not None else []
    except (OSError, PictureError):
        return []


def _inside(uri: str, folder: Path) -> str | None:
    """Return the path from the folder of a ``file:`` URI or an absolute path in it; else None."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        path = Path(unquote(parts.path))
    elif uri.startswith("/"):
        path = Path(uri)
    else:
        return None
    for base in (folder, folder.resolve()):
        if path.is_relative_to(base) and ".." not in path.parts:
            return path.relative_to(base).as_posix()
    return None


def _quoted(name: str, text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{name}:\n{fence}\n{text.rstrip()}\n{fence}"
