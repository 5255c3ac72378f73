"""Write docs/tools.md from the tools' own schemas.

    .venv/bin/python scripts/tool_docs.py [--check]

With --check nothing is written; the exit code says whether the page is current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.registry import default_tools

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tools.md"
HEAD = """\
# Tools

What the model may call, as it reads it. This page is written by `scripts/tool_docs.py` from the
tools' own schemas; a test fails when it is out of date.

Paths are relative to the repository's root, or absolute inside it; what leads out, also through a
link, is refused. A failure is an answer: it says what is wrong and what would work. Files keep
their encoding, byte-order mark, line endings and mode. How navigation and edits work inside is in
[navigation.md](navigation.md).
"""


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for tool in default_tools():
        function = tool.schema()["function"]
        parts.append(f"## `{function['name']}`\n\n{function['description']}\n")
        parts.append("\n".join(_table(function["parameters"])) + "\n")
    return "\n".join(parts)


def _table(parameters: Mapping[str, Any]) -> Iterator[str]:
    """One row a parameter."""
    properties: Mapping[str, Any] = parameters["properties"]
    if not properties:
        yield "No parameters."
        return
    yield "| parameter | type | default | meaning |"
    yield "|---|---|---|---|"
    required = parameters.get("required", ())
    for name, schema in properties.items():
        default = "required" if name in required else _value(schema.get("default"))
        meaning = str(schema.get("description", "")).replace("|", "\\|").replace("\n", " ")
        yield f"| `{name}` | {_type(schema)} | {default} | {meaning} |"


def _type(schema: Mapping[str, Any]) -> str:
    """Describe a type: ``string``, ``list of object``, and the range of a number."""
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{choice}`" for choice in schema["enum"])
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f"{kind}, {least} to {most}"
    return f"{kind}, at least {least}" if least is not None else kind


def _value(default: Any) -> str:
    if default is None:
        return ""
    return (
        f"`{str(default).lower() if isinstance(default, bool) else default}`"
        if default != ""
        else ""
    )


def main() -> int:
    """Write the page, or check it."""
    text = page()
    if "--check" in sys.argv[1:]:
        current = PAGE.is_file() and PAGE.read_text("utf-8") == text
        if not current:
            print("docs/tools.md is out of date: run scripts/tool_docs.py", file=sys.stderr)
        return int(not current)
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
