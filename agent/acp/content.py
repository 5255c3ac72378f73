"""A prompt's blocks as the text that the model reads, and the files they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from acp.schema import (
    EmbeddedResourceContentBlock,
    ResourceContentBlock,
    TextContentBlock,
    TextResourceContents,
)

from agent.errors import ConfigError

MAX_PROMPT_BYTES = 1_000_000


@dataclass(frozen=True)
class EditorPrompt:
    """A prompt: ``text`` for the model; ``files`` are paths in the user's folder that it names."""

    text: str
    files: tuple[str, ...] = ()


def read_prompt(blocks: Sequence[Any], folder: Path) -> EditorPrompt:
    """Write a prompt's blocks as text.

    Text stands as it is, a link to a file of the folder as its path, a resource at the end.

    Raises ``ConfigError`` for what the model cannot read (images, audio), and for too much.
    """
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
            said.append(f"`{path or block.uri}`")
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
            raise ConfigError(f"this model reads text only: {kind} blocks cannot be read")
    text = "\n\n".join(["".join(said).strip(), *attached]).strip()
    # What was no Unicode arrives as surrogates, which no tokenizer takes.
    text = text.encode("utf-8", "replace").decode("utf-8")
    if not text:
        raise ConfigError("the prompt is empty: say what to do")
    if len(text.encode()) > MAX_PROMPT_BYTES:
        raise ConfigError(f"the prompt is longer than {MAX_PROMPT_BYTES:,} bytes; shorten it")
    return EditorPrompt(text, tuple(dict.fromkeys(files)))


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
