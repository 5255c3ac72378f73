"""The turn parser, case by case. Arbitrary text is in tests/property/test_parser_fuzz.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from model.chat.chat_format import ChatFormat
from model.chat.parser import TurnParser
from model.chat.tokenizer import Tokenizer
from model.chat.turn_events import CallParsed, CallStarted, ContentText, ThinkingText
from model.messages import Message, ToolCall

STOP = 248_046
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": properties},
        },
    }
    for name, properties in {
        "read_file": {"file_path": {"type": "string"}, "limit": {"type": "integer"}},
        "write_file": {"file_path": {"type": "string"}, "content": {"type": "string"}},
        "submit": {},
    }.items()
]


@pytest.fixture(scope="module")
def chat(qwen_chat: Callable[[str], ChatFormat]) -> ChatFormat:
    return qwen_chat("qwen3_6")


@pytest.fixture
def read(chat: ChatFormat) -> Callable[..., Message]:
    """``read(text)`` parses visible text that ends with a stop token (``stop=False``: was cut)."""

    def parse(text: str, *, thinking: bool = False, stop: bool = True) -> Message:
        parser = chat.parser(TOOLS, thinking)
        parser.push_text(text)
        if stop:
            parser.push(STOP)
        return parser.finish()

    return parse


def write_call(content: str) -> str:
    return (
        "<tool_call>\n<function=write_file>\n<parameter=file_path>\na.py\n</parameter>\n"
        f"<parameter=content>\n{content}\n</parameter>\n</function>\n</tool_call>"
    )


def test_a_turn_as_the_model_samples_it(chat: ChatFormat, qwen_tokenizer: Tokenizer) -> None:
    parser = chat.parser(TOOLS, True)
    text = (
        "Look first.\n</think>\n\nI read it.\n\n<tool_call>\n<function=read_file>\n"
        "<parameter=file_path>\na b.py\n</parameter>\n<parameter=limit>\n12\n</parameter>\n"
        "</function>\n</tool_call><|im_end|>"
    )
    ids = qwen_tokenizer.encode_markup(text)
    events = [event for token_id in ids for event in parser.push(token_id)]
    call = ToolCall("read_file", {"file_path": "a b.py", "limit": 12})
    message = Message("assistant", "I read it.", "Look first.", (call,))
    assert parser.finish() == message
    assert events[-2:] == [CallStarted("read_file"), CallParsed(call)]
    said = "".join(event.text for event in events if isinstance(event, ContentText))
    thought = "".join(event.text for event in events if isinstance(event, ThinkingText))
    assert (thought, said) == ("Look first.", "I read it.")
    assert parser.thinking_tokens == len(qwen_tokenizer.encode_markup("Look first.\n</think>"))
    assert not parser.in_thinking


def test_a_call_is_known_before_the_turn_ends(chat: ChatFormat) -> None:
    parser = chat.parser(TOOLS, False)
    assert parser.push_text("<tool_call>\n<function=submit>\n") == [CallStarted("submit")]
    assert parser.push_text("</function>") == [CallParsed(ToolCall("submit"))]


@pytest.mark.parametrize(
    "content",
    [
        'x = "</parameter>"',
        "if a < b:\n    return '</function>'",
        '<a>\n<parameter name="x">\n</parameter>\n</a>',
        "</parameter>\nmore",
        "</parameter>",
        "</function>\nmore\n</tool_call>\nmore",
        "<tool_call>\nnot a call",
        "<parameter=file_path>\ngiven already",
        "<parameter=unknown>\nno such parameter",
        "<think>\nno\n</think>",
        "\n\nblank lines around\n\n",
        "",
        "    indented\n\ttab \u00e9\u65e5\U0001f642\u2028",
        "null",
        "ends with <",
        "<|im_end|>",
    ],
)
def test_a_value_survives_markup_in_it(content: str, read: Callable[..., Message]) -> None:
    message = read(write_call(content))
    assert message.tool_calls == (
        ToolCall("write_file", {"file_path": "a.py", "content": content}),
    )


@pytest.mark.parametrize(
    "text",
    [
        # no opener, no closer, nothing closed, values on their tags' lines
        "<function=read_file>\n<parameter=file_path>\na\n</parameter>\n</function>\n</tool_call>",
        "<tool_call>\n<function=read_file>\n<parameter=file_path>\na\n</parameter>\n</function>",
        "<tool_call>\n<function=read_file>\n<parameter=file_path>\na\n</parameter>\n</tool_call>",
        "<tool_call>\n<function=read_file>\n<parameter=file_path>\na\n</function>\n</tool_call>",
        "<tool_call>\n<function=read_file>\n<parameter=file_path>\na\n</tool_call>",
        "<tool_call>\n<function=read_file>\n<parameter=file_path>\na\n</parameter>\n",
        "<tool_call>\n<function=read_file>\n<parameter=file_path>\na",
        "<tool_call><function=read_file><parameter=file_path>a</parameter></function></tool_call>",
        "<tool_call>\n<function=read_file>\n<parameter=file_path>\na</parameter>\n</function>\n"
        "</tool_call>",
        '<tool_call>\n<function="read_file">\n<parameter= file_path >\na\n</parameter>\n'
        "</function>",
        "<tool_call>\n<function=read_file\n<parameter=file_path\na\n</parameter>\n</function>",
    ],
)
def test_sloppy_calls_are_understood(text: str, read: Callable[..., Message]) -> None:
    assert read(text).tool_calls == (ToolCall("read_file", {"file_path": "a"}),)


def test_an_open_value_ends_at_the_next_parameter(read: Callable[..., Message]) -> None:
    text = (
        "<tool_call>\n<function=read_file>\n<parameter=file_path>\na\n<parameter=limit>\n3\n"
        "</parameter>\n</function>\n</tool_call>"
    )
    assert read(text).tool_calls == (ToolCall("read_file", {"file_path": "a", "limit": 3}),)


def test_indented_end_tags_are_refused_not_written(read: Callable[..., Message]) -> None:
    text = (
        "<tool_call>\n<function=write_file>\n<parameter=content>\nx\n  </parameter>\n"
        "  </function>\n</tool_call>"
    )
    (call,) = read(text).tool_calls
    assert call.error is not None
    assert "'content' is not closed" in call.error


def test_several_calls_and_text_around_them(read: Callable[..., Message]) -> None:
    call = "<tool_call>\n<function=submit>\n</function>\n</tool_call>"
    message = read(f"before\n\n{call}\n{call}\nafter\n")
    assert message.tool_calls == (ToolCall("submit"), ToolCall("submit"))
    assert message.content == "before\n\nafter"


def test_a_call_inside_reasoning_ends_it(read: Callable[..., Message]) -> None:
    message = read(
        "I must run <tool_call> now.\n<tool_call>\n<function=submit>\n</function>\n</tool_call>",
        thinking=True,
    )
    assert message.thinking == "I must run <tool_call> now."
    assert message.tool_calls == (ToolCall("submit"),)


@pytest.mark.parametrize(
    ("text", "thinking", "content"),
    [
        ("a\n</think>\n\nb", "a", "b"),
        ("<think>\na\n</think>\n\nb", "a", "b"),
        ("a\n</think>\n\n</think>\n\nb", "a", "b"),
        ("a\n</think>\n\nb\n</think>\n\nc", "a", "b\n\n\nc"),
        ("</think>\n\nb says `</think>` here", "", "b says `</think>` here"),
        ("a\n</think><think>\nb\n</think>\nc", "a\n\nb", "c"),
        ("a <think> b", "a <think> b", ""),
    ],
)
def test_think_tags(text: str, thinking: str, content: str, read: Callable[..., Message]) -> None:
    message = read(text, thinking=True)
    assert (message.thinking, message.content) == (thinking, content)


def test_reasoning_never_closed(chat: ChatFormat, qwen_tokenizer: Tokenizer) -> None:
    parser = chat.parser(TOOLS, True)
    ids = qwen_tokenizer.encode_text("I wonder")
    for token_id in ids:
        parser.push(token_id)
    assert parser.finish() == Message("assistant", thinking="I wonder")
    assert parser.in_thinking
    assert parser.thinking_tokens == len(ids)


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>",
        "<tool_call>\n<func",
        "<tool_call>\n<function=write_file",
        "<tool_call>\n<function=write_file>\n",
        "<tool_call>\n<function=write_file>\n<parameter=file_path>\na.py\n</parameter>\n",
        "<tool_call>\n<function=write_file>\n<parameter=content>\nhalf of",
        "<tool_call>\n<function=write_file>\n<parameter=content>\nall of it\n</parameter>\n</func",
    ],
)
def test_a_call_cut_at_the_token_limit(text: str, read: Callable[..., Message]) -> None:
    (call,) = read(text, stop=False).tool_calls
    assert call.error is not None
    assert "cut off by the token limit" in call.error
    assert call.name in ("", "write_file")
    assert "half of" not in call.arguments.values()


def test_a_complete_call_before_the_cut_counts(read: Callable[..., Message]) -> None:
    message = read("<tool_call>\n<function=submit>\n</function>\n</tool", stop=False)
    assert message.tool_calls == (ToolCall("submit"),)


@pytest.mark.parametrize("text", ["<tool_call>\n</tool_call>", "<tool_call>\nread_file a.py"])
def test_a_block_without_a_function(text: str, read: Callable[..., Message]) -> None:
    (call,) = read(text).tool_calls
    assert call.error is not None
    assert "<function=NAME>" in call.error


@pytest.mark.parametrize(
    "text",
    [
        "Use the <tool_call> tag.",
        "a < b, <b>bold</b>, <function=x is no call",
        "<function=NAME> stands for any function",
        "</function>",
        "ends with <tool_c",
    ],
)
def test_text_that_is_no_call(text: str, read: Callable[..., Message]) -> None:
    assert read(text) == Message("assistant", text)


def test_an_unknown_tool_is_named_with_its_neighbours(read: Callable[..., Message]) -> None:
    (call,) = read("<tool_call>\n<function=readfile>\n</function>\n</tool_call>").tool_calls
    assert call.error is not None
    assert "no tool 'readfile'" in call.error
    assert "read_file" in call.error


def test_what_does_not_fit_is_kept_as_text(read: Callable[..., Message]) -> None:
    (call,) = read(
        "<tool_call>\n<function=read_file>\n<parameter=limit>\nall\n</parameter>\n"
        "<parameter=file_path>\na\n</parameter>\n</function>\n</tool_call>"
    ).tool_calls
    assert call.arguments == {"limit": "all", "file_path": "a"}
    assert call.error == "Parameter 'limit' of read_file must be an integer, got 'all'."


def test_text_between_parameters_and_doubled_parameters(read: Callable[..., Message]) -> None:
    one = "<parameter=file_path>\na\n</parameter>\n"
    (call,) = read(
        f"<tool_call>\n<function=read_file>\n{{'a': 1}}\n{one}{one}</function>\n</tool_call>"
    ).tool_calls
    assert call.error is not None
    assert "none may be: \"{'a': 1}\"" in call.error
    assert "'file_path' is given twice" in call.error


def test_a_long_value_is_read_in_linear_time(chat: ChatFormat) -> None:
    """A megabyte in small pieces: rescanning it for each piece would take hours."""
    parser = chat.parser(TOOLS, False)
    content = "a < b </parameter> \n" * 50_000
    for start in range(0, len(text := write_call(content)), 50):
        parser.push_text(text[start : start + 50])
    (call,) = parser.finish().tool_calls
    assert call.arguments["content"] == content


def test_what_comes_after_the_stop_is_ignored(chat: ChatFormat) -> None:
    parser: TurnParser = chat.parser(TOOLS, False)
    parser.push_text("done")
    parser.push(STOP)
    assert parser.push_text("more") == []
    assert parser.push(100) == []
    assert parser.finish() == Message("assistant", "done")
