"""A session under any sequence of operations equals one that was never rewound, forked or saved.

Each example runs a random program twice. The plain run only extends and generates. The other does
the same, but in between takes detours: it snapshots, runs on and comes back, forks and goes on with
the fork, or saves and resumes. Both must hold bit-identical ids, log-probabilities and logits.
"""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.checkpoint.hub import resolve
from model.engine import Engine
from model.kv_form import KvForm
from model.sampling import SamplingParams
from model.session import Session

Step = tuple[str, int]
PARAMS = {
    "greedy": SamplingParams(temperature=0.0),
    "warm": SamplingParams(temperature=1.0, top_k=50, top_p=0.9, presence_penalty=0.5),
}


@pytest.fixture(scope="module", params=["torch", "compiled", "torch int8", "compiled int8"])
def engine(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Engine:
    """A tiny random model on the plain torch path, or the embedded one on the compiled path; with
    keys and values as the model computes them, or in int8."""
    path, _, form = request.param.partition(" ")
    kv: KvForm = "int8" if form else "bf16"
    if path == "torch":
        return Engine.load(tiny_checkpoint, name="tiny", native=False, kv=kv)
    return Engine.load(resolve("embedded"), name="embedded", kv=kv)


def advance(session: Session, step: Step, params: SamplingParams) -> list[float]:
    kind, size = step
    if kind == "extend":
        session.extend([(size * 7 + i * i) % 1000 for i in range(size)])
        return []
    events = session.generate(params, max_tokens=size % 12 + 1, stop_ids=frozenset())
    return [event.logprob for event in events]


def detour(engine: Engine, session: Session, kind: str, params: SamplingParams) -> Session:
    if kind == "rewind":
        point = session.snapshot()
        advance(session, ("extend", 70), params)
        advance(session, ("generate", 3), params)
        session.restore(point)
    elif kind == "fork":
        twin = session.fork()
        advance(session, ("extend", 3), params)
        return twin
    elif kind == "save":
        with tempfile.TemporaryDirectory() as directory:
            session.save(Path(directory))
            return engine.resume(Path(directory))
    return session


steps = st.lists(
    st.tuples(st.sampled_from(["extend", "generate"]), st.integers(1, 600)), min_size=1, max_size=4
)
detours = st.lists(st.sampled_from(["none", "rewind", "fork", "save"]), min_size=4, max_size=4)


@settings(max_examples=25, deadline=None)
@given(steps=steps, detours=detours, params=st.sampled_from(sorted(PARAMS)))
def test_detours_leave_no_trace(
    engine: Engine, steps: list[Step], detours: list[str], params: str
) -> None:
    sampling = PARAMS[params]
    plain, winding = engine.session(seed=1), engine.session(seed=1)
    program: list[Step] = [("extend", 5), *steps]
    for index, step in enumerate(program):
        expected = advance(plain, step, sampling)
        if index:
            winding = detour(engine, winding, detours[index - 1], sampling)
        assert advance(winding, step, sampling) == expected
    assert winding.ids == plain.ids
    ours, theirs = winding.snapshot(), plain.snapshot()
    assert ours.logits is not None
    assert theirs.logits is not None
    assert torch.equal(ours.logits, theirs.logits)
    wanted = theirs.state.tensors()
    for name, tensor in ours.state.tensors().items():
        assert torch.equal(tensor, wanted[name]), name
    usage = plain.usage
    assert usage.prefilled_tokens + usage.generated_tokens == usage.context_tokens


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 699), max_size=6))
def test_prefill_may_be_cut_anywhere(engine: Engine, cuts: list[int]) -> None:
    ids = [(i * 31) % 1000 for i in range(700)]
    whole, pieces = engine.session(), engine.session()
    whole.extend(ids)
    edges = sorted({0, 700, *cuts})
    for start, stop in pairwise(edges):
        pieces.extend(ids[start:stop])
    expected, got = whole.snapshot().logits, pieces.snapshot().logits
    assert expected is not None
    assert got is not None
    # In 8 bits a difference in the last bit of a key can round to another code.
    eight = engine.placement is not None and engine.placement.kv == "int8"
    torch.testing.assert_close(got, expected, atol=0.3 if eight else 1e-4, rtol=0)
    assert whole.usage.prefilled_tokens == pieces.usage.prefilled_tokens == 700
