"""Running the check command apart from the model's shell."""

from __future__ import annotations

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


def _run(command: str, sandbox: Sandbox, timeout_s: float, stop: Stop) -> CheckRun:
    done = sandbox.shell().run(command, timeout_s=timeout_s, stop=stop)
    return CheckRun(done.exit_code, done.output, done.duration_s)
