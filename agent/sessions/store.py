"""Saved sessions: ``$XDG_STATE_HOME/tenuto/sessions/ID/``.

``session.json``     what the session is and how it ended; replaced whole, never half-written
``trajectory.jsonl`` every step, appended as it happens (``agent.sessions.trajectory``)
``state/``           the model's state after the last step (``model.session.Session.save``), beside
                     its ``session_state.json``
``points/``          such a state for each of the last user turns, to go back to
``approvals.json``   the user's "always" and "never" answers, if any (``agent.control.answers``)
``files.git``        the repository's files as the session found them and as each step left them
``lock``             held, with the process's id in it, while a process works on the session

A folder appears only once its ``session.json`` is complete. Folders are mode 0700: they hold pieces
of the user's code.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import SessionNotFound, StoreError
from agent.sessions.info import (
    CHECKSUM,
    COMPACTED,
    KILLED,
    RUNNING,
    SessionInfo,
    info_from_json,
    new_info,
)
from agent.sessions.records import Record
from agent.sessions.trajectory import TrajectoryWriter
from sandboxes.paths import Owner, private_dir, state_dir, sync, write_whole

SHORT = 4
"""How many characters at the end of an id name a session."""

_UNBORN = ".new-"
_UNBORN_KEPT_S = 3600.0


@dataclass(frozen=True)
class SavedSession:
    """A folder that holds one saved session, and what its ``session.json`` said when read."""

    path: Path
    info: SessionInfo

    @property
    def id(self) -> str:
        """The folder's name, which begins with the time (UTC) the session began."""
        return self.path.name

    @property
    def status(self) -> str:
        """``running``, ``killed``, ``unreadable``, or how the run ended."""
        return self.info.status

    @property
    def trajectory(self) -> Path:
        """The path of the record of its steps."""
        return self.path / "trajectory.jsonl"

    @property
    def state(self) -> Path:
        """The folder of the model's state; may not exist."""
        return self.path / "state"

    @property
    def files(self) -> Path:
        """The git directory with the baseline and every step's files."""
        return self.path / "files.git"

    @contextmanager
    def claim(self) -> Iterator[SavedSession]:
        """Hold the session for this process alone; yields it as it is on disk now.

        The claim ends with the block, and with the process however that ends. Raises
        ``StoreError`` that names the process if another one has it.
        """
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self.path / "lock", flags, 0o600)
        except OSError as error:
            raise StoreError(f"cannot use session {self.id}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(descriptor, 20, 0).decode("ascii", "replace")
                raise _in_use(self.id, holder) from error
            current = _read(self.path)
            owner = Owner.parse(current.info.owner)
            if current.status == RUNNING and owner not in (None, Owner.of_this_process()):
                assert owner is not None
                if not owner.is_gone():
                    raise _in_use(self.id, f"{owner.pid} on {owner.host}")
            with suppress(OSError):  # a full disk costs the others the number, not the lock
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield current
        finally:
            os.close(descriptor)

    def writer(self, records: Sequence[Record] = ()) -> TrajectoryWriter:
        """Open the trajectory for appending; ``records`` are what it has, where that was read."""
        return TrajectoryWriter(self.trajectory, records)

    def reread(self) -> SavedSession:
        """Read the session as it is on disk now."""
        return _read(self.path)

    def update(self, **fields: Any) -> SavedSession:
        """Replace ``session.json`` by one with ``fields`` changed. Raises ``OSError``."""
        info = self.info.changed(**fields, updated=now())
        _write(self.path, info)
        return SavedSession(self.path, info)


def new_session_id() -> str:
    """Make an id that begins with the time (UTC), so that ids sort by age."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    text = time.strftime("%Y%m%d-%H%M%S", time.gmtime(seconds))
    # Microseconds, since the attempts of one run may begin in the same second.
    return f"{text}-{rest // 1000:06}{secrets.token_hex(2)}"


class SessionStore:
    """The folder of all saved sessions; made when the first one is."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else state_dir() / "sessions"

    def create(self, name: str | None = None, **fields: Any) -> SavedSession:
        """Make a new session with status ``running``, owned by this process. Raises ``StoreError``.

        ``name`` is its id, from ``new_session_id``.
        """
        name = name or new_session_id()
        unborn, path = self.root / (_UNBORN + name), self.root / name
        made = now()
        owner = str(Owner.of_this_process())
        first = {"id": name, "created": made, "updated": made, "status": RUNNING, "owner": owner}
        info = new_info(**{**first, **fields})
        try:
            private_dir(self.root)
            unborn.mkdir(mode=0o700)
            _write(unborn, info)
            unborn.rename(path)
            sync(self.root)
        except OSError as error:
            raise StoreError(
                f"cannot save sessions under {self.root}: {error.strerror}; "
                "make it writable or set XDG_STATE_HOME"
            ) from error
        return SavedSession(path, info)

    def copy(self, session: SavedSession, **fields: Any) -> SavedSession:
        """Make a new session with everything ``session`` has, and ``fields`` changed.

        Git's objects and saved states never change and are shared by hard links. Raises
        ``StoreError``.
        """
        name = new_session_id()
        unborn, path = self.root / (_UNBORN + name), self.root / name

        def share(source: str, target: str) -> None:
            # Below the session alone: its own path may have a folder "state" in it, too.
            if {"objects", "state"} & set(Path(source).relative_to(session.path).parts[:-1]):
                os.link(source, target)
            else:
                shutil.copy2(source, target)

        try:
            unborn.mkdir(mode=0o700)
            for entry in session.path.iterdir():
                if entry.is_dir():
                    shutil.copytree(entry, unborn / entry.name, copy_function=share)
                elif entry.name not in ("lock", "session.json"):
                    shutil.copy2(entry, unborn / entry.name)
            fields = {"id": name, "created": now(), "updated": now(), **fields}
            info = session.info.changed(**fields)
            _write(unborn, info)
            unborn.rename(path)
            sync(self.root)
        except (OSError, shutil.Error) as error:
            shutil.rmtree(unborn, ignore_errors=True)
            raise StoreError(f"cannot copy session {session.id}: {error}") from error
        return SavedSession(path, info)

    def sessions(self) -> list[SavedSession]:
        """Return all sessions, oldest first; a damaged one has status ``unreadable``."""
        return [_read(path) for path in self._folders()]

    def find(self, name: str) -> SavedSession:
        """Return the session whose id is ``name``, or the only one that begins or ends with it.

        The short form is the last ``SHORT`` characters; fewer are no ending.
        """
        folders = list(self._folders())
        matches = [path for path in folders if path.name == name] or [
            path for path in folders if name and path.name.startswith(name)
        ]
        ends = len(name) >= SHORT and not matches
        if ends:
            matches = [path for path in folders if path.name.endswith(name)]
        if len(matches) == 1:
            return self._settled(_read(matches[0]))
        if matches:
            how = "end" if ends else "begin"
            raise SessionNotFound(f"{len(matches)} sessions {how} with {name!r}; write more of it")
        raise SessionNotFound(f"no session {name!r}; see agent sessions list")

    def newest(self, folder: Path) -> SavedSession:
        """Return the newest session on the repository that ``folder`` is or lies in.

        Raises ``SessionNotFound``.
        """
        here = folder.resolve()
        for path in reversed(list(self._folders())):
            saved = _read(path)
            spoken = saved.info.task and saved.status != COMPACTED
            if spoken and here.is_relative_to(saved.info.repo):
                return self._settled(saved)
        raise SessionNotFound(f"there is no session on {here}; see agent sessions list")

    def get(self, name: str) -> SavedSession | None:
        """Return the session whose id is ``name``; None if there is none."""
        path = self.root / name
        return _read(path) if name and path.name == name and path.is_dir() else None

    def remove(self, name: str) -> str:
        """Delete a session that is not running; returns its id."""
        session = self.find(name)
        if session.status == RUNNING and not _owner_gone(session):
            raise StoreError(f"session {session.id} is running; stop it first")
        try:
            with session.claim():
                # Renamed first, so that a kill half way leaves no session that looks whole.
                doomed = session.path.rename(self.root / (_UNBORN + session.id))
            shutil.rmtree(doomed)
        except OSError as error:
            raise StoreError(f"cannot remove session {session.id}: {error.strerror}") from error
        return session.id

    def reap(self) -> list[str]:
        """Mark sessions whose process died as ``killed``; returns their ids. Never raises."""
        killed = []
        with suppress(OSError, StoreError):
            for session in self.sessions():
                if session.status == RUNNING and self._settled(session).status == KILLED:
                    killed.append(session.id)
            for path in self.root.glob(_UNBORN + "*"):
                if time.time() - path.stat().st_mtime > _UNBORN_KEPT_S:
                    shutil.rmtree(path, ignore_errors=True)
        return killed

    def _settled(self, session: SavedSession) -> SavedSession:
        """Mark ``session`` as ``killed`` if its process died. Never raises."""
        if session.status == RUNNING and _owner_gone(session):
            with suppress(OSError, StoreError), session.claim() as held:
                # Another process may have gone on with it in between.
                if held.status == RUNNING and _owner_gone(held):
                    return held.update(status=KILLED)
                return held
        return session

    def _folders(self) -> Iterator[Path]:
        try:
            entries = sorted(self.root.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"cannot read {self.root}: {error.strerror}") from error
        yield from (path for path in entries if path.is_dir() and not path.name.startswith("."))


def _read(path: Path) -> SavedSession:
    """Read ``session.json``; one whose checksum is wrong has ``CHECKSUM`` among what is wrong."""
    try:
        data = json.loads((path / "session.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        data = None
    # Files of 0.1.0 have no checksum.
    told = data.pop("crc", None) if isinstance(data, dict) else None
    info = info_from_json(data)
    if told is not None and told != _checksum(info.stored):
        info = dataclasses.replace(info, wrong=(*info.wrong, CHECKSUM))
    return SavedSession(path, info)


def _write(folder: Path, info: SessionInfo) -> None:
    """Write ``session.json`` with a checksum; one that was found damaged stays so."""
    crc = "damaged" if CHECKSUM in info.wrong else _checksum(info.stored)
    write_atomically(folder / "session.json", {**info.stored, "crc": crc})


def _checksum(stored: Mapping[str, Any]) -> str:
    """Return the CRC-32 of the members as JSON."""
    text = json.dumps(stored, sort_keys=True, ensure_ascii=True, default=str)
    return f"{zlib.crc32(text.encode('ascii')):08x}"


def _in_use(name: str, process: str) -> StoreError:
    who = f"process {process}" if process else "another process"
    return StoreError(f"session {name} is in use by {who}; wait for it or stop it")


def _owner_gone(session: SavedSession) -> bool:
    owner = Owner.parse(session.info.owner)
    return owner is None or owner.is_gone()


def write_atomically(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON beside ``path`` and rename it there, with both synced."""
    text = json.dumps(data, indent=2, ensure_ascii=True, allow_nan=False, default=str) + "\n"
    with write_whole(path) as draft:
        draft.write_bytes(text.encode("ascii"))


def now() -> str:
    """Return the time (UTC) as records carry it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
