"""Any sequence of operations on many sessions leaves each what a plain recomputation says it is.

``benchmarks/soak.py`` is the long run of the same, with a process killed in the middle of it.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.checkpoint.hub import resolve
from model.engine import Engine
from tests.support.soak import OPERATIONS, TIGHT, Soak


@dataclass(frozen=True)
class Pair:
    """An engine to work with, and one of the same weights without a memory limit."""

    engine: Engine
    plain: Engine


@pytest.fixture(scope="module", params=["torch", "torch, tight", "compiled, tight"])
def pair(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Pair:
    """On the plain path and on the compiled one; tight: idle sessions are parked all the time."""
    compiled = request.param.startswith("compiled")
    place = resolve("embedded") if compiled else tiny_checkpoint
    limit = None if request.param == "torch" else 9 * TIGHT if compiled else TIGHT
    return Pair(
        Engine.load(place, name="pair", native=compiled, kv_memory=limit),
        Engine.load(place, name="pair", native=compiled),
    )


steps = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 5), st.integers(0, 2000)), max_size=14
)


@settings(max_examples=40, deadline=None)
@given(steps=steps)
def test_no_operation_leaves_a_trace(pair: Pair, steps: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(pair.engine, pair.plain, Path(folder))
        for step in steps:
            soak.do(*step)
        soak.check()
        soak.end()


def test_a_killed_process_leaves_its_last_whole_turn(tiny_checkpoint: Path, tmp_path: Path) -> None:
    engine, plain = (Engine.load(tiny_checkpoint, name="tiny") for _ in range(2))
    soak = Soak(engine, plain, tmp_path)
    rng = random.Random(1)
    for _ in range(2):
        soak.kill(soak.lives[0], tiny_checkpoint, rng)
        soak.check()
    soak.end()
