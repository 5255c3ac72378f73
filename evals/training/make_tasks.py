"""Making repair tasks: break a function, keep the mutants that its tests tell apart."""

from __future__ import annotations

import random
from collections.abc import Iterable

from evals.training.corpus import Function
from evals.training.execute import Case, probe
from evals.training.mutate import choose, mutants
from evals.training.task import RepairTask

ISSUES = (
    "`{name}` in `{path}` is wrong: {symptom}.",
    "{Symptom}. The bug is in `{path}`.",
    "`{path}`: {symptom}.",
    "Fix `{name}` in `{path}`: {symptom}.",
)


def tasks_of(function: Function, seed: int, words: list[str], most: int) -> list[RepairTask]:
    """Up to ``most`` tasks of one function, of different bugs; none if it cannot be tested."""
    random_ = random.Random(f"{seed}:{function.source}:{function.name}:{function.text}")
    candidates = mutants(function.text)
    if not candidates:
        return []
    random_.shuffle(candidates)
    head = "\n".join(function.imports)
    head = f"{head}\n\n\n" if head else ""
    probed = probe(
        function, [m.text for m in candidates], random_.randrange(2**31), lambda t: f"{head}{t}\n"
    )
    if probed is None:
        return []
    path = f"{random_.choice([function.name.strip('_').lower(), random_.choice(words)])}.py"
    test = write_test(path, function.name, function.name, probed.cases, random_)
    shift = len(head.split("\n")) - 1
    killed = [
        mutant
        for mutant in candidates
        if probed.killed.get(mutant.text, (0, "!_TooLong"))[1] != "!_TooLong"
    ]
    tasks: list[RepairTask] = []
    while killed and len(tasks) < most:
        mutant = choose(random_, killed)
        killed.remove(mutant)
        at, got = probed.killed[mutant.text]
        tasks.append(
            RepairTask(
                instance_id=f"{function.source}.{function.name}.{len(tasks)}",
                source=function.source,
                name=function.name,
                path=path,
                module=f"{head}{mutant.text}\n",
                test_path=f"test_{path}",
                test=test,
                issue=_issue(path, function.name, probed.cases[at], got, random_),
                kind=mutant.kind,
                line=mutant.line + shift,
                fixed=mutant.fixed,
            )
        )
    return tasks


def write_test(
    path: str, name: str, called: str, cases: Iterable[Case], random_: random.Random
) -> str:
    """Return a test file that imports ``name`` and asserts what ``called`` gives in each case."""
    cases = list(cases)
    groups = [cases]
    if len(cases) > 3 and random_.random() < 0.4:
        groups = [cases[: len(cases) // 2], cases[len(cases) // 2 :]]
    plain = name.strip("_")
    text = f"from {path.removesuffix('.py')} import {name}\n"
    for number, group in enumerate(groups, 1):
        suffix = f"_{number}" if len(groups) > 1 else ""
        text += f"\n\ndef test_{plain}{suffix}():\n"
        text += "".join(f"    assert {called}({c.arguments}) == {c.result}\n" for c in group)
    return text


def _issue(path: str, name: str, case: Case, got: str, random_: random.Random) -> str:
    call = f"`{name}({case.arguments})`"
    verb = f"raises {got[1:]}" if got.startswith("!") else f"returns {got}"
    verb = "returns something else" if got == "?" else verb
    symptom = f"{call} {verb}, expected {case.result}"
    template = random_.choice(ISSUES)
    return template.format(name=name, path=path, symptom=symptom, Symptom=symptom)
