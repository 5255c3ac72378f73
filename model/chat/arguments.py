"""From the text of a tool-call parameter to a value of the type its JSON schema asks for.

The chat template writes strings raw and everything else as JSON, so the text alone does not tell
``12`` from ``"12"``; the schema does. Where a schema allows text, only what is exactly the JSON of
another allowed type is converted: ``1.10`` and ``00501`` stay text. Elsewhere the narrower types
are tried first. Nothing (``null``, ``None``, an empty text) for an optional parameter that is no
text leaves it out; of text, whoever runs the tool decides. Only the outermost type is checked here:
what lies inside an array or object, and whether a required parameter is there, is for whoever runs
the tool.
"""

from __future__ import annotations

import ast
import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from model.messages import ToolSchema

_INTEGER = re.compile(r"[+-]?\d{1,400}\Z", re.ASCII)
_BRACKETS = re.compile(r"[\[\]{}]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)
_ORDER = ("null", "boolean", "integer", "number", "array", "object", "string")
_PLAIN = {
    "null": "null",
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "array": "a JSON array",
    "object": "a JSON object",
    "string": "text",
}
_NOTHING = object()
LEFT_OUT = object()
"""What ``convert`` gives for a parameter that is as if it had not been given."""
MAX_CHARACTERS = 4_000_000
MAX_DEPTH = 64


class Signatures:
    """The tools of one turn by name, with their parameters' schemas."""

    def __init__(self, tools: Sequence[ToolSchema]) -> None:
        """Take function schemas, with or without the outer ``{"type": "function"}``."""
        self._parameters: dict[str, Mapping[str, Any]] = {}
        for tool in tools:
            function = tool.get("function", tool)
            self._parameters[str(function.get("name", ""))] = function.get("parameters") or {}

    def knows(self, name: str) -> bool:
        """Tell whether there is a tool of that name."""
        return name in self._parameters

    def parameters(self, name: str) -> Mapping[str, Any]:
        """Schema of each parameter of the tool; empty for an unknown tool."""
        found = self._parameters.get(name, {}).get("properties")
        return found if isinstance(found, Mapping) else {}

    def unknown(self, name: str) -> str:
        """One sentence for a call to a tool that does not exist, with the names nearest to it."""
        names = list(self._parameters)
        if not names:
            return f"There is no tool {name!r}: no tools are available."
        lowered = {known.lower(): known for known in names}
        near = difflib.get_close_matches(name.lower(), list(lowered), n=3, cutoff=0.6)
        near += [low for low in lowered if name and name.lower() in low and low not in near]
        if near:
            nearest = ", ".join(lowered[low] for low in near[:3])
            return f"There is no tool {name!r}; the nearest are: {nearest}."
        return f"There is no tool {name!r}; the tools are: {', '.join(sorted(names))}."

    def convert(self, tool: str, parameter: str, text: str) -> tuple[Any, str | None]:
        """Return a parameter's value from ``text`` and None, or ``text`` and what is wrong."""
        schema = self.parameters(tool).get(parameter)
        if not isinstance(schema, Mapping):
            return (_read_untyped(text) if schema is True else text), None
        kinds = set(_kinds(schema, self._parameters[tool], depth=0))
        if kinds and "string" not in kinds and self._optional(tool, parameter):
            stays = "null" in kinds and text.strip().lower() in ("null", "none")
            if _is_nothing(text) and not stays:
                return LEFT_OUT, None
        members = [
            member
            for part in _parts(schema, self._parameters[tool], 0)
            for member in _members(part)
        ]
        if (value := _member(text, members)) is not _NOTHING:
            return value, None
        if not kinds:
            return _read_untyped(text), None
        if "string" in kinds:
            return _read_exact(text, kinds), None
        for kind in _ORDER:
            if kind in kinds:
                value = _read(kind, text)
                if value is not _NOTHING:
                    return value, None
        wanted = " or ".join(_PLAIN[kind] for kind in _ORDER[::-1] if kind in kinds)
        shown = text if len(text) <= 80 else text[:77] + "..."
        return text, f"Parameter {parameter!r} of {tool} must be {wanted}, got {shown!r}."

    def _optional(self, tool: str, parameter: str) -> bool:
        required = self._parameters[tool].get("required")
        return not (isinstance(required, list) and parameter in required)


def _kinds(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Iterator[str]:
    """Yield the JSON types a schema allows, as far as it says; none for one that allows any."""
    for part in _parts(schema, root, depth):
        declared = part.get("type")
        for kind in declared if isinstance(declared, list) else [declared]:
            if kind in _ORDER:
                yield kind
        if part.get("nullable") is True:
            yield "null"
        if declared is None:
            yield from map(_kind_of, _members(part))


def _parts(
    schema: Mapping[str, Any], root: Mapping[str, Any], depth: int
) -> Iterator[Mapping[str, Any]]:
    """Yield the schema and those that it refers to or combines."""
    if depth > 16:  # a reference that leads to itself
        return
    yield schema
    reference = schema.get("$ref")
    target = follow_reference(reference, root) if isinstance(reference, str) else None
    if target is not None:
        yield from _parts(target, root, depth + 1)
    for word in ("anyOf", "oneOf", "allOf"):
        branches = schema.get(word)
        for branch in branches if isinstance(branches, list) else []:
            if isinstance(branch, Mapping):
                yield from _parts(branch, root, depth + 1)


def follow_reference(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schema that a local reference such as ``#/$defs/Item`` points to, or None."""
    place: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        place = place.get(part) if isinstance(place, Mapping) else None
    return place if isinstance(place, Mapping) else None


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = {int: "integer", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")


def _is_nothing(text: str) -> bool:
    return text.strip() in ("", "null", "None")


def _members(schema: Mapping[str, Any]) -> list[Any]:
    """Return the constants that a schema lists itself."""
    members = schema.get("enum")
    return [
        *(members if isinstance(members, list) else []),
        *([schema["const"]] if "const" in schema else []),
    ]


def _member(text: str, members: Sequence[Any]) -> Any:
    """Return the member that ``text`` spells, as text or as JSON; ``_NOTHING`` if none does."""
    stripped = text.strip()
    for member in members:
        if isinstance(member, str) and member in (text, stripped):
            return member
    for member in members:
        if not isinstance(member, str) and json.dumps(member) == stripped:
            return member
    return _NOTHING


def _read_exact(text: str, kinds: set[str]) -> Any:
    """Return the value whose JSON is exactly ``text``, if ``kinds`` has its type; else ``text``."""
    if kinds == {"string"} or _too_deep(text):
        return text
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        exact = isinstance(value, list | dict) or json.dumps(value) == text.strip()
    except (ValueError, RecursionError):
        return text
    kind = _kind_of(value)
    fits = kind in kinds or (kind == "integer" and "number" in kinds)
    return value if exact and fits and kind != "string" else text


def _read_untyped(text: str) -> Any:
    """Return the object or array that ``text`` is in JSON; any other text as it is."""
    if not text.lstrip().startswith(("{", "[")) or _too_deep(text):
        return text
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _too_deep(text: str) -> bool:
    """Tell whether brackets nest deeper, or the text is longer, than any argument needs."""
    if len(text) > MAX_CHARACTERS:
        return True
    depth = 0
    for bracket in _BRACKETS.finditer(text):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def _read(kind: str, text: str) -> Any:
    """Read ``text`` as a value of that JSON type; return ``_NOTHING`` if it is none."""
    if kind == "string":
        return text
    text = text.strip()
    if kind == "null":
        return None if text.lower() in ("null", "none") else _NOTHING
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.lower(), _NOTHING)
    if kind in ("integer", "number"):
        return _read_number(text, whole=kind == "integer")
    return _read_container(text, list if kind == "array" else dict)


def _read_number(text: str, *, whole: bool) -> Any:
    if _INTEGER.match(text):
        return int(text)
    if not _NUMBER.match(text):
        return _NOTHING
    value = float(text)
    if not math.isfinite(value) or (whole and not value.is_integer()):
        return _NOTHING
    return int(value) if whole else value


def _read_container(text: str, wanted: type) -> Any:
    """Read a JSON array or object; accept a Python literal too, as models write them."""
    if _too_deep(text):
        return _NOTHING
    try:
        try:
            value = json.loads(text)
        except ValueError:
            value = ast.literal_eval(text)
        if not isinstance(value, wanted):
            return _NOTHING
        # Through JSON once more: NaN, bytes, sets and the like are refused, and all keys are text.
        return json.loads(json.dumps(value, allow_nan=False))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return _NOTHING
