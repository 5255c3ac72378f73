"""Running the check command apart from the model's shell."""

from __future__ import annotations

import shlex

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
) -> CheckRun:
    """Run ``command`` in a fresh shell; what it changes in the workspace is rolled back.

    With ``anew`` nothing that earlier commands left has a say but what is in the patch: they are
    ended, home and scratch folder are empty again, and ignored files that they made are removed.

    Raises ``SandboxError`` if the sandbox or the workspace cannot serve it.
    """
    tree = sandbox.workspace.checkpoint()
    sandbox.shell().close()
    if anew:
        sandbox.renew()
        sandbox.workspace.tidy()
    # bash -c, so that a command that calls exit ends itself and not the shell.
    done = sandbox.shell().run(f"bash -c {shlex.quote(command)}", timeout_s=timeout_s, stop=stop)
    sandbox.shell().close()
    sandbox.workspace.rollback(tree)
    return CheckRun(done.exit_code, done.output, done.duration_s)
