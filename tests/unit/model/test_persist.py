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


def files(directory: Path, kind: str) -> list[Path]:
    return sorted((directory / "state").glob(f"{kind}-*"))


def whole(directory: Path) -> None:
    """There is what the record names and nothing else."""
    record = json.loads((directory / persist.RECORD).read_text())
    named = {record["point"][0], *(span[2] for span in record["spans"])}
    assert {entry.name for entry in (directory / "state").iterdir()} == named
    assert {entry.name for entry in directory.iterdir()} == {"state", persist.RECORD}


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


def test_saving_again_writes_what_is_new_and_leaves_nothing_over(
    tiny_engine: Engine, saved: Path
) -> None:
    (point,), (span,) = files(saved, "point"), files(saved, "span")
    written = span.stat().st_mtime_ns
    session = tiny_engine.resume(saved)
    say(session, 2)
    session.save(saved)
    assert files(saved, "point") != [point]
    first, second = files(saved, "span")
    assert first == span
    assert span.stat().st_mtime_ns == written
    assert second.name.startswith("span-000000033-000000035-")
    assert tiny_engine.resume(saved).ids == session.ids
    whole(saved)


def test_saving_twice_the_same_writes_no_span(tiny_engine: Engine, saved: Path) -> None:
    before = files(saved, "span"), files(saved, "point")
    tiny_engine.resume(saved).save(saved)
    assert (files(saved, "span"), files(saved, "point")) == before


def test_a_rewound_session_saves_its_own_future(tiny_engine: Engine, tmp_path: Path) -> None:
    """Spans of the way that was left must not be taken for those of the new one."""
    session = tiny_engine.session(seed=2)
    session.extend(range(20))
    session.save(tmp_path)
    point = session.snapshot()
    session.extend([5] * 10)
    session.save(tmp_path)
    ahead = session.snapshot()
    session.restore(point)
    session.extend([6] * 10)
    session.save(tmp_path)
    whole(tmp_path)
    resumed = tiny_engine.resume(tmp_path)
    assert resumed.ids == (*range(20), *[6] * 10)
    assert say(resumed, 4) == say(session.fork(), 4)
    session.restore(ahead)
    session.save(tmp_path)
    whole(tmp_path)
    resumed = tiny_engine.resume(tmp_path)
    assert resumed.ids == (*range(20), *[5] * 10)
    assert say(resumed, 4) == say(session, 4)


def test_a_fork_shares_its_files_until_they_differ(tiny_engine: Engine, tmp_path: Path) -> None:
    session = tiny_engine.session(seed=2)
    session.extend(range(20))
    session.save(tmp_path / "one")
    twin = session.fork()
    twin.extend([9])
    twin.save(tmp_path / "two")
    (shared,) = files(tmp_path / "one", "span")
    assert files(tmp_path / "two", "span")[0].samefile(shared)
    shutil.rmtree(tmp_path / "one")
    assert say(tiny_engine.resume(tmp_path / "two"), 4) == say(twin, 4)
    # Nothing to link to any more: it is written again.
    session.save(tmp_path / "one")
    assert say(tiny_engine.resume(tmp_path / "one"), 4) == say(session, 4)


def test_many_small_saves_are_gathered(
    tiny_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persist, "_MOST_SPANS", 5)
    session = tiny_engine.session()
    counts = []
    for token in range(12):
        session.extend([token])
        session.save(tmp_path)
        counts.append(len(files(tmp_path, "span")))
    assert counts == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2]
    assert tiny_engine.resume(tmp_path).ids == tuple(range(12))


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


@pytest.mark.parametrize("call", range(1, 18))
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
    whole(saved)


def test_nothing_saved(tiny_engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no saved session"):
        tiny_engine.resume(tmp_path / "nowhere")


@pytest.mark.parametrize("at", [0, 0.3, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("fault", ["cut", "flip"])
@pytest.mark.parametrize("which", ["record", "point", "span"])
def test_any_damage_is_noticed(
    tiny_engine: Engine, saved: Path, which: str, fault: str, at: float
) -> None:
    file = saved / persist.RECORD if which == "record" else files(saved, which)[0]
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


@pytest.mark.parametrize("which", ["point", "span"])
def test_a_missing_file(tiny_engine: Engine, saved: Path, which: str) -> None:
    files(saved, which)[0].unlink()
    with pytest.raises(StateError, match="missing"):
        tiny_engine.resume(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"pending": None},
        {"pending": ["x"]},
        {"state_length": 3},
        {"usage": {"spoons": 1}},
        {"usage": None},
        {"turn_start": "x"},
        {"spans": None},
        {"spans": [[0, 33, "x"]]},
        {"spans": []},
        {"point": None},
        {"point": ["x", "y"]},
    ],
)
def test_a_record_that_contradicts_itself(
    tiny_engine: Engine, saved: Path, change: dict[str, Any]
) -> None:
    """Written with a right checksum, as another version of this program might."""
    record = persist.read(saved, tiny_engine.fingerprint).record
    body = {**record, **change}
    body["checksum"] = persist._checksum(body)
    (saved / persist.RECORD).write_text(json.dumps(body))
    with pytest.raises(StateError):
        tiny_engine.resume(saved)


def test_a_place_that_cannot_be_written(tiny_engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StateError, match="cannot save"):
        tiny_engine.session().save(tmp_path / "file")


def test_state_errors_are_no_checkpoint_errors() -> None:
    assert not issubclass(StateError, CheckpointError)
