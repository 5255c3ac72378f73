"""Overhead of one step's command: our terminal beside mini-swe-agent's, same commands, same image.

    python -m benchmarks.terminal_peer --peer-python VENV/bin/python [--rounds N]

The peer's interpreter must have mini-swe-agent 2.4.6 (`pip install mini-swe-agent==2.4.6` in an
environment of its own). Both run the same scripted commands in a container of the base image: the
peer through its DockerEnvironment, we through ``run_shell_command``, without and with the
checkpoint of the files that a step also takes. The commands do next to nothing, so what is measured
is what the agent adds. Each output is compared before a time counts. Writes
benchmarks/results/terminal_peer.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.shell import programs
from benchmarks.support.recording import machine, record
from sandboxes.images.base_image import ensure_base_image
from sandboxes.open import open_sandbox
from sandboxes.workspace.workspace import Workspace
from tools.registry import Registry
from tools.types import ToolContext

COMMANDS = ["true", "echo one two", "cd / && pwd", "cat /etc/debian_version", "printf 'a\\nb\\n'"]
PEER = r"""
import json, sys, time
from minisweagent.environments.docker import DockerEnvironment
image, rounds, commands = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
environment = DockerEnvironment(image=image, cwd="/")
environment.execute({"command": "true"})
rows = []
for _ in range(rounds):
    for command in commands:
        began = time.perf_counter()
        seen = environment.execute({"command": command})
        rows.append((command, time.perf_counter() - began, seen["output"], seen["returncode"]))
environment.cleanup()
print("\n" + json.dumps(rows))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    image = ensure_base_image()
    command = [arguments.peer_python, "-c", PEER, image, str(arguments.rounds)]
    said = subprocess.run(
        [*command, json.dumps(COMMANDS)], check=True, capture_output=True, text=True
    )
    rows = json.loads(said.stdout.strip().splitlines()[-1])
    wanted = {row[0]: row[2].strip() for row in rows if row[3] == 0}
    plain, whole = ours(image, arguments.rounds, wanted)
    peer = [row[1] for row in rows]
    report: dict[str, Any] = {
        **machine(**programs()),
        "question": "milliseconds of one scripted command, seen from the agent",
        "commands": COMMANDS,
        "rounds": arguments.rounds,
        "mini_swe_agent_2_4_6": figures(peer),
        "tenuto_command": figures(plain),
        "tenuto_command_and_checkpoint": figures(whole),
        "times_less": round(statistics.median(peer) / statistics.median(plain), 1),
        "times_less_with_checkpoint": round(statistics.median(peer) / statistics.median(whole), 1),
    }
    record("terminal_peer", report)
    for name in ("mini_swe_agent_2_4_6", "tenuto_command", "tenuto_command_and_checkpoint"):
        print(f"{name:32} {report[name]}")
    less = (report["times_less"], report["times_less_with_checkpoint"])
    print(f"times less: {less[0]}, with checkpoint {less[1]}")


def ours(image: str, rounds: int, wanted: dict[str, str]) -> tuple[list[float], list[float]]:
    """Seconds for each command, and with the checkpoint after it."""
    plain, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder, "repo")
        repo.mkdir()
        subprocess.run(["git", "init", "--quiet"], cwd=repo, check=True)
        (repo / "a.py").write_text("x = 1\n")
        workspace = Workspace.create(repo, parent=Path(folder, "workspaces"))
        with open_sandbox("docker", workspace, image=image, name="benchmark") as sandbox:
            registry = Registry(ToolContext(sandbox))
            registry.run("run_shell_command", {"command": "true"})
            for _ in range(rounds):
                for command in COMMANDS:
                    began = time.perf_counter()
                    seen = registry.run("run_shell_command", {"command": command})
                    ran = time.perf_counter()
                    workspace.checkpoint()
                    kept = time.perf_counter()
                    expected = f"{wanted[command]}\n[exit code 0]".lstrip("\n")
                    if seen.text != expected:
                        raise SystemExit(f"{command}: {seen.text!r}, the peer {expected!r}")
                    plain.append(ran - began)
                    whole.append(kept - began)
    return plain, whole


def figures(seconds: list[float]) -> dict[str, Any]:
    """Median and 95th percentile in milliseconds."""
    return {
        "median_ms": round(statistics.median(seconds) * 1000, 3),
        "p95_ms": round(statistics.quantiles(seconds, n=20)[-1] * 1000, 3),
    }


if __name__ == "__main__":
    main()
