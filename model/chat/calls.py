"""Builds one ``ToolCall`` from what the parser finds, and words what is wrong with it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from model.chat.arguments import LEFT_OUT, Signatures
from model.messages import ToolCall, ToolSchema

_CUT = (
    "was cut off by the token limit, so it was not run;"
    " send it again, in smaller parts if it is long."
)
_CUT_SHORT = (
    "After this call stands the end of another value, so one of its values seems to hold the markup"
    " of a call and was cut; it was not run. Write that value in parts, or indent its markup."
)
_NO_FUNCTION = (
    "A <tool_call> block has no <function=NAME> line;"
    " write <function=NAME> on the line after <tool_call>."
)

_TAG_ALONE = re.compile(r"(?:[<\uff1c\u2039\u3008]|&lt;|\[(?=\s*/))[^\n]{0,80}\Z")
_LAST_TAG = re.compile(r"[<\uff1c][\s/\\]*([a-zA-Z]{5,14})\W*\Z")


class CallBuilder:
    """The call being read. ``begin`` starts afresh; each way to end it returns the call."""

    def __init__(self, tools: Sequence[ToolSchema]) -> None:
        self._tools = Signatures(tools)
        self._name = ""
        self._parameter = ""
        self._arguments: dict[str, Any] = {}
        self._errors: list[str] = []

    def begin(self, name: str) -> None:
        """Start a call to the function ``name``."""
        self._name, self._arguments, self._errors = name, {}, []

    def open_parameter(self, name: str) -> None:
        """Note that the value of the parameter ``name`` comes next."""
        self._parameter = name

    def awaits(self, parameter: str) -> bool:
        """Tell whether the tool has this parameter and it is neither given nor open."""
        given = parameter in self._arguments or parameter == self._parameter
        return not given and parameter in self._tools.parameters(self._name)

    def value(self, text: str) -> None:
        """Add the value of the open parameter."""
        if self._parameter in self._arguments:
            self._errors.append(f"Parameter {self._parameter!r} is given twice.")
        converted, error = self._tools.convert(self._name, self._parameter, text)
        if converted is not LEFT_OUT:
            self._arguments[self._parameter] = converted
        if error is not None:
            self._errors.append(error)
        self._parameter = ""

    def ends_mangled(self, value: str) -> bool:
        """Tell whether ``value`` ends in a tag that may be meant as an end tag of the call."""
        names = "|".join(map(re.escape, ("function", "tool_call", self._parameter)))
        begins = rf"(?:<|&lt;|\[(?=\s*/))[\s/\\]*(?:param(?:eter)?s?|{names})(?![\w-])"
        if re.search(rf"{begins}[^<>\n]*>*\s*\Z", value[-400:], re.I):
            return True
        last = value[-400:].rstrip().rpartition("\n")[2].strip()
        if _TAG_ALONE.match(last):
            return True
        word = _LAST_TAG.search(last)
        return bool(word and difflib.get_close_matches(word[1].lower(), ["parameter"], cutoff=0.7))

    def unclosed(self) -> None:
        """Note that the open parameter's end tag is missing or misplaced."""
        self._errors.append(
            f"Parameter {self._parameter!r} is not closed;"
            " write </parameter> at the start of the line after its value."
        )

    def cut_short(self, call: ToolCall) -> ToolCall:
        """Return ``call`` as refused: an end tag after it tells that one of its values was cut."""
        return call if call.error else replace(call, error=_CUT_SHORT)

    def between(self, text: str) -> None:
        """Text outside of any parameter; there should be only whitespace."""
        stray = text.strip()
        if stray:
            shown = stray if len(stray) <= 60 else stray[:57] + "..."
            self._errors.append(
                f"Between the parameters of {self._name} is text, where none may be: {shown!r}."
            )

    def complete(self) -> ToolCall:
        """End the call as complete and return it."""
        error = " ".join(self._errors) or None
        if not self._tools.knows(self._name):
            error = self._tools.unknown(self._name)
        return self._take(error)

    def cut(self) -> ToolCall:
        """End a call that the text stopped in the middle of, and return it as refused."""
        return self._take(f"The call to {self._name} {_CUT}" if self._name else f"The call {_CUT}")

    def without_function(self) -> ToolCall:
        """Return a refused call for a block that held no function."""
        return self._take(_NO_FUNCTION)

    def _take(self, error: str | None) -> ToolCall:
        arguments: Mapping[str, Any] = self._arguments
        call = ToolCall(self._name, arguments, error)
        self.begin("")
        return call
