"""Sizes, docstrings, globals, names: what every file of the project keeps to."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator

from tests.architecture.sources import PACKAGES, ROOT, Module, modules, tracked

MAX_LINES = 500
MUTABLE_CALLS = {
    "list",
    "dict",
    "set",
    "bytearray",
    "defaultdict",
    "deque",
    "Counter",
    "OrderedDict",
}
MUTABLE_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)


def test_files_stay_short() -> None:
    long = {}
    for path in tracked():
        if path.suffix == ".py":
            lines = len(path.read_text("utf-8").splitlines())
            if lines > MAX_LINES:
                long[str(path.relative_to(ROOT))] = lines
    assert long == {}


def test_every_module_says_what_it_is() -> None:
    silent = [module.where for module in modules() if not ast.get_docstring(module.tree)]
    assert silent == []


def test_public_functions_and_classes_have_docstrings() -> None:
    silent = [
        f"{module.where}:{node.lineno} {node.name}"
        for module in modules()
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def mutable_globals(module: Module) -> Iterator[str]:
    """Names bound at module level to something that can change, unless written as CONSTANTS."""
    for node in module.tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        mutable = isinstance(value, MUTABLE_DISPLAYS)
        if isinstance(value, ast.Call):
            name = value.func.attr if isinstance(value.func, ast.Attribute) else None
            if isinstance(value.func, ast.Name):
                name = value.func.id
            mutable = name in MUTABLE_CALLS
        for target in targets:
            if isinstance(target, ast.Name) and mutable:
                bare = target.id.strip("_")
                if bare != bare.upper() and target.id != "__all__":
                    yield f"{module.where}:{node.lineno} {target.id}"


def test_no_state_at_module_level() -> None:
    assert [line for module in modules() for line in mutable_globals(module)] == []


def test_no_function_rebinds_a_global() -> None:
    bad = [
        f"{module.where}:{node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Global)
    ]
    assert bad == []


def test_the_command_is_a_console_script_only() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["scripts"] == {"agent": "agent.cli.main:main"}
    assert (ROOT / "agent" / "cli" / "main.py").is_file()
    assert not (ROOT / "agent" / "__main__.py").exists()
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == set(PACKAGES)


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    pattern = re.compile(r"(?<![\w.-])/wor" + r"k(?![\w-])")
    bad = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" in data:
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            if pattern.search(line):
                bad.append(f"{path.relative_to(ROOT)}:{number}")
    assert bad == []
