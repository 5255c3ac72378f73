"""Run one command on a copy of a repository in a sandbox and print what it says.

Usage: in_sandbox.py KIND REPO COMMAND. The exit code is the command's; 124 if it ran over its time.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sandboxes.errors import SandboxError
from sandboxes.open import open_sandbox
from sandboxes.workspace.workspace import Workspace

TIMEOUT_S = 120.0


def main(arguments: list[str]) -> int:
    """Run it; return the exit code."""
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    kind, repo, command = arguments
    try:
        with Workspace.create(Path(repo)) as copy, open_sandbox(kind, copy) as sandbox:
            result = sandbox.shell().run(command, timeout_s=TIMEOUT_S)
    except SandboxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(result.output.rstrip("\n"))
    return 124 if result.exit_code is None else result.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
