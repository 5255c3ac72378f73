"""Wide tasks: the broken function among others, as its makers wrote it, or as a method.

A module has up to 40 lines: functions with docstrings, comments and annotations, or a class, and
in some tasks a second file that the module imports from. The cases come from the function alone,
so whatever stands around it changes no result.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from evals.training.corpus import Function
from evals.training.execute import probe, run_tests
from evals.training.in_place import mutants_in_place
from evals.training.make_tasks import write_test
from evals.training.mutate import choose
from evals.training.task import RepairTask
from evals.training.wording import Report, issue_text

MOST_LINES, MOST_CHARACTERS = 40, 1600
FUTURE = "from __future__ import annotations"
"""Annotations that name what a module does not import are then never looked up."""
CLASS_WORDS = ("Helper", "Tools", "Engine", "Store", "Reader", "Rules", "Table", "Numbers")
MOST_MUTANTS = 60


@dataclass(frozen=True)
class WideModule:
    """A module's text, how a test calls the function in it, and the files beside it.

    ``called`` is an expression such as ``clamp`` or ``Rules().clamp``; ``imported`` the name that
    the test imports.
    """

    text: str
    called: str
    imported: str
    beside: dict[str, str] = field(default_factory=dict)


def wide_tasks(
    function: Function, others: Sequence[Function], random_: random.Random, path: str, most: int
) -> list[RepairTask]:
    """Return up to ``most`` tasks around ``function``; none if it cannot be tested there."""
    module = compose(function, others, random_)
    if module is None:
        return []
    found = mutants_in_place(module.text, function.name)
    random_.shuffle(found)
    found = found[:MOST_MUTANTS]
    if not found:
        return []
    # Methods are probed as what the test will call, through a plain function of the same name.
    bare = "" if module.called == function.name else f"\n\n{function.name} = {module.called}\n"
    alone = _inlined(module)
    probed = probe(
        _probing(function, alone + bare),
        [mutant.text for mutant in found],
        random_.randrange(2**31),
        lambda text: _inlined(module, text) + bare,
    )
    if probed is None:
        return []
    test = write_test(path, module.imported, module.called, probed.cases, random_)
    tasks: list[RepairTask] = []
    killed = [m for m in found if probed.killed.get(m.text, (0, "!_TooLong"))[1] != "!_TooLong"]
    while killed and len(tasks) < most:
        mutant = choose(random_, killed)
        killed.remove(mutant)
        at, got = probed.killed[mutant.text]
        failures = run_tests([mutant.text], path, test, module.beside)
        if failures is None or failures[0] is None:
            continue
        case = probed.cases[at]
        report = Report(
            function.name, path, f"test_{path}", f"{module.called}({case.arguments})", got,
            case.result,
        )  # fmt: skip
        tasks.append(
            RepairTask(
                f"{function.source}.{function.name}.wide{len(tasks)}", function.source,
                function.name, path, mutant.text, f"test_{path}", test,
                issue_text(random_, report, failures[0]), mutant.kind, mutant.line, mutant.fixed,
                beside=module.beside,
            )
        )  # fmt: skip
    return tasks


def compose(
    function: Function, others: Sequence[Function], random_: random.Random
) -> WideModule | None:
    """Write a module around ``function`` with some of ``others``; None if it grows too long.

    Two in five are classes where the function can be a method; one in six imports from a file
    beside it.
    """
    around = [other for other in others if other.name != function.name][: random_.randint(0, 3)]
    texts = [_dressed(random_, one) for one in (function, *around)]
    imports = {line for one in (function, *around) for line in one.imports}
    beside: dict[str, str] = {}
    if around and random_.random() < 0.17:
        helper = f"{around[-1].name.strip('_').lower()}_part"
        beside[f"{helper}.py"] = _file(set(around[-1].imports), [texts.pop()])
        imports = {line for one in (function, *around[:-1]) for line in one.imports}
        imports.add(f"from {helper} import {around[-1].name}")
    called, imported = function.name, function.name
    if random_.random() < 0.4 and all(_can_be_method(one) for one in (function, *around)):
        imported = random_.choice(CLASS_WORDS)
        called = f"{imported}().{function.name}"
        random_.shuffle(texts)
        note = random_.choice(("", f'    """Everything about {function.name}."""\n\n'))
        texts = [f"class {imported}:\n{note}" + "\n\n".join(map(_as_method, texts))]
    else:
        random_.shuffle(texts)
    text = _file(imports, texts)
    if len(text.split("\n")) > MOST_LINES or len(text) > MOST_CHARACTERS:
        return None
    if len({name.split(" import ")[-1] for name in imports}) != len(imports):
        return None
    return WideModule(text, called, imported, beside)


def _dressed(random_: random.Random, function: Function) -> str:
    """Return the function as it was written where that is known, else in normal form."""
    return function.original if function.original and random_.random() < 0.8 else function.text


def _file(imports: set[str], texts: Sequence[str]) -> str:
    """Join a file's imports and its top-level parts."""
    annotated = any(_is_annotated(text) for text in texts)
    head = "\n".join(sorted(imports, key=lambda line: (line.startswith("from"), line)))
    parts = [*([FUTURE] if annotated else []), *([head] if head else [])]
    return "\n\n".join(parts) + ("\n\n\n" if parts else "") + "\n\n\n".join(texts) + "\n"


def _is_annotated(text: str) -> bool:
    return any(
        (isinstance(item, ast.arg) and item.annotation is not None)
        or (isinstance(item, ast.FunctionDef) and item.returns is not None)
        for item in ast.walk(ast.parse(text))
    )


def _can_be_method(function: Function) -> bool:
    """Tell whether the function may get ``self``: it neither calls itself nor has inner scopes."""
    tree = ast.parse(function.text)
    names = {item.id for item in ast.walk(tree) if isinstance(item, ast.Name)}
    inside = function.original.split('"""')
    # Indenting would change a string of several lines that is no docstring.
    return not names & {function.name, "self"} and len(inside) in (1, 3)


def _as_method(text: str) -> str:
    """Return a function's text as that of a method."""
    head, _, rest = text.partition("(")
    gap = "" if rest.lstrip().startswith(")") else ", "
    if rest.startswith("\n"):
        rest, gap = rest.lstrip(), ", "
    lines = f"{head}(self{gap}{rest}".split("\n")
    return "\n".join(f"    {line}" if line else line for line in lines)


def _inlined(module: WideModule, text: str | None = None) -> str:
    """Return the module's text, or that of a mutant of it, with what it imports in its place."""
    text = module.text if text is None else text
    for path, content in module.beside.items():
        name = path.removesuffix(".py")
        body = content.replace(f"{FUTURE}\n", "")
        lines = [body if line.startswith(f"from {name} ") else line for line in text.split("\n")]
        text = "\n".join(lines)
    return text


def _probing(function: Function, text: str) -> Function:
    """Return what ``probe`` takes for a module's text."""
    return Function(function.name, function.source, text, (), True, function.parameters)
