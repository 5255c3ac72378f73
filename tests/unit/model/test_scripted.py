"""The scripted network: one turn an extend, through the real session."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.errors import StateError
from model.sampling import SamplingParams
from model.scheduler import Scheduler
from model.scripted import ScriptedNetwork, scripted_engine
from model.session import Session

STOP = frozenset([9])
SCRIPT = [[1, 2, 9], [3, 9], [4, 5, 6, 9]]


def say(session: Session, count: int = 20, **params: float) -> list[int]:
    events = session.generate(SamplingParams(**params), max_tokens=count, stop_ids=STOP)
    return [event.id for event in events]


def test_turns_come_one_an_extend() -> None:
    session = Session(Scheduler(ScriptedNetwork(SCRIPT, 10)))
    for turn in SCRIPT:
        session.extend([7, 8])
        assert say(session) == turn


@pytest.mark.parametrize("params", [{"temperature": 0.0}, {"temperature": 5.0, "top_k": 0}])
def test_sampling_makes_no_difference_and_is_certain(params: dict[str, float]) -> None:
    session = Session(Scheduler(ScriptedNetwork(SCRIPT, 10)))
    session.extend([7])
    params = {key: int(v) if key == "top_k" else v for key, v in params.items()}
    events = session.generate(SamplingParams(**params), max_tokens=9, stop_ids=STOP)
    assert [(event.id, event.logprob) for event in events] == [(1, 0.0), (2, 0.0), (9, 0.0)]


def test_a_cut_turn_goes_on_or_gives_way() -> None:
    session = Session(Scheduler(ScriptedNetwork(SCRIPT, 10)))
    session.extend([7])
    assert say(session, 1) == [1]
    assert say(session) == [2, 9]
    session.extend([7])
    assert say(session, 1) == [3]
    session.extend([9, 7])
    assert say(session) == SCRIPT[2]


def test_input_in_two_parts_is_one_turn() -> None:
    session = Session(Scheduler(ScriptedNetwork(SCRIPT, 10)))
    session.extend([7])
    session.extend([8])
    assert say(session) == SCRIPT[0]


def test_after_the_script_only_its_last_id_is_left() -> None:
    session = Session(Scheduler(ScriptedNetwork([[1, 9]], 10)))
    session.extend([7])
    assert say(session) == [1, 9]
    session.extend([7])
    assert say(session) == [9]


def test_a_saved_session_goes_on_with_the_same_script_only(tmp_path: Path) -> None:
    session = Session(Scheduler(ScriptedNetwork(SCRIPT, 10)))
    session.extend([7])
    say(session, 2)
    session.save(tmp_path)
    assert say(Session.resume(Scheduler(ScriptedNetwork(SCRIPT, 10)), tmp_path)) == [9]
    with pytest.raises(StateError, match="another model"):
        Session.resume(Scheduler(ScriptedNetwork(SCRIPT[:2], 10)), tmp_path)


@pytest.mark.parametrize("script", [[], [[1], []]])
def test_empty_scripts_are_refused(script: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        ScriptedNetwork(script, 10)


def test_an_engine_of_turns_as_text() -> None:
    class Bytes:
        vocab_size = 256

        def encode_markup(self, text: str) -> list[int]:
            return list(text.encode())

    engine = scripted_engine(["hi\0"], tokenizer=Bytes(), context_length=5)
    session = engine.session()
    session.extend([65])
    events = session.generate(engine.generation, max_tokens=9, stop_ids=frozenset([0]))
    assert bytes(event.id for event in events) == b"hi\0"
    assert engine.context_length == engine.config.context_length == 5
