"""Reading the project's own source for the architecture tests: files, modules, imports."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("agent", "evals", "kernels", "model", "sandboxes", "tools")


@dataclass(frozen=True)
class Module:
    """One source file of a package: its dotted name, its path, and its syntax tree."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def package(self) -> str:
        """The top-level package it belongs to."""
        return self.name.partition(".")[0]

    @property
    def where(self) -> str:
        """Its path from the root, for messages."""
        return str(self.path.relative_to(ROOT))


@dataclass(frozen=True)
class Import:
    """One import statement's target, as a dotted name, and the line it stands on."""

    target: str
    line: int
    level: int = 0


def parse(path: Path, root: Path = ROOT) -> Module:
    """The module at ``path``, named by its place under ``root``."""
    parts = path.relative_to(root).with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return Module(".".join(parts), path, ast.parse(path.read_text("utf-8"), str(path)))


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the six packages."""
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return tuple(parse(path) for path in sorted(found))


def imports(module: Module) -> Iterator[Import]:
    """Every import in the file: at the top, inside functions, and under TYPE_CHECKING.

    ``from a import b`` yields ``a.b``; whether that is a module or a name in one is for the reader.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                base = node.module or ""
                yield Import(f"{base}.{alias.name}".strip("."), node.lineno, node.level)
        elif isinstance(node, ast.Call) and _is_import_call(node):
            argument = node.args[0] if node.args else None
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield Import(argument.value, node.lineno)


def _is_import_call(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else None
    if isinstance(node.func, ast.Name):
        name = node.func.id
    return name in {"import_module", "__import__"}


def graph(found: tuple[Module, ...]) -> dict[str, set[str]]:
    """Which module imports which, by name, within ``found``."""
    names = {module.name for module in found}
    edges: dict[str, set[str]] = {module.name: set() for module in found}
    for module in found:
        for item in imports(module):
            target = item.target
            if target not in names:
                target = target.rpartition(".")[0]
            if target in names and target != module.name:
                edges[module.name].add(target)
    return edges


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other in a ring, each sorted; empty if there is none.

    Tarjan's strongly connected components (SIAM J. Computing 1972), without recursion.
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    result: list[list[str]] = []
    for start in sorted(edges):
        if start in index:
            continue
        work = [(start, iter(sorted(edges[start])))]
        index[start] = low[start] = len(index)
        stack.append(start)
        while work:
            node, targets = work[-1]
            for target in targets:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    work.append((target, iter(sorted(edges[target]))))
                    break
                if target in stack:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    cut = stack.index(node)
                    group, stack[cut:] = stack[cut:], []
                    if len(group) > 1:
                        result.append(sorted(group))
    return result


@cache
def tracked() -> tuple[Path, ...]:
    """Every file of the project: tracked by git, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode("utf-8")
    paths = (ROOT / name for name in listed.split("\0") if name)
    return tuple(path for path in paths if path.is_file() and not path.is_symlink())
