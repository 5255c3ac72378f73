"""Do kills change what a run comes to? 20 x kill -9 in a run of 30 instances in Docker.

    python -m benchmarks.eval_kills [--kills 20] [--instances 30] [--workers 4] [--record]

The embedded model works on small repair tasks (`tests/support/evaluation.py`), sampled, through the
command line. One run goes through; the other is killed at random moments, with its whole state
folder its own, and begun again each time. Compared are every result, the sampled ids and the
predictions; then whether any container, process, private copy or session is left.
The record goes to benchmarks/results/eval_kills.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.support.recording import machine, record
from sandboxes.images.engine import OWNER_LABEL, connect
from sandboxes.paths import Owner
from tests.support.evaluation import write_tasks
from tests.support.kill_evaluation import done, left

ROOT = Path(__file__).resolve().parents[1]


def command(data: Path, folder: Path, workers: int) -> list[str]:
    """Return the run's command line; ``-P`` as for an installed command."""
    program = "from agent.cli.main import main; main()"
    flags = {"dataset": data, "run": folder, "workers": workers, "seed": 3}
    limits = {"max-steps": 3, "max-turn-tokens": 96}
    return [
        *(sys.executable, "-P", "-c", program, "eval", "run", "repair"),
        *(f"--{name}={value}" for name, value in {**flags, **limits}.items()),
    ]


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Begin or go on with the run."""
    with log.open("ab") as file:
        return subprocess.Popen(arguments, stdout=file, stderr=file, start_new_session=True)


def remains(state: Path, folder: Path, owners: set[int]) -> dict[str, int]:
    """List what is left of the killed run: containers by owner, processes, copies, sessions."""
    client = connect()
    try:
        containers = client.api.containers(all=True, filters={"label": OWNER_LABEL})
    finally:
        client.close()
    named = [Owner.parse(found["Labels"][OWNER_LABEL]) for found in containers]
    processes = 0
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            processes += f"XDG_STATE_HOME={state}".encode() in place.read_bytes()
        except OSError:
            continue
    copies = state / "tenuto" / "workspaces"
    return {
        "containers": sum(owner is not None and owner.pid in owners for owner in named),
        "processes": processes,
        "private copies": len(list(copies.iterdir())) if copies.is_dir() else 0,
        "sessions": len(list((folder / "sessions").glob("*"))),
        "unfinished attempts": len(list(folder.glob("attempts/*/.new-*"))),
    }


def measure(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Both runs, in ``work``."""
    state = work / "state"
    os.environ |= {"XDG_STATE_HOME": str(state), "XDG_CACHE_HOME": str(work / "cache")}
    # Else pytest tells how long it took, which is another text each time.
    os.environ |= {"PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "-q"}
    os.environ["XDG_CONFIG_HOME"] = str(work / "config")
    settings = work / "config" / "tenuto" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text('pass_env = ["PYTEST_ADDOPTS"]\n')
    data = write_tasks(work / "tasks.jsonl", options.instances)
    log = work / "log"
    began = time.monotonic()
    if code := start(command(data, work / "whole", options.workers), log).wait():
        raise SystemExit(f"the unbroken run ended with {code}: {log.read_text()[-2000:]}")
    whole_s = time.monotonic() - began

    chance = random.Random(options.seed)
    arguments = command(data, work / "broken", options.workers)
    pids: set[int] = set()
    at = []
    for number in range(options.kills):
        process = start(arguments, log)
        pids.add(process.pid)
        # Some while it starts, the others in the middle of the instances; not so late that the
        # last ones would find nothing to kill.
        most = options.instances * (number + 1) // (options.kills + 1)
        more = min(done(work / "broken") + chance.choice((0, 1, 2)), most)
        while process.poll() is None and done(work / "broken") < more:
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, whole_s / options.instances))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        at.append(done(work / "broken"))
    last = start(arguments, log)
    pids.add(last.pid)
    code = last.wait()
    whole, broken = left(work / "whole"), left(work / "broken")
    equal = [n for n in whole["results"] if whole["results"][n] == broken["results"].get(n)]
    return {
        **machine(),
        "what": "embedded model in Docker, sampled; the same run with kill -9 on the way",
        "instances": options.instances,
        "workers": options.workers,
        "kills": len(at),
        "attempts_over_at_each_kill": at,
        "whole_s": round(whole_s, 1),
        "exit_code": code,
        "results": len(broken["results"]),
        "equal_results": len(equal),
        "equal_predictions": broken["preds"] == whole["preds"],
        "generated_tokens": sum(
            int(r["usage"]["generated_tokens"]) for r in whole["results"].values()
        ),
        "with_a_patch": sum(bool(r["patch"]) for r in whole["results"].values()),
        "left_behind": remains(state, work / "broken", pids),
        "different": {
            name: [
                key
                for key, value in whole["results"][name].items()
                if value != broken["results"].get(name, {}).get(key)
            ]
            for name in whole["results"]
            if name not in equal
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--instances", type=int, default=30)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--work", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tenuto-kills-") as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        found = measure(work, options)
    if options.record:
        record("eval_kills", found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
