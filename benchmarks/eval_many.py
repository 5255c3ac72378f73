"""Does a long run stay flat? 500 instances with scripted turns at 16 workers, killed on the way.

    python -m benchmarks.eval_many [--instances 500] [--workers 16] [--kills 3] [--record]

The model is scripted and the sandbox is bubblewrap, so what is measured is our own: laying out,
sessions, records, predictions. A child process runs it; its memory is read while it runs. It is
killed (kill -9) as often as asked, and begun again each time. Checked first: every instance is done
once, with its own patch, and nothing is left behind. Memory is flat if the last quarter of the
readings is at most a tenth above the second quarter.
The record goes to benchmarks/results/eval_many.json.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from agent.loading import LoadedModel
from benchmarks.support.recording import machine, record
from evals.run.begin import RunOptions, begin
from evals.run.folder import RunFolder
from tests.support.evaluation import turns, write_tasks
from tests.support.kill_evaluation import done, load

ROOT = Path(__file__).resolve().parents[1]
FLAT = 1.1


def start(options: RunOptions, model: LoadedModel, log: Path) -> int:
    """Begin or go on with the run in a fork of this process; return its number."""
    number = os.fork()
    if number:
        return number
    code = 99
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 2)
        code = begin(options, {"sandbox": "bubblewrap", "seed": 3}, model=model)
    finally:
        os._exit(code)


def memory_mib(process: int) -> float:
    """Return the resident memory of a process in MiB; 0 if it is gone."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def watch(process: int, folder: Path, until: int | None) -> tuple[int | None, list[float]]:
    """Read the memory until the process ends, or kill it once ``until`` attempts are over."""
    seen: list[float] = []
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), seen
        if (size := memory_mib(process)) > 0:
            seen.append(size)
        if until is not None and done(folder) >= until:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None, seen
        time.sleep(0.2)


def is_flat(readings: list[float]) -> bool:
    """Tell whether memory has stopped to grow."""
    quarter = max(1, len(readings) // 4)
    early = statistics.median(readings[quarter : 2 * quarter] or readings)
    return statistics.median(readings[-quarter:]) <= FLAT * early


def measure(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run it in ``work``; raise ``SystemExit`` if it is not right."""
    os.environ |= {"XDG_STATE_HOME": str(work / "state"), "XDG_CACHE_HOME": str(work / "cache")}
    torch.set_num_threads(1)
    suite = ROOT / "tests" / "support" / "small_suite.py"
    data = write_tasks(work / "tasks.jsonl", options.instances)
    model = load(work / "checkpoint", turns())
    folder = work / "run"
    run = RunOptions(str(suite), str(data), folder, workers=options.workers)
    began = time.monotonic()
    for number in range(options.kills):
        most = options.instances * (number + 1) // (2 * (options.kills + 1))
        watch(start(run, model, work / "log"), folder, most)
    there = done(folder)
    on = time.monotonic()
    code, readings = watch(start(run, model, work / "log"), folder, None)
    ended = time.monotonic()
    results = RunFolder(folder).results()
    patches = {result.patch for result in results.values()}
    if code != 0 or len(results) != options.instances or len(patches) != options.instances:
        raise SystemExit(f"exit code {code}, {len(results)} results, {len(patches)} patches")
    left = [*folder.glob("sessions/*"), *folder.glob("attempts/*/.new-*")]
    left += [*(work / "state" / "tenuto" / "workspaces").glob("*")]
    return {
        **machine(),
        "what": "scripted model in bubblewrap: laying out, sessions, records, predictions",
        "instances": options.instances,
        "workers": options.workers,
        "kills": options.kills,
        "over_before_the_last": there,
        "left_behind": len(left),
        "memory_mib": {
            "least": round(min(readings)),
            "median": round(statistics.median(readings)),
            "most": round(max(readings)),
        },
        "memory_is_flat": is_flat(readings),
        "seconds": round(ended - began, 1),
        "seconds_an_instance": round((ended - on) / max(1, options.instances - there), 3),
    }


def main() -> int:
    """Measure, print and perhaps record; return 1 if memory grows or something is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=500)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    if options.record:
        record("eval_many", found)
    return 0 if found["memory_is_flat"] and not found["left_behind"] else 1


if __name__ == "__main__":
    sys.exit(main())
