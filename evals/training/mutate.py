"""One-line bugs: every small, plausible way to break a function, each undone by editing one line.

The operators follow the usual ones of mutation testing (Jia and Harman, "An analysis and survey of
the development of mutation testing", 2011) as far as they look like mistakes that people make.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

COMPARE: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
ARITHMETIC: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add, ast.FloorDiv),
    ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Mod, ast.Mult),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
}
CALLS = {
    "min": "max", "max": "min", "any": "all", "all": "any", "lower": "upper", "upper": "lower",
    "append": "extend", "extend": "append", "startswith": "endswith", "endswith": "startswith",
    "strip": "lstrip", "lstrip": "rstrip", "rstrip": "lstrip", "find": "rfind", "rfind": "find",
    "floor": "ceil", "ceil": "floor", "split": "rsplit", "rsplit": "split", "keys": "values",
    "values": "keys", "sum": "len", "len": "sum", "ljust": "rjust", "rjust": "ljust",
    "sorted": "list", "isdigit": "isalpha", "isalpha": "isdigit", "add": "discard",
    "sin": "cos", "cos": "sin", "ord": "len", "int": "float", "float": "int",
}  # fmt: skip

KIND_WEIGHTS = {
    "comparison": 3.0, "operator": 2.5, "constant": 3.0, "variable": 3.0, "negation": 1.5,
    "off-by-one": 2.5, "call": 2.0, "order": 0.7, "condition": 1.5,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A function with one line changed.

    ``kind`` names the operator; ``line`` is the changed line (0-based); ``fixed`` and ``buggy`` are
    that line as it was and as it is, without indentation.
    """

    text: str
    kind: str
    line: int
    buggy: str
    fixed: str


def mutants(text: str) -> list[Mutant]:
    """Return every mutant of a function in normal form that differs from it in exactly one line."""
    found: dict[str, Mutant] = {}
    original = text.split("\n")
    for kind, mutated in _mutated_texts(text):
        lines = mutated.split("\n")
        if len(lines) != len(original):
            continue
        changed = [i for i, (a, b) in enumerate(zip(original, lines, strict=True)) if a != b]
        if len(changed) == 1 and changed[0] > 0:
            at = changed[0]
            found.setdefault(
                mutated, Mutant(mutated, kind, at, lines[at].strip(), original[at].strip())
            )
    return list(found.values())


def _mutated_texts(text: str) -> Iterator[tuple[str, str]]:
    """Apply each change to the tree in place, write it out, and take the change back."""
    tree = ast.parse(text)
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    names = local_names(function)
    for node in list(ast.walk(tree)):
        for kind, apply, undo in changes(node, names):
            apply()
            try:
                yield kind, ast.unparse(tree)
            finally:
                undo()


Change = tuple[str, Callable[[], None], Callable[[], None]]


def local_names(function: ast.FunctionDef) -> list[str]:
    """Return the names that a function binds, its parameters included, sorted."""
    names = [item.arg for item in ast.walk(function.args) if isinstance(item, ast.arg)]
    for item in ast.walk(function):
        if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store):
            names.append(item.id)
    return sorted(set(names) - {"self", "cls", "_"})


def _set(node: ast.AST, field: str, value: object, kind: str) -> Change:
    """Return the change that gives ``node.field`` another value."""
    old = getattr(node, field)
    return kind, lambda: setattr(node, field, value), lambda: setattr(node, field, old)


def _put(items: list[ast.expr], index: int, value: ast.expr, kind: str) -> Change:
    """Return the change that puts another expression at one place of a list."""
    old = items[index]
    return kind, lambda: items.__setitem__(index, value), lambda: items.__setitem__(index, old)


def _plus(node: ast.expr, amount: int) -> ast.expr:
    operator = ast.Add() if amount > 0 else ast.Sub()
    return ast.BinOp(left=node, op=operator, right=ast.Constant(abs(amount)))


def changes(node: ast.AST, names: list[str]) -> Iterator[Change]:
    """Yield every change of one node; a variable becomes another of ``names``."""
    if isinstance(node, ast.Compare):
        for i, comparison in enumerate(node.ops):
            for other in COMPARE.get(type(comparison), ()):
                ops = [*node.ops[:i], other(), *node.ops[i + 1 :]]
                yield _set(node, "ops", ops, "comparison")
    elif isinstance(node, ast.BinOp | ast.AugAssign):
        for operator in ARITHMETIC.get(type(node.op), ()):
            yield _set(node, "op", operator(), "operator")
    elif isinstance(node, ast.BoolOp):
        other_op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
        yield _set(node, "op", other_op, "condition")
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield _set(node, "value", not node.value, "constant")
        elif isinstance(node.value, int) and 0 <= node.value < 1000:
            yield _set(node, "value", node.value + 1, "constant")
            if node.value > 0:
                yield _set(node, "value", node.value - 1, "constant")
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
        for name in names:
            if name != node.id:
                yield _set(node, "id", name, "variable")
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield _set(node, "op", ast.UAdd(), "operator")
    yield from _statement_changes(node)
    yield from _call_changes(node)


def _statement_changes(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        test = node.test
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            yield _set(node, "test", test.operand, "negation")
        elif not isinstance(test, ast.Compare):
            yield _set(node, "test", ast.UnaryOp(op=ast.Not(), operand=test), "negation")
    if isinstance(node, ast.IfExp):
        body, orelse = node.body, node.orelse

        def swap() -> None:
            node.body, node.orelse = orelse, body

        def back() -> None:
            node.body, node.orelse = body, orelse

        yield "condition", swap, back
    elif isinstance(node, ast.Return) and node.value is not None:
        if isinstance(node.value, ast.UnaryOp) and isinstance(node.value.op, ast.Not):
            yield _set(node, "value", node.value.operand, "negation")
        elif isinstance(node.value, ast.Compare | ast.Call | ast.Name):
            yield _set(node, "value", ast.UnaryOp(op=ast.Not(), operand=node.value), "negation")
        if isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2:
            yield _set(node.value, "elts", node.value.elts[::-1], "order")
    elif isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice | ast.Constant):
        if isinstance(node.slice, ast.Name | ast.BinOp):
            yield _set(node, "slice", _plus(node.slice, 1), "off-by-one")
            yield _set(node, "slice", _plus(node.slice, -1), "off-by-one")
    elif isinstance(node, ast.Slice):
        for field in ("lower", "upper"):
            bound = getattr(node, field)
            if isinstance(bound, ast.Name | ast.BinOp):
                yield _set(node, field, _plus(bound, 1), "off-by-one")
                yield _set(node, field, _plus(bound, -1), "off-by-one")


def _call_changes(node: ast.AST) -> Iterator[Change]:
    if not isinstance(node, ast.Call):
        return
    target = node.func
    if isinstance(target, ast.Name) and target.id in CALLS:
        yield _set(target, "id", CALLS[target.id], "call")
    elif isinstance(target, ast.Attribute) and target.attr in CALLS:
        yield _set(target, "attr", CALLS[target.attr], "call")
    plain = [not isinstance(argument, ast.Starred) for argument in node.args]
    if len(node.args) == 2 and all(plain):
        yield _set(node, "args", node.args[::-1], "order")
    if isinstance(target, ast.Name) and target.id == "range" and node.args and all(plain):
        last = len(node.args) - 1 if len(node.args) < 3 else 1
        bound = node.args[last]
        if isinstance(bound, ast.BinOp) and isinstance(bound.right, ast.Constant):
            yield _put(node.args, last, bound.left, "off-by-one")
        else:
            yield _put(node.args, last, _plus(bound, 1), "off-by-one")
            yield _put(node.args, last, _plus(bound, -1), "off-by-one")


def choose(random_: random.Random, candidates: Sequence[Mutant]) -> Mutant:
    """One mutant: first its kind by ``KIND_WEIGHTS``, then evenly among that kind."""
    kinds = sorted({mutant.kind for mutant in candidates})
    kind = random_.choices(kinds, [KIND_WEIGHTS[kind] for kind in kinds])[0]
    return random_.choice([mutant for mutant in candidates if mutant.kind == kind])
