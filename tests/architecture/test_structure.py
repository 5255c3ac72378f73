"""The figures of the house: rooms, levels, arrows, callables. They may get better, never worse."""

from __future__ import annotations

import pytest

from scripts.structure import (
    PACKAGES,
    TOWERS,
    callables,
    clashes,
    default_lambdas,
    entries,
    levels,
    long_functions,
    read,
    rooms,
)

ENTRIES, LEVELS, ARROWS = 16, 8, 60
CALLABLES, LAMBDAS = 39, 0
LONG = {"model": 1, "sandboxes": 0, "tools": 0, "agent": 0, "evals": 0}
CLASHES = {"kernels model": 4, "sandboxes tools": 1, "agent evals": 3}


def test_agent_has_few_rooms_on_few_levels_with_few_arrows() -> None:
    edges = rooms(read("agent"))
    assert len(entries("agent")) <= ENTRIES
    assert max(levels(edges).values()) <= LEVELS
    assert sum(map(len, edges.values())) <= ARROWS


def test_few_parameters_of_agent_are_callables() -> None:
    agent = read("agent")
    assert len(callables(agent)) <= CALLABLES, "\n".join(callables(agent))
    assert len(default_lambdas(agent)) <= LAMBDAS, "\n".join(default_lambdas(agent))


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "kernels"])
def test_functions_are_short(package: str) -> None:
    found = long_functions(read(package))
    assert len(found) <= LONG[package], "\n".join(found)


@pytest.mark.parametrize("tower", TOWERS, ids=" ".join)
def test_one_name_means_one_thing_in_a_tower(tower: tuple[str, ...]) -> None:
    found = clashes(tower)
    assert len(found) <= CLASHES[" ".join(tower)], found
