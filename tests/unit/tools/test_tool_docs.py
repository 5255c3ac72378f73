"""docs/tools.md is what scripts/tool_docs.py writes."""

from __future__ import annotations

import runpy
from pathlib import Path

from tools import screenshot
from tools.registry import default_tools

ROOT = Path(__file__).parents[3]


def test_the_page_is_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "tool_docs.py"))
    page = (ROOT / "docs" / "tools.md").read_text("utf-8")
    assert page == script["page"](), "run scripts/tool_docs.py"


def test_the_page_has_every_tool_and_parameter() -> None:
    page = (ROOT / "docs" / "tools.md").read_text("utf-8")
    for tool in (*default_tools(), screenshot.TOOL):
        assert f"## `{tool.name}`" in page
        for name, field in tool.parameters.model_fields.items():
            assert f"| `{name}` |" in page
            assert field.description and field.description.replace("|", "\\|") in page
