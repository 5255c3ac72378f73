"""Small real Python functions, taken from installed sources and split by where they come from.

A function is taken in normal form: its syntax tree written out again, without docstring, comments,
decorators and annotations, so that one bug is one line. Functions of one distribution are all on
the same side of the training / held-out split.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

MIN_LINES, MAX_LINES = 3, 13
MAX_WIDTH = 76
MAX_CHARACTERS = 420
MAX_WRITTEN_LINES, MAX_WRITTEN_WIDTH = 36, 88
SAFE_MODULES = frozenset(
    ["math", "re", "string", "itertools", "functools", "operator", "collections", "bisect", "heapq"]
)
"""Modules a self-contained function may import: standard library, without side effects."""


@dataclass(frozen=True)
class Function:
    """One function in normal form.

    ``imports`` are the import lines it needs; ``self_contained`` says that nothing else is needed,
    so that it can be run alone. ``original`` is such a function as its makers wrote it, with
    docstring, comments and annotations but no decorator, "" where that is too long.
    """

    name: str
    source: str
    text: str
    imports: tuple[str, ...] = ()
    self_contained: bool = False
    parameters: tuple[str, ...] = ()
    original: str = ""

    @property
    def module_text(self) -> str:
        """The function as a module: its imports, two blank lines, the function."""
        head = "\n".join(self.imports)
        return f"{head}\n\n\n{self.text}\n" if head else f"{self.text}\n"


def is_held_out(source: str, percent: int = 12) -> bool:
    """Tell whether a fixed hash of its name keeps a source's functions from training."""
    return int(hashlib.sha256(source.encode()).hexdigest(), 16) % 100 < percent


def walk_sources(roots: list[tuple[str, Path]]) -> Iterator[tuple[str, Path]]:
    """Yield (source name, path) of every Python file but tests, in a fixed order."""
    for source, root in roots:
        for path in sorted(root.rglob("*.py")):
            parts = {part.lower() for part in path.parts}
            if parts & {"tests", "test", "testing", "idlelib", "lib2to3", "__pycache__"}:
                continue
            yield source, path


def functions_of(source: str, path: Path) -> Iterator[Function]:
    """Yield the usable functions of one file. A file that does not parse gives none."""
    try:
        text = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, OSError, RecursionError):
        return
    imports = _safe_imports(tree)
    lines = text.split("\n")
    top_level = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            written = _as_written(lines, node) if id(node) in top_level else ""
            function = _normal_form(source, node, imports, id(node) in top_level)
            if function is not None:
                yield replace(function, original=written if function.self_contained else "")


def _as_written(file: Sequence[str], node: ast.FunctionDef) -> str:
    """Return a top-level function's own source without decorators, "" if it is unusual."""
    lines = file[node.lineno - 1 : node.end_lineno]
    whole = "\n".join(line.rstrip() for line in lines)
    plain = whole.isascii() and "\t" not in whole and "\f" not in whole
    if not plain or len(lines) > MAX_WRITTEN_LINES or max(map(len, lines)) > MAX_WRITTEN_WIDTH:
        return ""
    return whole


def _safe_imports(tree: ast.Module) -> dict[str, str]:
    """Names that module-level imports of safe modules bind, each with its import line."""
    bound: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in SAFE_MODULES:
                    line = ast.unparse(ast.Import(names=[alias]))
                    bound[alias.asname or alias.name] = line
        elif isinstance(node, ast.ImportFrom) and node.module in SAFE_MODULES and not node.level:
            for alias in node.names:
                line = ast.unparse(ast.ImportFrom(module=node.module, names=[alias], level=0))
                bound[alias.asname or alias.name] = line
    return bound


def _normal_form(
    source: str, node: ast.FunctionDef, imports: dict[str, str], top_level: bool
) -> Function | None:
    node = _stripped(node)
    if not node.body or node.name.startswith("__") or node.name.startswith("test"):
        return None
    try:
        text = ast.unparse(node)
    except (RecursionError, ValueError):
        return None
    lines = text.split("\n")
    if not MIN_LINES <= len(lines) <= MAX_LINES or len(text) > MAX_CHARACTERS:
        return None
    if max(map(len, lines)) > MAX_WIDTH or not text.isascii() or '"""' in text:
        return None
    free = _free_names(node)
    needed = sorted({imports[name] for name in free if name in imports})
    arguments = node.args
    simple = not (arguments.vararg or arguments.kwarg or arguments.kwonlyargs)
    contained = (
        top_level
        and simple
        and 0 < len(arguments.args) <= 4
        and all(name in imports or name in dir(builtins) for name in free)
        and not free & {"open", "print", "input", "exec", "eval", "globals", "locals", "exit"}
        and any(isinstance(item, ast.Return) and item.value for item in ast.walk(node))
        and not any(isinstance(item, ast.Yield | ast.YieldFrom) for item in ast.walk(node))
        and arguments.args[0].arg not in {"self", "cls"}
    )
    required = arguments.args[: len(arguments.args) - len(arguments.defaults)] or arguments.args[:1]
    return Function(
        name=node.name,
        source=source,
        text=text,
        imports=tuple(needed),
        self_contained=contained,
        parameters=tuple(argument.arg for argument in required),
    )


def _stripped(node: ast.FunctionDef) -> ast.FunctionDef:
    """Strip docstrings, decorators and annotations."""
    node.decorator_list = []
    node.returns = None
    for item in ast.walk(node):
        if isinstance(item, ast.arg):
            item.annotation = None
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = item.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                item.body = item.body[1:] or [ast.Pass()]
    return node


def _free_names(node: ast.FunctionDef) -> set[str]:
    """Names that the function reads and does not bind itself."""
    bound = {node.name}
    read: set[str] = set()
    for item in ast.walk(node):
        if isinstance(item, ast.arg):
            bound.add(item.arg)
        elif isinstance(item, ast.Name):
            (read if isinstance(item.ctx, ast.Load) else bound).add(item.id)
        elif isinstance(item, ast.ExceptHandler | ast.FunctionDef):
            bound.add(item.name or "")
        elif isinstance(item, ast.Import | ast.ImportFrom):
            bound.update((alias.asname or alias.name).split(".")[0] for alias in item.names)
    return read - bound
