"""The turn parser on arbitrary text: it never raises, and how the text is cut does not matter."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from model.chat.chat_format import ChatFormat
from model.chat.parser import TurnParser
from model.chat.tokenizer import Tokenizer
from model.chat.turn_events import (
    CallParsed,
    CallRefused,
    CallStarted,
    ContentText,
    ThinkingText,
    TurnEvent,
)
from model.messages import Message, ToolCall

EXAMPLES = int(os.environ.get("TENUTO_FUZZ_EXAMPLES", "800"))
"""How many inputs the fuzzer tries; the long mode takes 100,000."""

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "edit",
            "parameters": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "count": {"type": "integer"},
                    "ratio": {"type": "number"},
                    "all": {"type": "boolean"},
                    "items": {"type": "array"},
                    "options": {"type": "object"},
                    "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                },
            },
        },
    }
]
FRAGMENTS = [
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<function=edit>", "<function=", "edit>",
    "</function>", "<parameter=text>", "<parameter=count>", "<parameter=", "</parameter>", "\n",
    "\n\n", " ", "12", "null", "x", "é", "<", ">", "</", "{", "}", "<|im_end|>", "<tool_response>",
    "```", "\n```\n", "`", "``", "    ", "\n> ", "</parameter", "</PARAMETER>", "\r\n", "<pre>",
    "</pre>", "<!--", "-->", '"', "`</think>`",
    "\n<function=edit>\n", "\n</parameter>\n</function>",
    "\n<tool_call>\n<function=edit>\n<parameter=text>\n",
]  # fmt: skip
markup = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=25).map("".join)


@pytest.fixture(scope="module")
def chat(qwen_chat: Callable[[str], ChatFormat]) -> ChatFormat:
    return qwen_chat("qwen3_6")


def merged(events: Sequence[TurnEvent]) -> list[TurnEvent]:
    """The events with neighbouring texts of a kind joined."""
    joined: list[TurnEvent] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, ThinkingText) and isinstance(last, ThinkingText):
            joined[-1] = ThinkingText(last.text + event.text)
        elif isinstance(event, ContentText) and isinstance(last, ContentText):
            joined[-1] = ContentText(last.text + event.text)
        else:
            joined.append(event)
    return joined


def read(parser: TurnParser, pieces: Sequence[str], stop: int | None) -> tuple[Any, ...]:
    events = [event for piece in pieces for event in parser.push_text(piece)]
    if stop is not None:
        events += parser.push(stop)
    message = parser.finish()
    assert parser.finish() == message
    assert parser.push(stop or 0) == []
    return message, merged(events), parser.in_thinking


@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(text=markup, cuts=st.lists(st.integers(0, 300)), thinking=st.booleans(), ended=st.booleans())
@example(text="<tool_call>\n<function=edit>\n</function>", cuts=[3, 12], thinking=True, ended=True)
@example(text="<tool_call>", cuts=[], thinking=False, ended=False)
@example(text="<function=edit>\n</function>\n</parameter>", cuts=[], thinking=False, ended=True)
def test_never_raises_and_does_not_depend_on_the_cuts(
    text: str, cuts: list[int], thinking: bool, ended: bool, chat: ChatFormat
) -> None:
    stop = next(iter(chat.stop_ids)) if ended else None
    whole = read(chat.parser(TOOLS, thinking), [text], stop)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(places)]
    assert read(chat.parser(TOOLS, thinking), pieces, stop) == whole
    assert read(chat.parser(TOOLS, thinking), list(text), stop) == whole
    message = whole[0]
    spoken = [event.text for event in whole[1] if isinstance(event, ContentText)]
    if ended:  # otherwise the last words only show in the message
        assert "".join(spoken) == message.content
        calls: list[ToolCall] = []
        for event in whole[1]:
            if isinstance(event, CallRefused):
                calls.pop()
            if isinstance(event, CallParsed | CallRefused):
                calls.append(event.call)
        assert tuple(calls) == message.tool_calls


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(ids=st.lists(st.integers(0, 248_319), max_size=40), thinking=st.booleans())
def test_any_ids_are_read(
    ids: list[int], thinking: bool, chat: ChatFormat, qwen_tokenizer: Tokenizer
) -> None:
    """Random ids: broken UTF-8, special tokens, ids beyond the vocabulary."""
    parser = chat.parser(TOOLS, thinking)
    for token_id in ids:
        parser.push(token_id)
    message = parser.finish()
    kept = [i for i, token_id in enumerate(ids) if token_id in chat.stop_ids]
    text = qwen_tokenizer.decode(ids[: kept[0]] if kept else ids)
    assert len(message.content) + len(message.thinking) <= len(text)
    assert 0 <= parser.thinking_tokens <= len(ids)


plain = st.lists(
    st.sampled_from(
        ["a", "\n", " ", "<", "</parameter>", "</b>", "é", "x = 1", "</parameter>\nx", "{"]
    )
).map("".join)
arguments = st.fixed_dictionaries(
    {},
    optional={
        "text": plain,
        "count": st.integers(),
        "ratio": st.floats(allow_nan=False, allow_infinity=False),
        "all": st.booleans(),
        "items": st.lists(st.integers() | plain),
        "options": st.dictionaries(plain, st.none() | plain),
        "maybe": st.none() | st.integers(),
    },
)


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(
    thinking=plain.map(str.strip),
    content=plain.map(str.strip),
    made=st.lists(arguments, max_size=3),
)
def test_canonical_turns_come_back(
    thinking: str,
    content: str,
    made: list[dict[str, Any]],
    chat: ChatFormat,
) -> None:
    """What the template writes for a message is read as that message."""
    turn = Message("assistant", content, thinking, tuple(ToolCall("edit", given) for given in made))
    before = chat.begin([Message("user", "q")], [], True)
    whole = chat.begin([Message("user", "q"), turn, Message("user", "q")], [], True)
    parser = chat.parser(TOOLS, True)
    events = []
    ids = whole[len(before) :]
    for token_id in ids:  # what follows the stop id is ignored
        events += parser.push(token_id)
    message = parser.finish()
    written = json.dumps([dict(call.arguments) for call in message.tool_calls])
    assert (message.thinking, message.content) == (thinking, content)
    assert written == json.dumps(made)
    assert all(call.error is None for call in message.tool_calls)
    assert sum(isinstance(event, CallStarted) for event in events) == len(made)
