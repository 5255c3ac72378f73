"""Calls that a turn only drafts or shows, values that spell calls, and mangled tags."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from model.chat.chat_format import ChatFormat
from model.messages import Message, ToolCall

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {key: {"type": "string"} for key in keys},
                "required": list(keys),
            },
        },
    }
    for name, keys in {
        "run": ("command",),
        "write": ("path", "content"),
        "edit": ("path", "old", "new"),
        "submit": ("summary",),
    }.items()
]
Read = Callable[..., Message]


@pytest.fixture(scope="module")
def read(qwen_chat: Callable[[str], ChatFormat]) -> Read:
    chat = qwen_chat("qwen3_6")

    def parse(text: str, *, thinking: bool = False) -> Message:
        """Parse the text whole and letter by letter; both must agree."""
        messages = []
        for pieces in ([text], list(text)):
            parser = chat.parser(TOOLS, thinking)
            for piece in pieces:
                parser.push_text(piece)
            parser.push(next(iter(chat.stop_ids)))
            messages.append(parser.finish())
        assert messages[0] == messages[1]
        return messages[0]

    return parse


def call(name: str, /, **values: str) -> str:
    body = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in values.items())
    return f"<tool_call>\n<function={name}>\n{body}</function>\n</tool_call>"


def commands(message: Message) -> list[object]:
    return [made.arguments.get("command", made.name) for made in message.tool_calls]


RESET, STATUS = call("run", command="git reset --hard"), call("run", command="git status")


@pytest.mark.parametrize(
    "draft",
    [
        f"I could:\n{RESET}\nNo, look first.\n",
        f"At the end I send\n{call('submit', summary='done')}\nFirst:\n",
        f"The reply:\n```\n{call('submit', summary='x')}\n```\nbut tests fail.\n",
        f"Two ways:\n{RESET}\n{RESET}\n",
        "The format is `<tool_call>\n<function=NAME>` and so on.\n",
        "<tool_call>\n<function=run>\n<parameter=command>\nrm -rf x\nwait, no\n",
    ],
)
def test_a_call_drafted_before_the_reasoning_closes_is_reasoning(draft: str, read: Read) -> None:
    message = read(f"{draft}</think>\n\n{STATUS}", thinking=True)
    assert commands(message) == ["git status"]
    assert message.thinking == draft.strip()
    assert message.content == ""


def test_a_call_drafted_in_reasoning_that_visible_text_opens_is_not_made(read: Read) -> None:
    message = read(f"Hello <think>\n{RESET}\nno\n</think>\n{STATUS}")
    assert commands(message) == ["git status"]
    assert commands(read(f"The tag <think> opens it.\n{STATUS}")) == ["git status"]
    assert commands(read(f"<think>a</think>Now <think>b</think>\n{STATUS}")) == ["git status"]


@pytest.mark.parametrize(
    "tag", ["</param>", "</parameters>", "&lt;/parameter&gt;", "<\\/parameter>", "[/parameter]"]
)
def test_more_end_tags_that_are_none_refuse_the_call(tag: str, read: Read) -> None:
    (made,) = read(call("run", command="ls").replace("</parameter>", tag)).tool_calls
    assert made.error is not None
    (kept,) = read(call("run", command=f"echo '{tag}'\n{tag}")).tool_calls
    assert kept.error is None


def test_a_call_in_reasoning_that_is_never_closed_runs(read: Read) -> None:
    message = read(f"Go.\n{STATUS}", thinking=True)
    assert (commands(message), message.thinking) == (["git status"], "Go.")


def test_a_closing_tag_in_a_value_closes_no_reasoning(read: Read) -> None:
    text = "a\n</think>\nb"
    message = read(f"Go.\n{call('write', path='t.md', content=text)}", thinking=True)
    assert message.tool_calls == (ToolCall("write", {"path": "t.md", "content": text}),)


@pytest.mark.parametrize(
    "shown",
    [
        f"One writes:\n\n```\n{RESET}\n```\n\nand then waits.",
        f"One writes:\n\n~~~xml\n{RESET}\n~~~\n",
        "One writes:\n\n" + "".join(f"    {line}\n" for line in RESET.split("\n")) + "\nLike so.",
        "One writes:\n\n" + "".join(f"> {line}\n" for line in RESET.split("\n")) + "\nLike so.",
        "The format `<tool_call>\n<function=run>\n</function>` is XML.",
        f"Write ``{RESET}`` and wait.",
        f"Write `a call {RESET}` and wait.",
        f"<pre>\n{RESET}\n</pre>\nLike so.",
        f"<PRE class='x'><code>{RESET}</code></PRE>\nLike so.",
        f"Like <code>{RESET}</code> it goes.",
        f"<example>\n{RESET}\n</example>",
        f"<!--\n{RESET}\n-->\nNot now.",
        f'One writes "{RESET}" there.',
    ],
)
def test_a_call_that_is_shown_is_no_call(shown: str, read: Read) -> None:
    message = read(shown)
    assert message.tool_calls == ()
    assert message.content == shown.strip()
    assert commands(read(f"{shown}\n\n{STATUS}")) == ["git status"]


def test_a_fence_that_stays_open_shows_nothing(read: Read) -> None:
    assert commands(read(f"```\n{STATUS}")) == ["git status"]


def test_what_an_indented_block_ends_with_is_shown_after_words(read: Read) -> None:
    block = "".join(f"    {line}\n" for line in call("submit", summary="x").split("\n"))
    assert read(f"So it goes:\n\n{block}").tool_calls == ()
    assert read(block).tool_calls != ()


@pytest.mark.parametrize(
    "before",
    ["The tag `<pre>` is open.", "<pre> is open.", "```\nnever closed", "An odd ` here:", 'So "'],
)
@pytest.mark.parametrize("thinking", [False, True])
def test_what_a_value_holds_closes_no_example(before: str, thinking: bool, read: Read) -> None:
    content = '<pre>x</pre>\n```sh\nls\n```\n`date` "x"'
    made = read(f"{before}\n{call('write', path='a', content=content)}", thinking=thinking)
    assert made.tool_calls == (ToolCall("write", {"path": "a", "content": content}),)


def test_an_example_in_reasoning_that_is_never_closed_is_shown(read: Read) -> None:
    submit = call("submit", summary="x")
    assert commands(read(f"So:\n```\n{submit}\n```\nNow:\n{STATUS}", thinking=True)) == [
        "git status"
    ]


def test_a_closing_tag_named_in_backticks_closes_no_reasoning(read: Read) -> None:
    message = read(f"A `</think>` ends it.\n{RESET}\nNo.</think>\n\n{STATUS}", thinking=True)
    assert commands(message) == ["git status"]
    assert message.thinking.endswith("No.")
    assert read("A `</think>` B", thinking=True).thinking == "A `"


SPELLED = f"CALL = '''\n{call('run', command='ls')}\n'''\nassert CALL"


HALF = "<parameter=a>\n1\n</parameter>\n</function>"


@pytest.mark.parametrize(
    "content",
    [
        SPELLED,
        f"{SPELLED}\n{SPELLED}",
        call("run", command="x"),
        f"<function=f>\n{HALF}",
        f"<function=f>\n{HALF}\nmore",
        f'CALL = """{call("run", command="x")}"""',
    ],
)
def test_a_value_that_spells_whole_calls_is_kept_whole(content: str, read: Read) -> None:
    message = read(call("write", path="t.py", content=content))
    assert message.tool_calls == (ToolCall("write", {"path": "t.py", "content": content}),)
    assert message.content == ""


@pytest.mark.parametrize(
    "text",
    [
        call("edit", path="t.md", old=HALF, new=HALF.replace("1", "2")),
        call("write", path="t.md", content=f"x\n{HALF}\n</tool_call>\nmore"),
        call("write", path="t.md", content="<tool_call>\n<function=f>\n<parameter=a>"),
        call("write", path="t.md", content=f"x\n{HALF}\n</tool_call>\n{STATUS}\nmore"),
        call("write", path="t.md", content="x\n</parameter>"),
    ],
)
def test_a_value_that_cannot_be_told_from_markup_is_refused(text: str, read: Read) -> None:
    for made in read(text).tool_calls:
        assert made.error is not None
        assert "\n" not in made.error


@pytest.mark.parametrize(
    "text",
    [
        f"\nls\n{STATUS}",
        f"ls{STATUS}",
        f"\nls{STATUS}",
        f"\nls\n{STATUS}\n{STATUS}",
        f"\nls\n</parameter>\n{STATUS}",
        f"\nls\n</function>\n{STATUS}",
        "\nls\n" + STATUS.removeprefix("<tool_call>\n"),
    ],
)
def test_a_call_without_its_ends_before_the_next_one_is_refused(text: str, read: Read) -> None:
    made = read(f"<tool_call>\n<function=run>\n<parameter=command>{text}").tool_calls
    assert made
    for one in made:
        assert one.error is not None or "<" not in str(one.arguments["command"])


@pytest.mark.parametrize(
    "tag",
    [
        "</ parameter>",
        "<parameter>",
        "</command>",
        "</parameter>>",
        "<//parameter>",
        "< /PARAMETER >",
        "</paramter>",
        "</parametre>",
    ],
)
@pytest.mark.parametrize("before", ["\n", ""])
def test_what_may_be_meant_as_an_end_tag_refuses_the_call(
    tag: str, before: str, read: Read
) -> None:
    text = f"{before}ls{before}{tag}\n</function>\n</tool_call>"
    (made,) = read(f"<tool_call>\n<function=run>\n<parameter=command>{text}").tool_calls
    assert made.error is not None or made.arguments == {"command": "ls"}


@pytest.mark.parametrize(
    "tag",
    ["</parameter", "</parameter >", "</parameter=command>", "</PARAMETER>", "</parameter\t>"],
)
def test_mangled_end_tags_end_the_value(tag: str, read: Read) -> None:
    text = f"<tool_call>\n<function=run>\n<parameter=command>\nls\n{tag}\n</function>\n</tool_call>"
    assert read(text).tool_calls == (ToolCall("run", {"command": "ls"}),)


@pytest.mark.parametrize(
    "end", ["</invoke>", "</value>", "<end_parameter>", "\uff1c/parameter\uff1e", "</p>"]
)
def test_another_tag_where_the_end_tag_is_missing_refuses_the_call(end: str, read: Read) -> None:
    (made,) = read(call("run", command="ls").replace("</parameter>", end)).tool_calls
    assert made.error is not None


@pytest.mark.parametrize("end", ["\r\n</parameter>\r", "\n  </parameter>", "\n\t</parameter>"])
def test_the_space_of_a_mangled_end_tag_is_no_part_of_the_value(end: str, read: Read) -> None:
    text = call("run", command="ls").replace("\n</parameter>", end)
    assert read(text).tool_calls == (ToolCall("run", {"command": "ls"}),)


def test_line_ends_and_spaces_around_tags_are_no_part_of_a_value(read: Read) -> None:
    crlf = call("write", path="a.py", content="x = 1").replace("\n", "\r\n")
    assert read(crlf).tool_calls == (ToolCall("write", {"path": "a.py", "content": "x = 1"}),)
    spaced = call("run", command="ls").replace("<parameter=command>", "<parameter=command> ")
    assert read(spaced).tool_calls == (ToolCall("run", {"command": "ls"}),)


@pytest.mark.parametrize(
    "content", [" \nfirst line is blank", "\r\nx", "a\r\nb\r", "</parameters>\n"]
)
def test_such_text_inside_a_value_stays(content: str, read: Read) -> None:
    (made,) = read(call("write", path="a", content=content)).tool_calls
    assert made.error is None
    assert made.arguments["content"] in (content, content.removeprefix("\r\n"))
