"""Saved sessions continue bit for bit or are refused, and a kill never leaves half of one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import persist
from model.engine import Engine
from model.errors import CheckpointError, StateError
from model.sampling import SamplingParams
from model.session import Session, TokenEvent

WARM = SamplingParams(temperature=1.0, top_k=0, top_p=1.0)


def say(session: Session, count: int) -> list[TokenEvent]:
    return list(session.generate(WARM, max_tokens=count, stop_ids=frozenset()))


def tensor_file(directory: Path) -> Path:
    (file,) = (directory / "state").iterdir()
    return file


@pytest.fixture
def saved(tiny_engine: Engine, tmp_path: Path) -> Path:
    session = tiny_engine.session(seed=1)
    session.extend(range(30))
    say(session, 4)
    session.save(tmp_path / "s")
    return tmp_path / "s"


@pytest.mark.parametrize("generated", [0, 1, 5])
def test_a_resumed_session_continues_bit_for_bit(
    tiny_engine: Engine, tmp_path: Path, generated: int
) -> None:
    session = tiny_engine.session(seed=3)
    session.extend(range(50))
    session.count(tool_s=1.5)
    say(session, generated)
    session.save(tmp_path)
    resumed = tiny_engine.resume(tmp_path)
    assert resumed.ids == session.ids
    assert resumed.usage == session.usage
    assert say(resumed, 6) == say(session, 6)
    for each in (session, resumed):
        each.extend([8, 9])
    assert say(resumed, 6) == say(session, 6)
    assert resumed.usage.generated_tokens == session.usage.generated_tokens == generated + 12
    usage = resumed.usage
    assert usage.prefilled_tokens + usage.generated_tokens == usage.context_tokens


def test_an_empty_session_can_be_saved(tiny_engine: Engine, tmp_path: Path) -> None:
    tiny_engine.session(seed=3).save(tmp_path)
    resumed, fresh = tiny_engine.resume(tmp_path), tiny_engine.session(seed=3)
    for session in (resumed, fresh):
        session.extend([1, 2])
    assert say(resumed, 5) == say(fresh, 5)


def test_saving_again_replaces_and_leaves_one_file(tiny_engine: Engine, saved: Path) -> None:
    first = tensor_file(saved)
    session = tiny_engine.resume(saved)
    say(session, 2)
    session.save(saved)
    assert tensor_file(saved) != first
    assert tiny_engine.resume(saved).ids == session.ids
    assert {entry.name for entry in saved.iterdir()} == {"state", persist.RECORD}


def test_another_engine_with_the_same_weights_resumes(
    tiny_checkpoint: Path, tiny_engine: Engine, saved: Path
) -> None:
    again = Engine.load(tiny_checkpoint, name="other name")
    assert say(again.resume(saved), 5) == say(tiny_engine.resume(saved), 5)


def test_other_weights_do_not_resume(tiny_checkpoint: Path, saved: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] + 1
    save_file(tensors, other / "model.safetensors")
    with pytest.raises(StateError, match="another model"):
        Engine.load(other, name="x").resume(saved)
    with pytest.raises(StateError, match="another model"):
        Engine.load(tiny_checkpoint, name="x", dtype=torch.bfloat16).resume(saved)


class Killed(BaseException):
    """Stands for a SIGKILL between two system calls."""


@pytest.mark.parametrize("call", range(1, 12))
def test_a_kill_at_any_system_call_leaves_the_old_or_the_new_session(
    tiny_engine: Engine, saved: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    session = tiny_engine.resume(saved)
    old = session.ids
    say(session, 3)
    calls = 0

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls >= call:
                raise Killed
            return function(*args, **options)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", dying(os.fsync))
        for name in ("replace", "unlink", "write_text"):
            patch.setattr(Path, name, dying(getattr(Path, name)))
        patch.setattr(persist, "save_file", dying(persist.save_file))
        try:
            session.save(saved)
        except Killed:
            finished = False
        else:
            finished = True
    resumed = tiny_engine.resume(saved)
    assert resumed.ids in ((session.ids,) if finished else (old, session.ids))
    say(resumed, 2)
    resumed.save(saved)
    assert tiny_engine.resume(saved).ids == resumed.ids
    tensor_file(saved)
    assert {entry.name for entry in saved.iterdir()} == {"state", persist.RECORD}


def test_nothing_saved(tiny_engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no saved session"):
        tiny_engine.resume(tmp_path / "nowhere")


@pytest.mark.parametrize("at", [0, 0.3, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("fault", ["cut", "flip"])
@pytest.mark.parametrize("which", ["record", "tensors"])
def test_any_damage_is_noticed(
    tiny_engine: Engine, saved: Path, which: str, fault: str, at: float
) -> None:
    file = saved / persist.RECORD if which == "record" else tensor_file(saved)
    data = bytearray(file.read_bytes())
    place = int(at * len(data))
    if fault == "cut":
        del data[place:]
    else:
        data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(StateError) as caught:
        tiny_engine.resume(saved)
    assert "\n" not in str(caught.value)


def test_a_missing_tensor_file(tiny_engine: Engine, saved: Path) -> None:
    tensor_file(saved).unlink()
    with pytest.raises(StateError, match="missing"):
        tiny_engine.resume(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"ids": None},
        {"ids": [1, 2]},
        {"state_length": 3},
        {"usage": {"spoons": 1}},
        {"usage": None},
        {"turn_start": "x"},
        {"state_file": None},
        {"state_sha256": None},
    ],
)
def test_a_record_that_contradicts_itself(
    tiny_engine: Engine, saved: Path, change: dict[str, Any]
) -> None:
    """Written with a right checksum, as another version of this program might."""
    record, tensors = persist.read(saved, tiny_engine.fingerprint)
    body = {**record, **change}
    body["checksum"] = persist._checksum(body)
    (saved / persist.RECORD).write_text(json.dumps(body))
    assert tensors
    with pytest.raises(StateError):
        tiny_engine.resume(saved)


def test_a_place_that_cannot_be_written(tiny_engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StateError, match="cannot save"):
        tiny_engine.session().save(tmp_path / "file")


def test_state_errors_are_no_checkpoint_errors() -> None:
    assert not issubclass(StateError, CheckpointError)
