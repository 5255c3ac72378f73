"""One-line bugs in a text as people wrote it: comments, docstrings and line breaks stay.

``mutants`` breaks a function in normal form. Here the same changes are made to the statements of
any module whose line is already in normal form, so that nothing but the bug tells the line apart.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from evals.training.mutate import Mutant, changes, local_names

HEADED = (ast.If, ast.While, ast.For, ast.With)
"""Statements with a body, of which the first line alone is changed."""


def mutants_in_place(text: str, name: str) -> list[Mutant]:
    """Return the mutants of the function ``name`` in a module, each different in one line.

    A method is found too. The list is empty if no function has that name.
    """
    tree = ast.parse(text)
    lines = text.split("\n")
    found: dict[str, Mutant] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            names = local_names(node)
            for statement in _statements(node.body):
                for mutant in _of_statement(statement, lines, names):
                    found.setdefault(mutant.text, mutant)
    return list(found.values())


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield every statement of a body, also the inner ones, but not those of inner functions."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        yield statement
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, field, []))


def _of_statement(statement: ast.stmt, lines: Sequence[str], names: list[str]) -> Iterator[Mutant]:
    at = statement.lineno - 1
    if not isinstance(statement, HEADED) and statement.end_lineno != statement.lineno:
        return
    shape = _Shape.of(lines[at], _first_line(statement))
    if shape is None:
        return
    for node in _own_nodes(statement):
        for kind, apply, undo in changes(node, names):
            apply()
            try:
                mutated = _first_line(statement)
            finally:
                undo()
            line = shape.line(mutated)
            if line != lines[at]:
                text = "\n".join([*lines[:at], line, *lines[at + 1 :]])
                yield Mutant(text, kind, at, line.strip(), lines[at].strip())


class _Shape:
    """The way one line is written: what stands before and after the statement, and its quotes."""

    def __init__(self, before: str, after: str, *, double: bool) -> None:
        self._before, self._after, self._double = before, after, double

    @classmethod
    def of(cls, line: str, plain: str) -> _Shape | None:
        """Find ``plain``, a statement in normal form, in its line; None if it is not so written."""
        for double in (False, True):
            written = plain.replace("'", '"') if double else plain
            inner = line.strip().removeprefix("el" if plain.startswith("if ") else "")
            if not inner.startswith(written):
                continue
            before = line[: line.index(inner)]
            after = line[len(before) + len(written) :]
            if not after.strip() or after.strip().startswith("#"):
                return cls(before, after, double=double)
        return None

    def line(self, plain: str) -> str:
        """Return the line with another statement in normal form in the same place."""
        return self._before + (plain.replace("'", '"') if self._double else plain) + self._after


def _first_line(statement: ast.stmt) -> str:
    return ast.unparse(statement).split("\n")[0]


def _own_nodes(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield the statement and the expressions of its first line."""
    yield statement
    for field, value in ast.iter_fields(statement):
        if field in ("body", "orelse", "finalbody", "handlers"):
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                yield from ast.walk(item)
