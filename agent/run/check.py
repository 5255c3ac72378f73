"""Running the check command apart from the model's shell."""

from __future__ import annotations

import threading
from collections.abc import Callable

from agent.run.standing import command_in
from agent.types import CheckRun
from sandboxes.base import Sandbox
from sandboxes.stop import Stop


def run_check(
    command: str,
    sandbox: Sandbox,
    *,
    timeout_s: float,
    stop: Stop,
    anew: bool = False,
    folder: str = "",
) -> CheckRun:
    """Run ``command`` in a fresh shell, in ``folder``; what it changes in the workspace is undone.

    With ``anew`` nothing that earlier commands left has a say but what is in the patch: it runs on
    a tree made anew, with an empty home and scratch folder, and all that ran before is ended.

    Raises ``SandboxError`` if the sandbox or the workspace cannot serve it.
    """
    command = command_in(folder, command)
    if anew:
        with sandbox.fresh():
            return _run(command, sandbox, timeout_s, stop)
    tree = sandbox.workspace.checkpoint()
    sandbox.shell().close()
    done = _run(command, sandbox, timeout_s, stop)
    sandbox.shell().close()
    sandbox.workspace.rollback(tree)
    return done


class CheckedPatches:
    """Results of a check by patch: attempts that end with equal patches share one run.

    What is not ``shared`` runs each check.
    """

    def __init__(self, *, shared: bool) -> None:
        self._shared = shared
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._done: dict[str, CheckRun] = {}

    def run(self, patch: str, check: Callable[[], CheckRun | None]) -> tuple[CheckRun | None, bool]:
        """Return what the check gave for ``patch``, and whether that was known already.

        A check that was stopped is not kept: whoever waited for it runs it.
        """
        if not self._shared:
            return check(), False
        with self._lock:
            own = self._locks.setdefault(patch, threading.Lock())
        with own:
            if (known := self._done.get(patch)) is not None:
                return known, True
            done = check()
            if done is not None and done.exit_code is not None:
                self._done[patch] = done
            return done, False


def _run(command: str, sandbox: Sandbox, timeout_s: float, stop: Stop) -> CheckRun:
    done = sandbox.shell().run(command, timeout_s=timeout_s, stop=stop)
    return CheckRun(done.exit_code, done.output, done.duration_s)
