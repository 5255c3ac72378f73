"""The order of the packages: kernels, model, agent, evals; sandboxes, tools, agent. No way back."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.sources import (
    PACKAGES,
    ROOT,
    Module,
    cycles,
    graph,
    imports,
    modules,
    parse,
)

MAY_IMPORT = {
    "kernels": {"kernels"},
    "model": {"model", "kernels"},
    "sandboxes": {"sandboxes"},
    "tools": {"tools", "sandboxes"},
    "agent": {"agent", "model", "kernels", "tools", "sandboxes"},
    "evals": set(PACKAGES),
}
NEVER = {"transformers", "fla", "trl", "tests", "benchmarks", "scripts"}
# Imports under another name than their distribution's. pydantic pins its core exactly.
DISTRIBUTIONS = {
    "acp": "agent_client_protocol",
    "PIL": "pillow",
    "git": "gitpython",
    "pydantic_core": "pydantic",
    "yaml": "pyyaml",
}

# Files that another interpreter runs, with packages of its own: an image's, Harbor's.
ELSEWHERE = {
    "evals/suites/claw/grading.py": {"claw_eval", "httpx", "openai"},
    "evals/harbor_agent.py": {"harbor"},
}


def against_the_order(found: tuple[Module, ...]) -> list[str]:
    """Every import that goes against MAY_IMPORT, as a line to read."""
    bad = []
    for module in found:
        for item in imports(module):
            package = item.target.partition(".")[0]
            if package in PACKAGES and package not in MAY_IMPORT[module.package]:
                bad.append(f"{module.where}:{item.line} imports {item.target}")
    return bad


def test_imports_follow_the_order_of_the_packages() -> None:
    assert against_the_order(modules()) == []


def test_no_modules_import_each_other() -> None:
    assert cycles(graph(modules())) == []


def test_imports_are_absolute() -> None:
    bad = [f"{m.where}:{i.line}" for m in modules() for i in imports(m) if i.level]
    assert bad == []


def test_nothing_imports_the_reference_implementations_or_the_tests() -> None:
    bad = [
        f"{module.where}:{item.line} imports {item.target}"
        for module in modules()
        for item in imports(module)
        if item.target.partition(".")[0] in NEVER
    ]
    assert bad == []


def test_every_other_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]

    def names(lines: list[str]) -> set[str]:
        return {re.split(r"[<>=~\[; ]", line)[0].lower().replace("-", "_") for line in lines}

    everywhere = names(project["dependencies"] + extras["gpu"])
    bad = []
    for module in modules():
        declared = everywhere | (names(extras["eval"]) if module.package == "evals" else set())
        declared |= ELSEWHERE.get(str(module.where), set())
        for item in imports(module):
            package = item.target.partition(".")[0]
            if item.level or package in PACKAGES or package in sys.stdlib_module_names:
                continue
            if DISTRIBUTIONS.get(package, package) not in declared:
                bad.append(f"{module.where}:{item.line} imports {item.target}")
    assert bad == []


def test_kernels_package_itself_imports_nothing() -> None:
    package = parse(ROOT / "kernels" / "__init__.py")
    targets = {item.target for item in imports(package)}
    assert targets <= {"__future__.annotations"}
    assert '__version__ = "0.0.0"' in package.path.read_text("utf-8")


@pytest.mark.parametrize(
    "source",
    [
        "import agent.loop.loop",
        "from agent import loop",
        "def late():\n    from agent.loop.loop import run\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import agent\n",
        "import importlib\nimportlib.import_module('agent.loop.loop')\n",
    ],
)
def test_the_check_sees_an_import_against_the_order(tmp_path: Path, source: str) -> None:
    file = tmp_path / "model" / "bad.py"
    file.parent.mkdir()
    file.write_text(source)
    module = parse(file, tmp_path)
    seen = [item.target.partition(".")[0] for item in imports(module)]
    assert "agent" in seen
    assert "agent" not in MAY_IMPORT[module.package]


def test_the_check_sees_a_cycle_through_a_function(tmp_path: Path) -> None:
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "one.py").write_text("from tools.two import b\n")
    (folder / "two.py").write_text("from tools import three\n")
    (folder / "three.py").write_text("def late():\n    import tools.one\n")
    found = tuple(parse(path, tmp_path) for path in sorted(folder.rglob("*.py")))
    assert cycles(graph(found)) == [["tools.one", "tools.three", "tools.two"]]
