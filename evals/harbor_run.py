"""Work on one of Harbor's tasks, inside its container: ``python -m evals.harbor_run``.

Standard input is a JSON object: ``instruction``, ``logs`` (a folder) and ``settings`` by their
keys. The work is done in the current folder on a private copy, with commands run in the container
itself, and what changed is put back, also when a limit ended it. The session is left in ``logs`` as
``trajectory.json`` (ATIF) and ``usage.json``. A folder that is no repository is one for so long.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.api import AgentError, SolveReport, solve_task, status_of
from agent.cli.output import write_err
from agent.sessions.store import SessionStore
from agent.sessions.trajectory import read_records
from agent.text import visible
from evals.report.export import atif_of, prompts_of
from evals.report.trace import trace_of
from evals.suites.images import begin_repository
from model.errors import ModelError
from sandboxes.errors import SandboxError

CONTAINER = {"sandbox": "local", "ignored_files": True, "build": False}
"""Settings that hold in a task's container whatever is asked for: it is the sandbox."""


def main() -> int:
    """Do the work that standard input asks for; return the exit code."""
    try:
        asked = json.load(sys.stdin)
        logs = Path(asked["logs"])
        with repository(Path.cwd()) as repo:
            settings = {**asked.get("settings", {}), **CONTAINER}
            report = solve_task(repo, str(asked["instruction"]), **settings)
            put_back(repo, report.patch)
        leave(report, logs)
    except (ValueError, KeyError, TypeError) as error:
        write_err(f"standard input is no task: {visible(str(error))}\n")
        return 2
    except (AgentError, ModelError, SandboxError, OSError, subprocess.CalledProcessError) as error:
        write_err(visible(f"the task could not be worked on: {error}") + "\n")
        return 1
    return 0


@contextmanager
def repository(folder: Path) -> Iterator[Path]:
    """Yield the repository that ``folder`` lies in; without one, make ``folder`` one meanwhile."""
    done = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--show-toplevel"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        yield Path(done.stdout.strip())
        return
    begin_repository(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder / ".git")


def put_back(repo: Path, patch: str) -> None:
    """Apply the patch to ``repo``. Raises ``CalledProcessError``."""
    if patch:
        command = ["git", "-C", str(repo), "apply", "--binary", "--whitespace=nowarn", "-"]
        subprocess.run(command, input=patch.encode(), check=True, capture_output=True)


def leave(report: SolveReport, logs: Path) -> None:
    """Write down the session for Harbor. Raises ``OSError``."""
    logs.mkdir(parents=True, exist_ok=True)
    saved = SessionStore().find(report.session)
    records = list(read_records(saved.trajectory))
    status, _ = status_of(report.result, report.check)
    atif = atif_of(trace_of(records), prompts_of(records), {"status": status})
    (logs / "trajectory.json").write_text(json.dumps(atif) + "\n")
    usage: Mapping[str, Any] = report.result.usage.as_dict()
    (logs / "usage.json").write_text(json.dumps({"status": status, "usage": usage}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
