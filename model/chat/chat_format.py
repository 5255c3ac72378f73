"""Messages to token ids, by appending only.

A session's ids never change once they are there, so a new message is encoded as the text that the
checkpoint's chat template would add after it. How that text is found: the template renders a probe
conversation (a user message, an assistant turn with a marker for content, then the new messages
and the generation prompt), and what follows the marker is the text to add. In this family's
templates a message's rendering depends on earlier messages only through the removal of old
reasoning, which is switched off (``preserve_thinking``), so the text is the same as after the real
conversation; a property test holds whole renderings of the Qwen3.6 template against it. Apart from
the tags themselves nothing here repeats a template's wording, so checkpoints with other prompts,
such as the embedded one, need no code. A template without the switch (Qwen3.5's) appends alike;
only a conversation begun anew from its transcript loses the reasoning of earlier user turns.

Loading tries the template on a probe: it must close an assistant turn with the stop token, and
whether its prompt leaves a think block open tells the parser where to start.
"""

from __future__ import annotations

import copy
import json
import secrets
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from model.chat.effort import LEVELS, fit_effort, read_effort
from model.chat.parser import TurnParser
from model.chat.template import ChatTemplate, Mask, read_json
from model.chat.tokenizer import Decoder, Tokenizer
from model.constraints.token_table import TokenTable
from model.errors import CheckpointError, PictureError
from model.messages import Message, ToolSchema
from model.steering import ANY, TokenMask
from model.vision.eyes import Eyes
from model.vision.picture import Picture, read_data_url, read_picture_file

TURN_END = "<|im_end|>"
_TURN_START = "<|im_start|>"
_THINK_END = "\n</think>\n\n"
_IMAGE = "<|image_pad|>"


class _Vocabulary:
    """A tokenizer's table of tokens, made when it is first asked for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @cached_property
    def table(self) -> TokenTable:
        return TokenTable.of(self._tokenizer)


class ChatFormat:
    """The conversation format of one checkpoint. Immutable; any number of sessions may share it."""

    def __init__(
        self, template: ChatTemplate, tokenizer: Tokenizer, stop_ids: frozenset[int]
    ) -> None:
        """Check the template on a probe. Raises ``CheckpointError`` if it is of another family."""
        self._template = template
        self._tokenizer = tokenizer
        self._eyes: Eyes | None = None
        self._effort: dict[str, str] = {}
        self._vocabulary = _Vocabulary(tokenizer)
        self.stop_ids = stop_ids
        probe = (Message("tool", "result"), Message("user", "go on"))
        try:
            added = {
                thinking: self._after_turn(probe, Mask(tokenizer), thinking)
                for thinking in (True, False)
            }
        except ValueError as error:
            raise CheckpointError(
                f"{error}; only Qwen3.5-style chat templates are supported"
            ) from error
        self._opens_thinking = {thinking: _opens_thinking(text) for thinking, text in added.items()}
        self._opens_by_itself = _opens_thinking(self._after_turn(probe, Mask(tokenizer), None))

    @classmethod
    def load(cls, directory: Path, tokenizer: Tokenizer) -> ChatFormat:
        """Read chat template and stop tokens beside the weights. Raises ``CheckpointError``."""
        turn_end = tokenizer.special(TURN_END)
        if turn_end is None:
            raise CheckpointError(
                f"the tokenizer in {directory} has no {TURN_END} token;"
                " use a Qwen3.5-style chat checkpoint"
            )
        stop_ids = {turn_end}
        config = read_json(directory / "config.json")
        text_config = config.get("text_config")
        for source in (config, text_config, read_json(directory / "generation_config.json")):
            found = source.get("eos_token_id") if isinstance(source, dict) else None
            stop_ids.update(
                i for i in (found if isinstance(found, list) else [found]) if isinstance(i, int)
            )
        return cls(ChatTemplate.load(directory, tokenizer), tokenizer, frozenset(stop_ids))

    def seeing(self, eyes: Eyes | None) -> ChatFormat:
        """Return the same format for a model that sees with ``eyes``."""
        twin = copy.copy(self)
        twin._eyes = eyes if self._tokenizer.special(_IMAGE) is not None else None
        return twin

    def at_effort(self, level: str) -> ChatFormat:
        """Return the same format for a model that is asked to think at ``level`` (see ``effort``).

        The template may write the effort at a conversation's start, so it counts for ``begin``
        alone. ``auto``, a word that nobody knows, and a template without efforts change nothing.
        """
        level = read_effort(level) or "auto"
        word = fit_effort(level, self._probe_effort) if level in LEVELS else None
        twin = copy.copy(self)
        twin._effort = {} if word is None else {"reasoning_effort": word}
        return twin

    @property
    def effort(self) -> str:
        """The template's word for the effort that new conversations begin with, "" for its own."""
        return self._effort.get("reasoning_effort", "")

    @property
    def thinks(self) -> bool:
        """True if the template lets the model think where nothing is said about that."""
        return self._opens_by_itself

    @property
    def sees(self) -> bool:
        """True if the model can see the pictures of messages; else it reads of them in words."""
        return self._eyes is not None

    def take_in(self, messages: Sequence[Message]) -> None:
        """Make the pictures of ``messages`` known, for ids that name them already."""
        for message in messages:
            for picture in message.pictures:
                if self._eyes is not None:
                    self._eyes.take(picture)

    def begin(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema],
        thinking: bool,
        *,
        preserve_thinking: bool = True,
    ) -> list[int]:
        """Ids of a whole conversation and the generation prompt: the first extend of a session.

        ``messages`` may hold earlier assistant turns (a session rebuilt from its transcript); with
        ``preserve_thinking=False`` those before the last user message lose their reasoning, as the
        stock template has it. Raises ``ValueError`` if the template refuses the conversation.
        """
        mask = Mask(self._tokenizer)
        rendered = self._template.render(
            [_entry(message, mask, self.sees) for message in messages],
            tools=mask(list(tools)) or None,
            add_generation_prompt=True,
            enable_thinking=thinking,
            preserve_thinking=preserve_thinking,
            **self._effort,
        )
        return self._encode(rendered, mask, _pictures(messages))

    def append(
        self,
        previous_ends_with_stop: bool,
        messages: Sequence[Message],
        thinking: bool,
        *,
        open_thinking: bool = False,
    ) -> list[int]:
        """Ids that come after an assistant turn: ``messages`` and the next generation prompt.

        A turn that was cut before its stop token (``previous_ends_with_stop=False``) is closed
        first; with ``open_thinking`` (``TurnParser.in_thinking`` of that turn) its reasoning is
        closed before that. Raises ``ValueError`` if the template refuses the messages.
        """
        mask = Mask(self._tokenizer)
        text = self._after_turn(messages, mask, thinking)
        if previous_ends_with_stop:
            text = text.removeprefix(TURN_END)
        elif open_thinking:
            text = _THINK_END + text
        return self._encode(text, mask, _pictures(messages))

    def parser(self, tools: Sequence[ToolSchema], thinking: bool) -> TurnParser:
        """Make a parser for one generated turn; it starts where the generation prompt ends."""
        return TurnParser(
            self._tokenizer.stream(),
            tools,
            stop_ids=self.stop_ids,
            in_thinking=self._opens_thinking[thinking],
        )

    def closing(self, words: str) -> list[int]:
        """Return the ids that end open reasoning: ``words``, then the end tag."""
        mask = Mask(self._tokenizer)
        return self._template.encode(mask(words) + _THINK_END, mask)

    @property
    def token_table(self) -> TokenTable:
        """The vocabulary by bytes; made once for all copies of this format."""
        return self._vocabulary.table

    @property
    def no_thinking(self) -> TokenMask:
        """The mask that allows every token but the one that opens reasoning."""
        start = self._tokenizer.special("<think>")
        if start is None:
            return ANY
        return TokenMask(without=torch.tensor([start]))

    @property
    def call_start(self) -> list[int]:
        """The ids of the tag that begins a call."""
        return self._template.encode("<tool_call>", Mask(self._tokenizer))

    def decoder(self) -> Decoder:
        """Return a decoder of ids, one at a time."""
        return self._tokenizer.stream()

    def turn_cut(self, ids: Sequence[int]) -> int:
        """Find where in a prompt's ``ids`` its last turn begins, just after ``<|im_start|>``.

        Up to there the ids do not depend on what the turn will be: a session kept at that point
        can be given the turn again in another form. 0 if there is no such token.
        """
        start = self._tokenizer.special(_TURN_START)
        return next((at + 1 for at in reversed(range(len(ids))) if ids[at] == start), 0)

    def encode_text(self, text: str) -> list[int]:
        """Return the ids of text from outside."""
        return self._tokenizer.encode_text(text)

    def encode_conversation(self, messages: Any) -> list[int]:
        """Return the ids of chat messages in the OpenAI form, without a generation prompt.

        Pictures are data URLs or paths of files. Raises ``ValueError`` if they are no such
        messages, or the template refuses them, ``PictureError`` for one that cannot be seen.
        """
        if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
            raise ValueError("messages must be a list of objects")
        mask = Mask(self._tokenizer)
        pictures: list[Picture] = []
        entries = [mask(_with_mappings(_without_pictures(m, pictures))) for m in messages]
        if pictures and not self.sees:
            raise PictureError("the model has no eyes: it cannot take messages with pictures")
        return self._encode(self._template.render(entries, tools=None), mask, pictures)

    def count_tokens(self, text: str) -> int:
        """Return how many tokens ``text`` from outside has."""
        return len(self._tokenizer.encode_text(text))

    @property
    def tokenizer_fingerprint(self) -> str:
        """Equal for two checkpoints whose token ids mean the same."""
        return self._tokenizer.fingerprint

    def _encode(self, rendered: str, mask: Mask, pictures: Sequence[Picture]) -> list[int]:
        """Return the ids of rendered text, with the tokens of ``pictures`` at their places.

        Raises ``ValueError`` if the template does not show all of them, ``PictureError`` for one
        that the model cannot see.
        """
        ids = self._template.encode(rendered, mask)
        if self._eyes is None or not pictures:
            return ids
        place, shown, found = self._tokenizer.special(_IMAGE), iter(pictures), list[int]()
        if ids.count(place or 0) != len(pictures):
            raise ValueError(f"the chat template does not show {len(pictures)} pictures")
        for token in ids:
            found += self._eyes.take(next(shown)) if token == place else [token]
        return found

    def _probe_effort(self, word: str) -> str | None:
        """Render a short conversation at an effort's ``word``; None if it is refused."""
        try:
            return self._template.render(
                [{"role": "user", "content": "probe"}],
                tools=None,
                add_generation_prompt=True,
                enable_thinking=True,
                reasoning_effort=word,
            )
        except ValueError:
            return None

    def _after_turn(self, messages: Sequence[Message], mask: Mask, thinking: bool | None) -> str:
        """Render what follows an assistant's content, ``<|im_end|>`` first; masked.

        ``thinking`` None leaves it to the template.
        """
        asked = {} if thinking is None else {"enable_thinking": thinking}
        marker = secrets.token_hex(16)
        rendered = self._template.render(
            [
                {"role": "user", "content": "probe"},
                {"role": "assistant", "content": marker, "reasoning_content": "probe"},
                *(_entry(message, mask, self.sees) for message in messages),
            ],
            tools=None,
            add_generation_prompt=True,
            preserve_thinking=True,
            **asked,
        )
        _, found, text = rendered.partition(marker)
        if not found or not text.startswith(TURN_END):
            raise ValueError(f"the chat template does not end an assistant turn with {TURN_END}")
        return text


def _opens_thinking(prompt: str) -> bool:
    return prompt.rfind("<think>") > prompt.rfind("</think>")


def _with_mappings(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message of the OpenAI form with the arguments of its calls as objects."""
    calls = []
    for call in message.get("tool_calls") or []:
        function = dict(call["function"])
        if isinstance(function.get("arguments"), str):
            function["arguments"] = json.loads(function["arguments"])
        calls.append({**call, "function": function})
    return {**message, "tool_calls": calls} if calls else message


def _pictures(messages: Sequence[Message]) -> list[Picture]:
    return [picture for message in messages for picture in message.pictures]


def _without_pictures(message: dict[str, Any], pictures: list[Picture]) -> dict[str, Any]:
    """Return a message of the OpenAI form with bare places for its pictures; add those to
    ``pictures``. Raises ``PictureError``."""
    if not isinstance(message.get("content"), list):
        return message
    content = []
    for item in message["content"]:
        given = item if isinstance(item, dict) else {}
        source = given.get("image") or given.get("image_url")
        source = source.get("url") if isinstance(source, dict) else source
        if source is None:
            content.append(item)
            continue
        text = str(source)
        bare = text.removeprefix("file://")
        read = read_data_url(text) if text[:5] == "data:" else read_picture_file(Path(bare))
        pictures.append(read)
        content.append({"type": "image"})
    return {**message, "content": content}


def _entry(message: Message, mask: Mask, sees: bool) -> dict[str, Any]:
    """Return the message as chat templates expect it, outside text masked.

    A model that does not see reads of the pictures in words.
    """
    entry: dict[str, Any] = {"role": message.role, "content": mask(message.content)}
    if message.pictures and sees:
        text = {"type": "text", "text": entry["content"]}
        entry["content"] = [*({"type": "image"} for _ in message.pictures), text]
    elif message.pictures:
        words = [f"[{picture.words}]" for picture in message.pictures]
        entry["content"] = mask("\n".join([*words, message.content]))
    if message.role == "assistant":
        # Always text: without it templates look for think tags in the content.
        entry["reasoning_content"] = mask(message.thinking)
        if message.tool_calls:
            entry["tool_calls"] = [
                {
                    "type": "function",
                    "function": {"name": mask(call.name), "arguments": mask(call.arguments)},
                }
                for call in message.tool_calls
            ]
    return entry
