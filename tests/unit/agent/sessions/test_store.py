"""Saved sessions: whole or not there, found by prefix, never removed while they run."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.errors import SessionNotFound, StoreError
from agent.sessions.history import records_of
from agent.sessions.store import SessionStore
from sandboxes.paths import Owner


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path / "sessions")


def owner_of_a_dead_process() -> str:
    code = "from sandboxes.paths import Owner; print(Owner.of_this_process())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    return done.stdout.strip()


def test_a_new_session_is_running_and_private(store: SessionStore) -> None:
    session = store.create(task="fix it")
    assert session.status == "running"
    assert session.path.stat().st_mode & 0o777 == 0o700
    assert store.find(session.id).info.task == "fix it"
    assert [path.name for path in store.root.iterdir()] == [session.id]


def test_update_replaces_the_file_and_keeps_the_rest(store: SessionStore) -> None:
    session = store.create(task="fix it").update(status="submitted", steps=3)
    again = store.find(session.id)
    assert (again.status, again.info.task, again.info.steps) == ("submitted", "fix it", 3)
    assert sorted(path.name for path in session.path.iterdir()) == ["session.json"]


def test_find_takes_a_prefix_that_is_unique(store: SessionStore) -> None:
    first, _ = store.create(), store.create()
    assert store.find(first.id).id == first.id
    with pytest.raises(SessionNotFound, match="2 sessions begin with"):
        store.find("20")
    for name in ("", "nope", "../", first.id + "x"):
        with pytest.raises(SessionNotFound):
            store.find(name)


def test_a_running_session_is_not_removed_but_a_dead_one_is(store: SessionStore) -> None:
    session = store.create()
    with pytest.raises(StoreError, match="is running"):
        store.remove(session.id)
    session.update(owner=owner_of_a_dead_process())
    assert store.remove(session.id) == session.id
    assert store.sessions() == []
    assert list(store.root.iterdir()) == []


def test_reap_marks_only_sessions_whose_process_died(store: SessionStore) -> None:
    alive, dead, done = store.create(), store.create(), store.create()
    gone = owner_of_a_dead_process()
    dead.update(owner=gone)
    done.update(owner=gone, status="submitted")
    assert store.reap() == [dead.id]
    assert [store.find(session.id).status for session in (alive, dead, done)] == [
        "running",
        "killed",
        "submitted",
    ]


def test_reap_clears_half_made_folders_once_they_are_old(store: SessionStore) -> None:
    store.create()
    young, old = store.root / ".new-young", store.root / ".new-old"
    young.mkdir()
    old.mkdir()
    past = time.time() - 7200
    os.utime(old, (past, past))
    store.reap()
    assert young.exists()
    assert not old.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
def test_a_damaged_session_is_listed_and_can_be_removed(store: SessionStore, text: str) -> None:
    session = store.create()
    (session.path / "session.json").write_text(text)
    assert [item.status for item in store.sessions()] == ["unreadable"]
    store.remove(session.id)
    assert store.sessions() == []


def test_a_flipped_bit_in_session_json_is_found(store: SessionStore) -> None:
    """``TENUTO_FUZZ`` says how many flips are tried."""
    settings = {"temperature": 0.5, "pass_env": ("A",)}
    session = store.create(task="repair \udcff it", repo=Path("/r"), settings=settings, steps=3)
    file = session.path / "session.json"
    good, first = file.read_bytes(), store.find(session.id).info
    assert first.wrong == () and first.settings["pass_env"] == ["A"]
    chance = random.Random(5)
    for _ in range(int(os.environ.get("TENUTO_FUZZ", "400"))):
        bad = bytearray(good)
        bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        file.write_bytes(bad)
        info = store.sessions()[0].info
        same = all(info.stored.get(name) == value for name, value in first.stored.items())
        assert same or info.wrong or info.status == "unreadable", bytes(bad)


def test_a_damaged_session_json_does_not_become_sound_by_an_update(store: SessionStore) -> None:
    session = store.create(task="repair", repo=Path("/r"), baseline="", head="", settings={})
    file = session.path / "session.json"
    file.write_text(file.read_text().replace('"repair"', '"rm -rf"'))
    assert store.find(session.id).update(status="killed").reread().info.wrong == ("its checksum",)
    with pytest.raises(StoreError, match="its checksum in session"):
        records_of(store.find(session.id))


def test_no_folder_yet_is_no_sessions(store: SessionStore) -> None:
    assert store.sessions() == []
    assert store.reap() == []
    assert not store.root.exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StoreError, match="make it writable or set XDG_STATE_HOME"):
        SessionStore(blocked / "sessions").create()


def test_text_that_is_no_unicode_does_not_stop_a_session(store: SessionStore) -> None:
    session = store.create(task="odd \udcff name")
    assert json.loads((session.path / "session.json").read_bytes())["task"] == "odd \udcff name"


def test_an_id_begins_with_the_time_and_names_its_owner(store: SessionStore) -> None:
    before = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    session = store.create()
    after = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    assert before <= session.id[:15] <= after
    assert Owner.parse(session.info.owner) == Owner.of_this_process()


def test_sessions_of_one_second_are_listed_oldest_first(store: SessionStore) -> None:
    made = [store.create().id for _ in range(12)]
    assert [session.id for session in store.sessions()] == made


def test_a_copy_shares_objects_and_states_alone(tmp_path: Path) -> None:
    # The usual place of sessions has a folder "state" above it.
    store = SessionStore(tmp_path / "state" / "objects" / "sessions")
    saved = store.create(task="t")
    shared = ("files.git/objects/ab/cdef", "state/span-0", "points/000000005/state/point-1")
    own = ("files.git/info/exclude", "files.git/HEAD", "points/000000005/session_state.json")
    for name in (*shared, *own):
        (saved.path / name).parent.mkdir(parents=True, exist_ok=True)
        (saved.path / name).write_text(name)
    copy = store.copy(saved, status="killed")
    for name in (*shared, *own):
        assert (copy.path / name).read_text() == name
        same = (copy.path / name).samefile(saved.path / name)
        assert same == (name in shared), name


def test_an_update_on_a_full_disk_leaves_the_old_one_and_nothing_else(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = store.create(task="t")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            saved.update(status="submitted")
    assert [path.name for path in saved.path.iterdir()] == ["session.json"]
    assert saved.reread().status == "running"
