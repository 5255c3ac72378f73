"""The user's own commands before a call, after it, and at the end of a run.

They come from the user's configuration file alone, and run on the host, outside any sandbox, as the
user: they are trusted because the user wrote them. Each gets one JSON object on stdin. Exit code 2
says no: before a call, what is on stderr goes to the model in place of a result; after one, it is
added to the result. Any other failure is a notice to the user.
"""

from __future__ import annotations

import fnmatch
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.control.policy import Hook, HookLists
from agent.events import Listener, Notice, nobody
from model.messages import ToolCall
from sandboxes.stop import Stop
from tools.registry import Registry
from tools.types import Observation

BLOCKS = 2
MAX_WORDS = 4000
_POLL_S = 0.02
BLOCKED = "Not run: the user's hook forbids this call: {words}"
SILENT = "no reason was given; go on without it"
TIMED_OUT = "it did not answer within {timeout:g} s"


@dataclass(frozen=True)
class _Ran:
    """The end of a hook. ``code`` is None if it was stopped."""

    code: int | None
    words: str


@dataclass
class Hooks:
    """The overseer that runs them. ``stop`` ends one that is running."""

    lists: HookLists = field(default_factory=HookLists)
    repo: Path = Path()
    session: str = ""
    listen: Listener = nobody
    stop: Stop = field(default_factory=Stop)

    def before(self, call: ToolCall, registry: Registry) -> Observation | None:
        """Run the hooks before ``call``; one that does not end in time blocks the call."""
        for hook in self._concerned(self.lists.before, call):
            ran = self._run(hook, {"event": "before", **_call(call)})
            if ran.code in (BLOCKS, None):
                return Observation(BLOCKED.format(words=ran.words or SILENT), ok=False)
            self._failed(hook, ran)
        return None

    def after(self, call: ToolCall, seen: Observation) -> Observation:
        for hook in self._concerned(self.lists.after, call):
            result = {"text": seen.text, "ok": seen.ok, "truncated": seen.truncated}
            ran = self._run(hook, {"event": "after", **_call(call), "result": result})
            if ran.code == BLOCKS:
                seen = seen.with_note(f"[the user's hook] {ran.words or 'this is not good'}")
            else:
                self._failed(hook, ran)
        return seen

    def end(self, report: Mapping[str, Any]) -> None:
        """Run those for the end with what the run came to. What they say is for the user."""
        for hook in self.lists.end:
            self._failed(hook, self._run(hook, {"event": "end", **report}))

    def _concerned(self, hooks: tuple[Hook, ...], call: ToolCall) -> list[Hook]:
        return [
            hook
            for hook in hooks
            if any(fnmatch.fnmatchcase(call.name, pattern) for pattern in hook.tools)
        ]

    def _failed(self, hook: Hook, ran: _Ran) -> None:
        """Tell the user of a hook that did not do its work."""
        if ran.code == 0:
            return
        how = "was stopped" if ran.code is None else f"ended with exit code {ran.code}"
        self.listen(Notice(f"the hook {hook.command!r} {how}: {' '.join(ran.words.split())}"))

    def _run(self, hook: Hook, event: Mapping[str, Any]) -> _Ran:
        """Run one in the user's home folder, since the repository's may hold anything."""
        told = {"session": self.session, "repo": str(self.repo), **event}
        try:
            with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
                given.write(json.dumps(told, default=str).encode("ascii"))
                given.seek(0)
                process = subprocess.Popen(
                    ["/bin/sh", "-c", hook.command],
                    stdin=given,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    cwd=Path.home(),
                    start_new_session=True,
                )
                code = self._wait(process, hook.timeout)
                said.seek(0)
                words = said.read(MAX_WORDS).decode("utf-8", "replace").strip()
        except OSError as error:
            return _Ran(127, error.strerror or str(error))
        if code is None and not self.stop.is_set():
            words = TIMED_OUT.format(timeout=hook.timeout)
        return _Ran(code, words)

    def _wait(self, process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
        """Return the exit code, or None if it was killed with all that it started in its group."""
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(_POLL_S)
                if time.monotonic() >= deadline or self.stop.is_set():
                    return None
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _call(call: ToolCall) -> dict[str, Any]:
    return {"tool": call.name, "arguments": dict(call.arguments)}
