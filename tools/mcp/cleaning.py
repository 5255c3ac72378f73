"""Clean what an MCP server answers before the SDK checks it.

The SDK refuses an answer as a whole: one odd tool costs all tools, one odd block a whole result.
Here each tool and each block stands alone: tools are cut to what is used of them, those that cannot
be used are named with the reason, and every block of a result becomes text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MAX_SCHEMA = 20_000
MAX_DEPTH = 12
_MAX_REFERENCES = 8
_MAX_LEAVES = 1_000
MOST_PICTURES = 8
_MOST_PICTURE = 32 << 20
_COMMENTS = frozenset({"description", "title", "examples", "example", "default", "$comment"})


class BadSchema(Exception):
    """A tool's schema that says nothing usable; the message is the reason."""


def clean_result(result: dict[str, Any], left_out: dict[str, str]) -> dict[str, Any]:
    """Clean the result of ``tools/list`` or ``tools/call``; any other stays as it is.

    ``left_out`` gets the tools that cannot be offered, each with the reason.
    """
    if isinstance(result.get("tools"), list):
        return _clean_listing(result, left_out)
    said = result.keys() & {"content", "structuredContent", "toolResult"}
    if said and "inputRequests" not in result:
        return _clean_answer(result)
    return result


def _clean_listing(result: dict[str, Any], left_out: dict[str, str]) -> dict[str, Any]:
    tools = []
    for number, tool in enumerate(result["tools"], 1):
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str) or not name:
            left_out[f"number {number}"] = "it has no name"
            continue
        try:
            schema = _clean_schema(tool.get("inputSchema", {}))
        except BadSchema as error:
            left_out[name] = str(error)
            continue
        texts = {key: tool[key] for key in ("description", "title") if type(tool.get(key)) is str}
        tools.append({"name": name, "inputSchema": schema, **texts})
    cleaned = {key: value for key, value in result.items() if key not in ("tools", "nextCursor")}
    cursor = result.get("nextCursor")
    return {**cleaned, "tools": tools, **({"nextCursor": cursor} if type(cursor) is str else {})}


def _clean_schema(given: Any) -> dict[str, Any]:
    """Return a schema of an object, its properties all objects. Raises ``BadSchema``."""
    if not isinstance(given, dict):
        raise BadSchema(f"its inputSchema is {_name_kind(given)}, not an object")
    schema = _follow_root(given)
    kinds = schema.get("type", "object")
    if "object" not in (kinds if isinstance(kinds, list) else [kinds]):
        raise BadSchema("its inputSchema is not that of an object")
    properties = schema.get("properties") or {}
    if not isinstance(properties, dict):
        raise BadSchema(f"the properties of its inputSchema are {_name_kind(properties)}")
    for name, value in properties.items():
        if not isinstance(value, dict | bool):
            raise BadSchema(f"the schema of its parameter {name!r} is {_name_kind(value)}")
    properties = {name: _to_object(value) for name, value in properties.items()}
    cleaned = {**schema, "type": "object", "properties": properties}
    required = schema.get("required")
    if not (isinstance(required, list) and all(isinstance(name, str) for name in required)):
        cleaned.pop("required", None)
    return cleaned


def _follow_root(schema: dict[str, Any]) -> dict[str, Any]:
    """Put the target of a local ``$ref`` at the root in its place."""
    for _ in range(_MAX_REFERENCES):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        target: Any = schema
        for part in reference[2:].split("/"):
            target = target.get(part) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            raise BadSchema(f"its inputSchema refers to {reference!r}, which is not there")
        schema = {**{key: schema[key] for key in schema if key != "$ref"}, **target}
    return schema


def _to_object(schema: Any) -> dict[str, Any]:
    """Return a property's schema as an object; ``true`` allows anything, ``false`` nothing."""
    if isinstance(schema, dict):
        return schema
    return {} if schema else {"not": {}}


def reduce_schema(schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Return the schema within ``MAX_SCHEMA`` characters and ``MAX_DEPTH``, and what was left out.

    First the comments go, then all but names and types.
    """
    if _fits(schema):
        return schema, ""
    bare = _strip_comments(schema) if _measure_depth(schema) <= MAX_DEPTH else None
    if bare is not None and _fits(bare):
        return bare, "its schema is large: descriptions are left out"
    kept: dict[str, Any] = {"type": "object", "properties": {}}
    if isinstance(schema.get("required"), list):
        kept["required"] = schema["required"]
    used = len(json.dumps(kept.get("required", [])))
    properties = schema.get("properties", {})
    for name, value in properties.items():
        kind = value.get("type") if isinstance(value, dict) else None
        used += len(name) + 40
        if used > MAX_SCHEMA:
            break
        kept["properties"][name] = {"type": kind} if isinstance(kind, str | list) else {}
    left = len(properties) - len(kept["properties"])
    more = f", {left:,} parameters are left out" if left else ""
    kept["required"] = [name for name in kept.get("required", []) if name in kept["properties"]]
    return kept, f"its schema is too large: only names and types of parameters are given{more}"


def _fits(schema: Any) -> bool:
    if _measure_depth(schema) > MAX_DEPTH:
        return False
    try:
        return len(json.dumps(schema)) <= MAX_SCHEMA
    except (TypeError, ValueError, RecursionError):
        return False


def _measure_depth(value: Any, at: int = 0) -> int:
    """Return how deep ``value`` nests, up to ``MAX_DEPTH`` and one."""
    if at > MAX_DEPTH or not isinstance(value, dict | list):
        return at
    inner = value.values() if isinstance(value, dict) else value
    return max((_measure_depth(one, at + 1) for one in inner), default=at)


def _strip_comments(node: Any, *, names: bool = False) -> Any:
    """Return ``node`` without comments; ``names``: its keys are names of parameters."""
    if isinstance(node, list):
        return [_strip_comments(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _strip_comments(value, names=key in ("properties", "$defs") and not names)
        for key, value in node.items()
        if names or key not in _COMMENTS
    }


def _clean_answer(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result with every block as text, and its structured part where it says more."""
    content = result.get("content", result.get("toolResult"))
    blocks = content if isinstance(content, list) else [] if content is None else [content]
    texts = [_show_block(block) for block in blocks]
    structured = result.get("structuredContent")
    if structured is not None and not _says_all(texts, structured):
        texts.append(json.dumps(structured, ensure_ascii=False))
    cleaned = {key: result[key] for key in ("resultType",) if key in result}
    return {
        **cleaned,
        "content": [
            *({"type": "text", "text": text} for text in texts),
            *[_plain_picture(block) for block in blocks if _is_picture(block)][:MOST_PICTURES],
        ],
        "isError": result.get("isError") is True,
    }


def _says_all(texts: list[str], structured: Any) -> bool:
    """Tell whether every value of the structured part already stands in the texts."""
    text = "\n".join(texts)
    if not text:
        return False
    pending, seen = [structured], 0
    while pending:
        value = pending.pop()
        seen += 1
        if seen > _MAX_LEAVES:
            return False
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
        elif (value if isinstance(value, str) else json.dumps(value)) not in text:
            return False
    return True


def _is_picture(block: Any) -> bool:
    """Return whether a block holds a picture that a model with eyes may be shown."""
    return (
        isinstance(block, dict)
        and block.get("type") == "image"
        and isinstance(block.get("data"), str)
        and len(block["data"]) <= _MOST_PICTURE
    )


def _plain_picture(block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "image", "data": block["data"], "mimeType": "image/png"}


def _show_block(block: Any) -> str:
    """Return one block of a result as text."""
    if isinstance(block, str):
        return block
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "text" and block.get("text") is not None:
        text = block["text"]
        return text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
    if kind == "resource":
        resource = block.get("resource")
        if isinstance(resource, dict) and isinstance(resource.get("text"), str):
            return str(resource["text"])
    elif kind == "resource_link":
        return f"[resource {block.get('uri')}]"
    elif kind in ("image", "audio") and isinstance(block.get("data"), str):
        left_out = "" if _is_picture(block) else ", left out"
        return f"[{block.get('mimeType')}, {len(block['data']) * 3 // 4:,} bytes{left_out}]"
    elif isinstance(kind, str):
        return f"[content of another kind ({kind[:40]}), left out]"
    return "[content of another kind, left out]"


def _name_kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else "no object")
