"""The calls that a list of tools allows, as states of the text of one call.

The form is the one that the family's templates write::

    <tool_call>
    <function=NAME>
    <parameter=P>
    value
    </parameter>
    </function>
    </tool_call>

Parameters come in any order, each once; the call ends only with all required ones. Strings are free
(``free_value``); enumerations, numbers, booleans, null, arrays and objects have their form. Where a
schema says more than that (patterns, what is in an array), more can be written than it allows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

from model.chat.arguments import follow_reference
from model.chat.markup import NAME, clean_name
from model.constraints.free_value import CLOSE, FreeValue
from model.constraints.json_value import JsonValue
from model.constraints.text_state import Choices, Number, TextState, either
from model.constraints.token_table import TokenTable
from model.messages import ToolSchema

_NAME = re.compile(NAME)
_TEXT = "string"
_WORDS = {"boolean": ("true", "false", "True", "False"), "null": ("null", "None")}
_DEPTH = 16


class Bounds(Protocol):
    """Says more of some values than their schema, from what the call holds so far."""

    def order(
        self, tool: str, given: Mapping[str, bytes], parameters: Sequence[str]
    ) -> Sequence[str]:
        """Return those of a tool's ``parameters`` that may come next."""
        ...

    def value(
        self, tool: str, parameter: str, given: Mapping[str, bytes], place: ValuePlace
    ) -> TextState | None:
        """Return the state of a value after ``given``; None leaves it to the schema."""
        ...


class ValuePlace(Protocol):
    """Place of a value in its call, as bound states know it."""

    def then(self, mark: bytes, value: bytes | None) -> TextState | None:
        """Return the state after the value and ``mark``: another parameter, or the end."""
        ...

    @property
    def awaited(self) -> frozenset[str]:
        """The parameters that were not given yet, this one left out."""
        ...


class ToolForm:
    """One tool's name and parameters, as its schema has them."""

    def __init__(self, function: Mapping[str, Any]) -> None:
        schema = function.get("parameters")
        self.schema: Mapping[str, Any] = schema if isinstance(schema, Mapping) else {}
        self.name = str(function.get("name", ""))
        found = self.schema.get("properties")
        properties = found if isinstance(found, Mapping) else {}
        self.parameters = {
            str(name): part if isinstance(part, Mapping) else {}
            for name, part in properties.items()
            if _can_stand(str(name))
        }
        required = self.schema.get("required")
        names = required if isinstance(required, list) else []
        self.required = frozenset(name for name in names if name in self.parameters)

    def forms(self, parameter: str) -> set[str | bytes]:
        """Return the types that a value may have, and the texts that it may be (as bytes)."""
        return _forms(self.parameters[parameter], self.schema, 0)


class CallGrammar:
    """The states of calls to ``tools``. ``start`` is the one after ``<tool_call>``, None without a
    tool that can be called. ``after`` is where a call leads."""

    def __init__(
        self, tools: Sequence[ToolSchema], after: TextState, bounds: Bounds | None = None
    ) -> None:
        functions = [tool.get("function", tool) for tool in tools]
        forms = [ToolForm(function) for function in functions if isinstance(function, Mapping)]
        self.tools = {form.name: form for form in forms if _can_stand(form.name)}
        self.after = after
        self.bounds = bounds

    @cached_property
    def start(self) -> TextState | None:
        """The state after ``<tool_call>``."""
        choices = [
            (f"\n<function={name}>\n".encode(), OpenCall(self, form, {}).between())
            for name, form in self.tools.items()
        ]
        return Choices(choices) if choices else None


class OpenCall:
    """A call to one tool with the parameters ``given`` so far; their values are kept only where
    bounds look at them."""

    def __init__(
        self,
        grammar: CallGrammar,
        tool: ToolForm,
        given: Mapping[str, bytes],
        known: dict[tuple[tuple[str, bytes], ...], OpenCall] | None = None,
    ) -> None:
        self._grammar, self._tool, self._given = grammar, tool, given
        self._known = {} if known is None else known
        self._known[tuple(sorted(given.items()))] = self
        self._values: dict[str, TextState] = {}
        self._after_marks: dict[bytes, TextState | None] = {}

    def between(self) -> TextState:
        """Return the state at the start of a line between parameters."""
        starts = ((mark, self._after(mark)) for mark in (b"<parameter=", b"</function"))
        choices = [(mark, state) for mark, state in starts if state is not None]
        return Choices(choices)

    def _after(self, mark: bytes) -> TextState | None:
        """Return the state after ``<parameter=`` or ``</function``; None if that may not come."""
        if mark not in self._after_marks:
            self._after_marks[mark] = self._find_after(mark)
        return self._after_marks[mark]

    def _find_after(self, mark: bytes) -> TextState | None:
        if mark == b"</function":
            if self._tool.required - self._given.keys():
                return None
            return Choices([(b">\n</tool_call>", self._grammar.after)])
        names = [name for name in self._tool.parameters if name not in self._given]
        if self._grammar.bounds is not None:
            names = list(self._grammar.bounds.order(self._tool.name, self._given, names))
        if not names:
            return None
        return Choices((f"{name}>\n".encode(), ValueStart(self, name)) for name in names)

    def value(self, name: str) -> TextState:
        """Return the state at the beginning of the value of ``name``."""
        place = _Parameter(self, name)
        bounds = self._grammar.bounds
        if bounds is not None:
            bound = bounds.value(self._tool.name, name, self._given, place)
            if bound is not None:
                return bound
        forms = self._tool.forms(name)
        if _TEXT in forms:
            return FreeValue(lambda mark: place.then(mark, None), place.awaited)
        closing = Choices([(CLOSE, AfterValue(place))])
        states: list[TextState] = []
        words = [form for form in forms if isinstance(form, bytes)]
        words += [w.encode() for kind in _WORDS if kind in forms for w in _WORDS[kind]]
        if words:
            states.append(literal_values(words, place, kept=self._grammar.bounds is not None))
        if "number" in forms or "integer" in forms:
            states.append(Number(closing, whole="number" not in forms))
        brackets = (b"[" if "array" in forms else b"") + (b"{" if "object" in forms else b"")
        if brackets:
            states.append(JsonValue(closing, opening=brackets))
        found = either(states)
        assert found is not None
        return found

    def with_value(self, name: str, value: bytes | None) -> OpenCall:
        """Return the call once ``name`` has been given."""
        given = {**self._given, name: value or b""}
        known = self._known.get(tuple(sorted(given.items())))
        return known or OpenCall(self._grammar, self._tool, given, self._known)

    @property
    def missing(self) -> frozenset[str]:
        """The parameters that were not given yet."""
        return frozenset(self._tool.parameters) - self._given.keys()


class _Parameter:
    """A parameter whose value is being written."""

    def __init__(self, call: OpenCall, name: str) -> None:
        self._call, self._name = call, name

    def then(self, mark: bytes, value: bytes | None) -> TextState | None:
        return self._call.with_value(self._name, value)._after(mark)

    @property
    def awaited(self) -> frozenset[str]:
        return self._call.missing - {self._name}


def literal_values(words: Iterable[bytes], place: ValuePlace, *, kept: bool) -> TextState:
    """Return the state at the beginning of a value that is one of ``words``.

    If it is ``kept``, the call knows later which one was written.
    """
    ends = ((word, AfterValue(place, word if kept else None)) for word in sorted(words))
    return Choices((word + CLOSE, then) for word, then in ends)


class ValueStart(TextState):
    """The beginning of a value; what it may be is found when it is reached."""

    def __init__(self, call: OpenCall, name: str) -> None:
        super().__init__()
        self._call, self._name = call, name

    @cached_property
    def _real(self) -> TextState:
        return self._call.value(self._name)

    @property
    def free(self) -> bool:  # type: ignore[override]
        """True if the value's beginning is."""
        return self._real.free

    def firsts(self) -> Iterable[int]:
        return self._real.firsts()

    def suspects(self, table: TokenTable) -> Iterable[int]:
        return self._real.suspects(table)

    def _step(self, byte: int) -> TextState | None:
        return self._real.step(byte)


class AfterValue(TextState):
    """The line after a value and its end tag: another parameter, or the end of the call."""

    def __init__(self, place: ValuePlace, value: bytes | None = None) -> None:
        super().__init__()
        self._place, self._value = place, value

    def firsts(self) -> Iterable[int]:
        return b"<"

    def _step(self, byte: int) -> TextState | None:
        starts = ((m, self._place.then(m, self._value)) for m in (b"<parameter=", b"</function"))
        choices = [(mark, state) for mark, state in starts if state is not None]
        return Choices(choices).step(byte) if choices else None


def _forms(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> set[str | bytes]:
    """Return types (as text) and constants (as bytes) that a schema allows, or more than those."""
    if depth > _DEPTH:
        return {_TEXT}
    members = schema.get("enum")
    listed = list(members) if isinstance(members, list) else []
    if "const" in schema:
        listed = [schema["const"]]
    if listed:
        return {word for member in listed for word in _spellings(member)}
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target = follow_reference(reference, root)
        return {_TEXT} if target is None else _forms(target, root, depth + 1)
    for word in ("anyOf", "oneOf"):
        branches = schema.get(word)
        if isinstance(branches, list) and branches:
            parts = [b if isinstance(b, Mapping) else {} for b in branches]
            return set().union(*(_forms(part, root, depth + 1) for part in parts))
    declared = schema.get("type")
    kinds = declared if isinstance(declared, list) else [declared]
    if declared is None and isinstance(schema.get("allOf"), list):
        parts = [b for b in schema["allOf"] if isinstance(b, Mapping)]
        narrow = [forms for part in parts if _TEXT not in (forms := _forms(part, root, depth + 1))]
        return narrow[0] if narrow else {_TEXT}
    known = {"string", "integer", "number", "boolean", "null", "array", "object"}
    named = {str(kind) for kind in kinds}
    return {*named} if named and known.issuperset(named) else {_TEXT}


def _spellings(member: Any) -> list[bytes]:
    """Return how a constant may be written: as the templates do, and as JSON."""
    if isinstance(member, str):
        return [member.encode("utf-8", "replace")]
    spelled = {json.dumps(member), json.dumps(member, ensure_ascii=False)}
    if member is None or isinstance(member, bool | int | float):
        spelled.add(str(member))
    return sorted(text.encode("utf-8", "replace") for text in spelled)


def _can_stand(name: str) -> bool:
    """Tell whether a name can be written in a tag and read again."""
    return _NAME.fullmatch(name) is not None and clean_name(name) == name
