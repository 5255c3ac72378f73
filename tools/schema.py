"""Describe parameters (pydantic models) to the model: their schema, and their errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

_DROPPED_KEYS = frozenset({"title", "additionalProperties"})
_NO_VALUE = frozenset({"", "null", "none"})
_SHOWN_CHARACTERS = 80


class Parameters(BaseModel):
    """The base of every tool's parameters.

    Types are lax (``"10"`` is 10, ``"true"`` is true), since models write parameters as text, but
    names are strict: an unknown parameter is an error that names the known ones.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _read_text_values(cls, data: Any) -> Any:
        """Read JSON text where a list is wanted, and "null" where a value may be left out."""
        if not isinstance(data, Mapping):
            return data
        read = dict(data)
        for name, value in data.items():
            field = cls.model_fields.get(name)
            if field is None or field.annotation is str:
                continue
            may_be_absent = not field.is_required()
            if may_be_absent and value is None and NoneType not in get_args(field.annotation):
                del read[name]
            if not isinstance(value, str) or str in get_args(field.annotation):
                continue
            if value.strip().lower() in _NO_VALUE and may_be_absent:
                del read[name]
            elif value.lstrip().startswith(("[", "{")):
                try:
                    read[name] = json.loads(value)
                except ValueError:
                    continue
        return read


def make_function_schema(
    name: str, description: str, parameters: type[BaseModel]
) -> dict[str, Any]:
    """Make the function schema that chat templates expect, without titles and references."""
    raw = parameters.model_json_schema()
    definitions = raw.pop("$defs", {})
    properties = {
        key: _simplify(value, definitions) for key, value in raw.get("properties", {}).items()
    }
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required := raw.get("required"):
        schema["required"] = list(required)
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": schema},
    }


def _simplify(node: Any, definitions: Mapping[str, Any]) -> Any:
    """Resolve references, drop titles, and write "X or null" as X."""
    if isinstance(node, list):
        return [_simplify(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[-1]]
        return _simplify({**target, **{k: v for k, v in node.items() if k != "$ref"}}, definitions)
    if "anyOf" in node:
        choices = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
        if len(choices) == 1:
            rest = {k: v for k, v in node.items() if k not in ("anyOf", "default")}
            return _simplify({**choices[0], **rest}, definitions)
    simple: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            simple[key] = {name: _simplify(item, definitions) for name, item in value.items()}
        elif key not in _DROPPED_KEYS:
            simple[key] = _simplify(value, definitions)
    return simple


def describe_errors(tool: str, parameters: type[BaseModel], error: ValidationError) -> str:
    """Describe each problem on a line: the parameter, what was expected, what was given."""
    lines = [f"{tool} was not run: its parameters do not fit."]
    lines += [f"- {_describe(item)}" for item in error.errors(include_url=False)]
    lines.append(f"{tool} takes {signature(parameters)}.")
    return "\n".join(lines)


def signature(parameters: type[BaseModel]) -> str:
    """List the parameters in a sentence: ``file_path (required), offset, limit``."""
    names = [
        f"{name} (required)" if field.is_required() else name
        for name, field in parameters.model_fields.items()
    ]
    return ", ".join(names) if names else "no parameters"


def _describe(item: ErrorDetails) -> str:
    name = ".".join(str(part) for part in item["loc"]) or "parameters"
    kind = item["type"]
    if kind == "missing":
        return f"{name}: required, but missing"
    if kind == "extra_forbidden":
        return f"{name}: there is no such parameter"
    expected = item["msg"]
    for prefix in ("Input should be ", "Value error, "):
        expected = expected.removeprefix(prefix)
    expected = expected.removeprefix("a valid ").split(", unable to ")[0]
    return f"{name}: expected {expected}, got {_show(item['input'])}"


def _show(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
