"""Text from outside made safe to show: control characters as pictures."""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """``text`` with control characters shown, so that no file or output can steer a terminal.

    Newlines and tabs stay. Escape becomes U+241B and so on; characters that reorder text, and
    bytes that were no UTF-8, become U+FFFD.
    """
    return _CONTROL.sub(_picture, text)


def one_line(error: BaseException) -> str:
    """The error's message on one line, control characters made visible."""
    text = " ".join(str(error).split()) or type(error).__name__
    return visible(text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"
