"""MCP servers whose answers are odd: one tool or block costs itself, and no more."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from agent.events import Event, Notice
from agent.loop.looking import look_at
from sandboxes.base import Sandbox
from sandboxes.stop import Stop
from tests.support.sighted import png
from tools.mcp.cleaning import MOST_PICTURES
from tools.mcp.running_servers import MAX_PAGES, RunningServers
from tools.mcp.spec import McpServer
from tools.mcp.tool import wrap_tools
from tools.registry import Registry
from tools.types import ToolContext

PROGRAM = Path(__file__).parents[1] / "support" / "raw_mcp_server.py"
GOOD = {"name": "good", "inputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}}}
PLAIN = {"name": "put", "inputSchema": {"type": "object", "properties": {}}}
ANSWER = {"type": "text", "text": "the answer"}


@contextmanager
def served(*tools: Any, **says: Any) -> Iterator[tuple[Registry, list[str]]]:
    """A server that says this: the registry of its tools, and what was told at the start."""
    servers = RunningServers()
    command = (sys.executable, str(PROGRAM), json.dumps({"tools": tools, **says}))
    told = servers.start((McpServer(name="raw", command=command, start_timeout=60),), Stop())
    try:
        context = ToolContext(cast(Sandbox, None), stop=Stop())
        yield Registry(context, wrap_tools(servers, [])), told
    finally:
        servers.close()


def parameters_of(registry: Registry, name: str) -> dict[str, Any]:
    (found,) = [s["function"] for s in registry.schemas() if s["function"]["name"] == name]
    return dict(found["parameters"])


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (None, "its inputSchema is null, not an object"),
        (["x"], "its inputSchema is a list, not an object"),
        ({"type": "string"}, "its inputSchema is not that of an object"),
        ({"type": "object", "properties": ["x"]}, "the properties of its inputSchema are a list"),
        (
            {"type": "object", "properties": {"coin": {"type": "string"}, "required": ["coin"]}},
            "the schema of its parameter 'required' is a list",
        ),
        ({"$ref": "#/$defs/A"}, "its inputSchema refers to '#/$defs/A', which is not there"),
    ],
)
def test_a_tool_that_cannot_be_offered_costs_itself_and_the_reason_is_told(schema, reason) -> None:
    with served({"name": "bad", "inputSchema": schema}, GOOD) as (registry, told):
        assert registry.names == ("mcp__raw__good",)
        assert told == [f"MCP server raw: its tool bad is left out: {reason}"]
        assert registry.run("mcp__raw__good", {"n": 5}).text == '{"n": 5}'


def test_a_tool_without_a_name_costs_itself() -> None:
    with served({"inputSchema": {}}, "nonsense", GOOD) as (registry, told):
        assert registry.names == ("mcp__raw__good",)
        assert [line.partition(": ")[2] for line in told] == [
            "its tool number 1 is left out: it has no name",
            "its tool number 2 is left out: it has no name",
        ]


@pytest.mark.parametrize(
    ("schema", "properties"),
    [
        ({}, {}),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, {}),
        ({"properties": None, "required": "x"}, {}),
        ({"type": ["object", "null"]}, {}),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"n": {"type": "integer"}}}}},
            {"n": {"type": "integer"}},
        ),
        (
            {"properties": {"payload": True, "never": False, "count": {"type": "integer"}}},
            {"payload": {}, "never": {"not": {}}, "count": {"type": "integer"}},
        ),
    ],
)
def test_an_unusual_schema_keeps_its_names_and_types(schema, properties) -> None:
    odd = {"name": "put", "inputSchema": schema, "annotations": 5, "icons": "x", "title": ["x"]}
    with served(odd) as (registry, told):
        assert told == []
        shown = parameters_of(registry, "mcp__raw__put")
        assert (shown["type"], shown["properties"]) == ("object", properties)


def test_a_large_schema_loses_its_descriptions_first() -> None:
    fields = {f"p{i}": {"type": "integer", "description": "x" * 300} for i in range(80)}
    fields["description"] = {"type": "string"}
    tool = {"name": "put", "inputSchema": {"type": "object", "properties": fields}}
    with served(tool, GOOD) as (registry, told):
        shown = parameters_of(registry, "mcp__raw__put")["properties"]
        assert list(shown) == list(fields)
        assert shown["p1"] == {"type": "integer"} and shown["description"] == {"type": "string"}
        assert told == [
            "MCP server raw: its tool put is offered, but its schema is large: descriptions are "
            "left out"
        ]


def test_a_schema_too_large_or_too_deep_keeps_names_and_types() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(60):
        deep = {"type": "object", "properties": {"in": deep}}
    fields = {"tree": deep, "mode": {"type": "string", "enum": ["x" * 1000] * 100}}
    schema = {"type": "object", "properties": fields, "required": ["tree"]}
    with served({"name": "put", "inputSchema": schema}) as (registry, told):
        assert parameters_of(registry, "mcp__raw__put") == {
            "type": "object",
            "properties": {"tree": {"type": "object"}, "mode": {"type": "string"}},
            "required": ["tree"],
        }
        assert "only names and types of parameters are given" in told[0]


def test_a_cursor_that_does_not_advance_ends_the_listing() -> None:
    with served(GOOD, PLAIN, cursor="again") as (registry, told):
        assert registry.names == ("mcp__raw__good", "mcp__raw__put")
        assert told == []
    assert MAX_PAGES > 2


def test_why_a_server_cannot_be_used_is_told_and_not_that_it_ended() -> None:
    with served(GOOD, version="1999-01-01") as (registry, told):
        assert registry.names == ()
        assert len(told) == 1 and "1999-01-01" in told[0]
        assert "it ended" not in told[0]


@pytest.mark.parametrize(
    ("output_schema", "result", "said"),
    [
        (
            {"type": "object", "properties": {"r": {"$ref": "#/$defs/Missing"}}},
            {"content": [ANSWER], "structuredContent": {"r": "answer"}},
            "the answer",
        ),
        (
            {"type": "object", "properties": {"r": {"type": "integer"}}},
            {"content": [ANSWER], "structuredContent": {"r": "five"}},
            'the answer\n{"r": "five"}',
        ),
        (
            None,
            {"content": [{"type": "hologram", "data": "x"}, ANSWER, 5, {"type": "text"}]},
            "[content of another kind (hologram), left out]\nthe answer\n"
            "[content of another kind, left out]\n[content of another kind (text), left out]",
        ),
        (
            None,
            {"content": [ANSWER], "structuredContent": {"rows": [17, 18]}},
            'the answer\n{"rows": [17, 18]}',
        ),
        (None, {"content": [ANSWER], "structuredContent": {"result": "the answer"}}, "the answer"),
        (None, {"content": [], "structuredContent": [1, 2]}, "[1, 2]"),
        (None, {"content": "the answer", "structuredContent": {"a": 7}}, 'the answer\n{"a": 7}'),
        (None, {"content": ANSWER}, "the answer"),
        (None, {"content": ["the answer", {"type": "text", "text": 5}]}, "the answer\n5"),
        (None, {"content": [{"type": "text", "text": "lone \ud800"}]}, "lone ?"),
        (None, {"toolResult": "the answer"}, "the answer"),
        (
            None,
            {
                "content": [
                    {"type": "image", "mimeType": "image/png", "data": "AAAA"},
                    {"type": "resource", "resource": {"uri": "f:///x", "text": "inside"}},
                    {"type": "resource_link", "uri": "f:///y", "name": "y"},
                ]
            },
            "[image/png, 3 bytes]\ninside\n[resource f:///y]",
        ),
    ],
)
def test_what_a_server_said_in_text_reaches_the_model(output_schema, result, said) -> None:
    tool = PLAIN | ({"outputSchema": output_schema} if output_schema else {})
    with served(tool, result=result) as (registry, _):
        seen = registry.run("mcp__raw__put", {})
        assert (seen.text, seen.ok) == (said, True)
    with served(tool, result={**result, "isError": True}) as (registry, _):
        assert not registry.run("mcp__raw__put", {}).ok


def test_pictures_of_a_server_are_shown_to_a_model_with_eyes() -> None:
    shot = base64.b64encode(png(20, 30)).decode()
    blocks = [{"type": "image", "mimeType": "image/png", "data": d} for d in (shot, "%%%", "AAAA")]
    heard: list[Event] = []
    with served(PLAIN, result={"content": [ANSWER, *blocks]}) as (registry, _):
        found = registry.run("mcp__raw__put", {})
    seen = look_at(found, heard.append, sees=True)
    (picture,) = seen.pictures
    assert picture.data == png(20, 30)
    assert seen.text.endswith("PNG, JPEG, GIF and WebP can be seen]") and not heard
    assert look_at(found, heard.append, sees=False).pictures == ()
    assert [event.text for event in heard if isinstance(event, Notice)] == [
        "the model has no eyes: it is told of picture 1, picture 3 in words"
    ]


def test_no_more_pictures_than_a_few_are_taken_of_one_result() -> None:
    shot = base64.b64encode(png(8, 8)).decode()
    blocks = [{"type": "image", "mimeType": "image/png", "data": shot}] * (MOST_PICTURES + 3)
    with served(PLAIN, result={"content": blocks}) as (registry, _):
        assert len(registry.run("mcp__raw__put", {}).pictures) == MOST_PICTURES
