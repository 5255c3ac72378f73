"""A checkpoint's own chat template, rendered so that outside text cannot pass for markup.

The template is jinja2, as ``chat_template.jinja`` or inside ``tokenizer_config.json``, and is
rendered the way transformers does it: sandboxed, blocks trimmed, ``tojson`` that keeps Unicode and
escapes nothing for HTML, ``raise_exception``, ``strftime_now``. One that is not known by its hash
runs in a process of its own (``rendering.TemplateWorker``).

Outside text may spell the checkpoint's added tokens. ``Mask`` swaps each such spelling for a
random word before rendering, so in the rendered text every added token is the template's own.
``encode`` then takes those as ids, swaps the words back, and encodes everything between two added
tokens in one piece with added tokens disabled. The template thus sees (and trims, and tests) the
real text, byte pairs merge across the joint of markup and content as they do in a whole rendering,
and for text without such spellings the ids equal those of the rendered text tokenised whole.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.chat.rendering import Render, TemplateError, TemplateWorker, compile_template
from model.chat.tokenizer import Tokenizer
from model.checkpoint.files import MOST_JSON_BYTES, require_plain
from model.errors import CheckpointError

KNOWN = frozenset(
    {
        "273d8e0e683b885071fb17e08d71e5f2a5ddfb5309756181681de4f5a1822d80",  # qwen3_5_nothink.jinja
        "a4aee8afcf2e0711942cf848899be66016f8d14a889ff9ede07bca099c28f715",  # qwen3_5_think.jinja
        "e84f32a23fdda27689f868aa4a1a5621f41133e51a48d7f3efcbea2839574259",  # qwen3_6.jinja
        "c3cf9e34abf4f9e36c2d72165aa9c132d3e2a725b6c2586aaa3a8af9d7a81041",  # qwen3_8.jinja
        "2cd850dbb237bbac92cab82ff61673c46d8252219a1964d8b324b38c32e06a8c",  # embedded
    }
)
"""SHA-256 of the templates that render in this process: the family's and the embedded model's."""
_MOST_BYTES = 4 << 20


class Mask:
    """Hides spellings of added tokens in outside text behind random words; one per rendering."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._pattern = tokenizer.added_pattern
        self._nonce = secrets.token_hex(16)
        self._hidden: dict[str, str] = {}

    def __call__(self, value: Any) -> Any:
        """Return ``value`` (text, or JSON-like data with text in it) with every spelling hidden."""
        if isinstance(value, str):
            return self._pattern.sub(lambda match: self._hide(match.group()), value)
        if isinstance(value, Mapping):
            return {self(key): self(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self(item) for item in value]
        return value

    def restore(self, text: str) -> str:
        """Put the spellings back into ``text``."""
        for word, spelling in self._hidden.items():
            text = text.replace(word, spelling)
        return text

    def _hide(self, spelling: str) -> str:
        word = next((word for word, known in self._hidden.items() if known == spelling), None)
        if word is None:
            # Letters at both ends keep one word from running into its neighbours.
            word = f"x{self._nonce}n{len(self._hidden)}x"
            self._hidden[word] = spelling
        return word


class ChatTemplate:
    """A compiled chat template and the tokenizer it is encoded with."""

    def __init__(self, source: str, tokenizer: Tokenizer, constants: Mapping[str, Any]) -> None:
        """Compile the template; ``constants`` are names that it may use, such as ``eos_token``.

        Raises ``CheckpointError`` if ``source`` is no valid template.
        """
        known = hashlib.sha256(source.encode("utf-8", "replace")).hexdigest() in KNOWN
        try:
            self._render: Render = compile_template(source) if known else TemplateWorker(source)
        except TemplateError as error:
            raise CheckpointError(f"the chat template is broken: {error}") from error
        self._tokenizer = tokenizer
        self._constants = dict(constants)

    @classmethod
    def load(cls, directory: Path, tokenizer: Tokenizer) -> ChatTemplate:
        """Read the template beside the weights. Raises ``CheckpointError`` if there is none."""
        config = read_json(directory / "tokenizer_config.json")
        path = directory / "chat_template.jinja"
        try:
            source = _read_source(path) if path.exists() else _inline(config)
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path} cannot be read: {_line(error)}") from error
        if source is None:
            raise CheckpointError(
                f"{directory} has no chat template (chat_template.jinja, or chat_template in"
                " tokenizer_config.json); use a chat checkpoint, or fetch it again, complete"
            )
        tokens = {
            key: _token_text(config.get(key)) for key in ("bos_token", "eos_token", "pad_token")
        }
        return cls(
            source, tokenizer, {key: text for key, text in tokens.items() if text is not None}
        )

    def render(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
        """Render the template for ``messages``.

        Raises ``ValueError`` with the template's own words if it refuses the conversation (no user
        message, a second system message).
        """
        try:
            return self._render({**self._constants, **variables, "messages": messages})
        except TemplateError as error:
            raise ValueError(f"the chat template refuses the conversation: {error}") from error

    def encode(self, rendered: str, mask: Mask) -> list[int]:
        """Ids of rendered text: added tokens as ids, all between them as unmasked plain text."""
        ids: list[int] = []
        start = 0
        for match in self._tokenizer.added_pattern.finditer(rendered):
            ids += self._plain(rendered[start : match.start()], mask)
            token_id = self._tokenizer.special(match.group())
            assert token_id is not None
            ids.append(token_id)
            start = match.end()
        return ids + self._plain(rendered[start:], mask)

    def _plain(self, text: str, mask: Mask) -> list[int]:
        return self._tokenizer.encode_text(mask.restore(text)) if text else []


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``, empty if there is none. Raises ``CheckpointError``."""
    if not path.exists():
        return {}
    if require_plain(path) > MOST_JSON_BYTES:
        raise CheckpointError(f"{path} is larger than {MOST_JSON_BYTES >> 20} MiB; fetch it again")
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not valid JSON ({_line(error)}); fetch it again"
        ) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds no JSON object; fetch it again")
    return data


def _read_source(path: Path) -> str:
    if require_plain(path) > _MOST_BYTES:
        raise CheckpointError(f"{path} is larger than {_MOST_BYTES >> 20} MiB; fetch it again")
    return path.read_text("utf-8")


def _inline(config: Mapping[str, Any]) -> str | None:
    """Return the template in tokenizer_config.json: one text, or one of a list of named ones."""
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {
            entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)
        }
        found = named.get("tool_use") or named.get("default")
    return found if isinstance(found, str) else None


def _token_text(token: Any) -> str | None:
    """Return a token of tokenizer_config.json, written as text or as an object with ``content``."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
