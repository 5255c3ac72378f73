"""Measure how long one trivial command takes through the session's shell, for each kind of sandbox.

    python -m benchmarks.shell [--commands N] [--kinds docker bubblewrap local]

Writes benchmarks/results/shell.json. Each command's result is checked before its time counts.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.support.recording import machine, record
from sandboxes.errors import SandboxError
from sandboxes.images.engine import connect
from sandboxes.open import KINDS, open_sandbox
from sandboxes.workspace.workspace import Workspace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--commands", type=int, default=1000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder, "repo")
        repo.mkdir()
        subprocess.run(["git", "init", "--quiet"], cwd=repo, check=True)
        (repo / "a.py").write_text("x = 1\n")
        kinds = {kind: measure(kind, repo, arguments.commands) for kind in arguments.kinds}
    report = {
        **machine(**programs()),
        "question": "time of `true` through the session's shell, in milliseconds",
        "commands": arguments.commands,
        "kinds": kinds,
    }
    for kind, figures in kinds.items():
        print(f"{kind:10} " + "  ".join(f"{key} {value}" for key, value in figures.items()))
    print(f"written to {record('shell', report)}")


def measure(kind: str, repo: Path, commands: int) -> dict[str, Any]:
    """Times of ``true`` in one sandbox: milliseconds, rounded to microseconds."""
    began = time.perf_counter()
    try:
        workspace = Workspace.create(repo, parent=repo.parent / "workspaces")
        copied = time.perf_counter()
        sandbox = open_sandbox(kind, workspace, name="benchmark")
    except SandboxError as error:
        return {"error": str(error)}
    with sandbox:
        shell = sandbox.shell()
        shell.run("true", timeout_s=60)
        opened = time.perf_counter()
        times = []
        for _ in range(commands):
            start = time.perf_counter()
            result = shell.run("true", timeout_s=60)
            times.append((time.perf_counter() - start) * 1000)
            if (result.exit_code, result.output) != (0, ""):
                raise SystemExit(f"{kind}: `true` gave {result}; no time is reported")
    return {
        "median_ms": round(statistics.median(times), 3),
        "p95_ms": round(statistics.quantiles(times, n=20)[-1], 3),
        "copy_ms": round((copied - began) * 1000),
        "open_ms": round((opened - copied) * 1000),
    }


def programs() -> dict[str, str]:
    """Return the versions of the programs that the figures depend on."""
    try:
        engine = connect().version()["Version"]
    except SandboxError:
        engine = "none"
    bwrap = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=False)
    return {
        "docker": engine,
        "bubblewrap": bwrap.stdout.strip(),
        "git": subprocess.check_output(["git", "--version"], text=True).strip(),
    }


if __name__ == "__main__":
    main()
