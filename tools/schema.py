"""Describe parameters (pydantic models) to the model: their schema, and their errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from tools.text.truncate import cut_line

_DROPPED_KEYS = frozenset({"title", "additionalProperties"})
_NO_VALUE = frozenset({"", "null", "none"})
_NO_TEXT = frozenset({"", "null", "None"})
_SHOWN_CHARACTERS = 80
_PROBLEMS_SHOWN = 10
_FOREIGN = frozenset(
    {"description", "explanation", "instruction", "activeForm", "priority", "thought", "reason"}
    | {"justification", "security_risk", "requires_approval", "task_progress", "toolSummary"}
    | {"expected_replacements", "modified_by_user", "wait_for_previous", "_meta"}
)
"""Parameters that other agents' tools have and that change nothing in what ours do."""


class Parameters(BaseModel):
    """The base of every tool's parameters, and of objects inside them.

    Types are lax (``"10"`` is 10, ``"true"`` is true), since models write parameters as text. What
    stands for nothing (null, None, an empty text) leaves an optional parameter out. An unknown
    parameter is an error that names the known ones, unless it is one that only comments a call.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _read_text_values(cls, data: Any) -> Any:
        """Read JSON text where a list is wanted, and drop what is as if not given."""
        if not isinstance(data, Mapping):
            return data
        read = {}
        for name, value in data.items():
            field = cls.model_fields.get(name)
            if field is None:
                if name not in _FOREIGN:
                    read[name] = value
                continue
            takes_text = field.annotation is str or str in get_args(field.annotation)
            if not field.is_required() and _is_nothing(value, takes_text=takes_text):
                continue
            if isinstance(value, str) and not takes_text and value.lstrip().startswith(("[", "{")):
                with suppress(ValueError, RecursionError):
                    value = json.loads(value)
            read[name] = value
        return read


def _is_nothing(value: Any, *, takes_text: bool) -> bool:
    """Tell whether ``value`` is a way to leave an optional parameter out."""
    if not isinstance(value, str):
        return value is None
    return value in _NO_TEXT if takes_text else value.strip().lower() in _NO_VALUE


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
    problems = error.errors(include_url=False)
    lines = [f"{tool} was not run: its parameters do not fit."]
    lines += [f"- {_describe(item)}" for item in problems[:_PROBLEMS_SHOWN]]
    if more := len(problems) - _PROBLEMS_SHOWN:
        lines += [f"- and {more:,} more"] if more > 0 else []
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
    name = cut_line(".".join(str(part) for part in item["loc"]) or "parameters", _SHOWN_CHARACTERS)
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
    except RecursionError:
        return "deeply nested data"
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
