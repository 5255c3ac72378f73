"""Guesses without replacement: what one attempt has tested, no attempt tests again.

Attempts at one task share ``Tried``. A turn whose edits would give files that a command was run on
before, also because they change nothing, is taken back and sampled again from where it began. The
turn that is kept is then distributed as the model's own, given that it is new: this is rejection
sampling, exact for any model, up to ``MOST_AGAIN`` times, after which the model has its way.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.loop.journal import Journal
from model.messages import Message, ToolCall
from sandboxes.base import Sandbox
from sandboxes.errors import SandboxError
from tools.errors import ToolFailure
from tools.files.places import locate_file, read

MOST_AGAIN = 8
MAX_BYTES = 1_000_000
COMMAND = "run_shell_command"

FileState = frozenset[tuple[str, str]]
"""The files that differ from how a task's files were at first: path and git blob of each."""


@dataclass
class Tried:
    """The file states that commands were run on in any attempt at one task, and in which."""

    _by: dict[FileState, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def takes(self, state: FileState, attempt: int, *, tests: bool) -> bool:
        """Tell whether ``attempt`` may bring its files to ``state``; with ``tests`` it is taken.

        Files as they were at first count as tested by all: the check has failed on them, or there
        would be no task. To come back to a state of its own is another try only if it is tested.
        """
        with self._lock:
            owner = attempt if not state else self._by.get(state)
            if owner is None and tests:
                self._by[state] = attempt
            return owner is None or (owner == attempt and not tests)


@dataclass(frozen=True)
class Untried:
    """One attempt's view of what all have tried."""

    tried: Tried
    attempt: int
    sandbox: Sandbox
    journal: Journal

    def takes(self, message: Message) -> bool:
        """Tell whether a turn leads to files that are new, and take them if it tests them.

        A turn without plain edits at its beginning is always new: what a command does to the files
        is known only once it has run. If it begins with a command, that tests the files as they
        are.
        """
        try:
            texts, tests = texts_after(message, self.sandbox)
            new = self.tried.takes(self._state(texts), self.attempt, tests=tests)
        except (ToolFailure, SandboxError, OSError, _Unclear):
            return True
        return new or not texts

    def _state(self, texts: Mapping[str, bytes]) -> FileState:
        steps, workspace = self.journal.steps, self.journal.workspace
        state = workspace.changed_blobs(steps[-1].tree) if steps else {}
        for path, data in texts.items():
            state[path] = blob_id(data)
            if state[path] == workspace.first_blob(path):
                del state[path]
        return frozenset(state.items())


class _Unclear(Exception):
    """Signal that an edit must be made to know what it does."""


def texts_after(message: Message, sandbox: Sandbox) -> tuple[dict[str, bytes], bool]:
    """Return the files that the edits at the beginning of a turn would write, by path.

    The second value says whether a command follows them. Nothing is changed. Raises ``ToolFailure``
    or ``_Unclear`` where that cannot be told.
    """
    texts: dict[str, bytes] = {}
    for call in message.tool_calls:
        if call.error is not None or call.name not in ("edit", "write_file"):
            return texts, call.name == COMMAND
        path, data = _after(call, sandbox, texts)
        texts[path] = data
    return texts, False


def blob_id(data: bytes) -> str:
    """Return the id that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _after(call: ToolCall, sandbox: Sandbox, texts: Mapping[str, bytes]) -> tuple[str, bytes]:
    place, status = locate_file(sandbox, str(call.arguments.get("file_path", "")))
    if status.st_size > MAX_BYTES:
        raise _Unclear
    now = texts[place.real] if place.real in texts else read(sandbox, place)
    if b"\r" in now:
        raise _Unclear
    if call.name == "write_file":
        return place.real, str(call.arguments.get("content", "")).encode()
    old = str(call.arguments.get("old_string", "")).encode()
    new = str(call.arguments.get("new_string", "")).encode()
    if call.arguments.get("replace_all"):
        raise _Unclear
    # The tool refuses what is not there exactly once; the file stays as it is.
    return place.real, now.replace(old, new) if now.count(old) == 1 else now
