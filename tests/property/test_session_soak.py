"""Any sequence of operations on many sessions leaves each what a plain recomputation says it is.

``benchmarks/soak.py`` is the long run of the same, with a process killed in the middle of it.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.engine import Engine
from tests.support.soak import OPERATIONS, TIGHT, Soak


@pytest.fixture(scope="module")
def plain(tiny_checkpoint: Path) -> Engine:
    return Engine.load(tiny_checkpoint, name="tiny")


@pytest.fixture(scope="module", params=[None, TIGHT], ids=["roomy", "tight"])
def engine(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Engine:
    """With the tight budget idle sessions are parked all the time."""
    return Engine.load(tiny_checkpoint, name="tiny", kv_memory=request.param)


steps = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 5), st.integers(0, 2000)), max_size=14
)


@settings(max_examples=40, deadline=None)
@given(steps=steps)
def test_no_operation_leaves_a_trace(
    engine: Engine, plain: Engine, steps: list[tuple[str, int, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(engine, plain, Path(folder))
        for step in steps:
            soak.do(*step)
        soak.check()
        soak.end()


def test_a_killed_process_leaves_its_last_whole_turn(
    plain: Engine, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    soak = Soak(Engine.load(tiny_checkpoint, name="tiny"), plain, tmp_path)
    rng = random.Random(1)
    for _ in range(2):
        soak.kill(soak.lives[0], tiny_checkpoint, rng)
        soak.check()
    soak.end()
