"""Does the official SWE-bench harness accept our predictions, and does our report agree with it?

    python -m benchmarks.eval_harness [--work DIR] [--only NAME ...] [--max-steps N]

Makes a data set in the 5.x row format from the example repositories (images built on this machine),
runs it with the embedded model, grades it with `swebench eval`, grades the gold patches and empty
ones, and compares our verdicts with the harness's own summary. Takes about 16 s an instance and
grading, as the harness waits 15 s for each container to stop. The record goes to
benchmarks/results/eval_harness.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.support.recording import machine, record
from evals import grade
from evals.run.begin import RunOptions, begin
from evals.run.folder import RunFolder
from evals.suites import harness
from evals.suites.dataset import read_rows

HERE = Path(__file__).resolve().parent


def measure(work: Path, only: list[str] | None, max_steps: int) -> dict[str, Any]:
    """Do all that the module says, in ``work``."""
    data = work / "examples.jsonl"
    command = [sys.executable, str(HERE.parent / "scripts" / "example_dataset.py"), str(data)]
    subprocess.run([*command, *(["--only", *only] if only else [])], check=True)
    rows = read_rows(str(data))
    names = [str(row["instance_id"]) for row in rows]

    started = perf_counter()
    folder = work / "run"
    options = RunOptions("swebench", str(data), folder, workers=2)
    code = begin(options, {"temperature": 0.0, "max_steps": max_steps, "max_turn_tokens": 512})
    run_s = perf_counter() - started

    started = perf_counter()
    graded = grade.grade(grade.GradeOptions(folder, workers=2))
    grade_s = perf_counter() - started
    ours = {name: verdict for (name, _), verdict in RunFolder(folder).grades().items()}
    official = harness.summary(RunFolder(folder).grading / "attempt-1")

    gold = harness.evaluate(rows, {}, work / "gold", timeout_s=600, workers=2, gold=True)
    empty = harness.evaluate(rows, dict.fromkeys(names, ""), work / "empty", timeout_s=600)
    resolved = set(official["resolved_ids"])
    agree = [name for name in names if (ours[name].resolved is True) == (name in resolved)]
    return {
        "what": "embedded model on the example repositories, graded by swebench eval",
        "swebench": metadata.version("swebench"),
        "instances": len(names),
        "run_exit_code": code,
        "grade_exit_code": graded,
        "resolved": sorted(resolved),
        "harness": {
            key: official[key]
            for key in official
            if key.endswith("_instances") or key == "schema_version"
        },
        "our_verdicts_agree": len(agree),
        "gold_resolved": sum(verdict.resolved is True for verdict in gold),
        "empty_resolved": sum(verdict.resolved is True for verdict in empty),
        "run_s": round(run_s, 1),
        "grade_s": round(grade_s, 1),
    }


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--max-steps", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tenuto-harness-") as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        found = machine("swebench") | measure(work, options.only, options.max_steps)
    record("eval_harness", found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
