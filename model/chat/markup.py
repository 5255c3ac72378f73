"""The markup of a turn: which tags each state of the parser knows, and how they are spelled."""

from __future__ import annotations

import re
from enum import Enum, auto


class ParserState(Enum):
    """A part of a turn, as the parser reads it."""

    THINKING = auto()
    CONTENT = auto()
    MALFORMED = auto()  # after a <tool_call> line that no function follows
    FUNCTION = auto()  # inside <function=...>, between parameters
    VALUE = auto()


NAME = r"[^<>\r\n]{1,200}"
TAG = re.compile(rf"<(?:function|parameter)=({NAME})(?:>|(?=\r?\n))")
OPEN_TAG = re.compile(r"<(?:function|parameter)=[^<>\n]{0,200}\Z")
SPACE = re.compile(r"\s*")
MARKS = {
    ParserState.THINKING: ("<think>", "</think>", "<tool_call>"),
    ParserState.CONTENT: (
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<function=",
        "</parameter>",
        "</function>",
    ),
    ParserState.MALFORMED: ("</tool_call>",),
    ParserState.FUNCTION: (
        "<parameter=",
        "</parameter>",
        "</function>",
        "</tool_call>",
        "<tool_call>",
        "<function=",
    ),
    ParserState.VALUE: (
        "<parameter=",
        "</parameter",
        "</function>",
        "</tool_call>",
        "<tool_call>",
        "<function=",
    ),
}
LINE_BREAK = re.compile(r"[ \t]*(\r?\n)")
END_OF_VALUE = re.compile(r"</parameter(?:=[^<>\n]{0,200})?[ \t]*(?:>|(?=\r?\n))", re.IGNORECASE)
OPEN_END_OF_VALUE = re.compile(r"</parameter(?:=[^<>\n]{0,200})?[ \t\r]*\Z", re.IGNORECASE)
CRLF_TAG = re.compile(r"[^\r\n]*\r\n")
INDENTED_END = re.compile(r"(?:\r?\n[ \t\u200b\ufeff]*)(?=</parameter>\Z)")
TWICE_ENDED = re.compile(r"\n[ \t]*</parameter[ \t]*>\s*\Z", re.IGNORECASE)
# What makes an end tag inside a value a real one.
AFTER = {
    "</parameter": ("<parameter=", "</function", "</tool_call"),
    "</function>": ("</tool_call>", "<tool_call>", "<function="),
    "</tool_call>": ("<tool_call>", "<function="),
}


def past_space(text: str, place: int) -> int:
    """Return the first place from ``place`` on that holds no whitespace."""
    found = SPACE.match(text, place)
    return found.end() if found else place


def clean_name(name: str) -> str:
    """Return a name that a model wrote without the spaces or quotes around it."""
    return name.strip().strip("\"'")
