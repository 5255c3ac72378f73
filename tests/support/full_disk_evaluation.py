"""A run on a disk that fills up, and on again once there is room: WORK SMALL.

SMALL lies on a file system of 1 MB. Prints one JSON object.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import torch

from evals.errors import RunError
from evals.run.begin import RunOptions, begin
from evals.run.folder import RunFolder

HERE = Path(__file__).parent
COUNT = 8


def main() -> None:
    """Fill the disk, see what is there, make room, go on."""
    torch.set_num_threads(1)
    work, small = map(Path, sys.argv[1:])
    support = runpy.run_path(str(HERE / "evaluation.py"))
    kill = runpy.run_path(str(HERE / "kill_evaluation.py"))
    (work / "checkpoint").mkdir()
    model = kill["load"](work / "checkpoint", support["turns"]())
    data = support["write_tasks"](work / "tasks.jsonl", COUNT)
    folder = RunFolder(small / "run")
    ballast = small / "ballast"
    ballast.write_bytes(b"x" * 780_000)
    options = RunOptions(str(HERE / "small_suite.py"), str(data), folder.path, workers=1)
    told = ""
    try:
        begin(options, {"sandbox": "local"}, model=model)
    except RunError as error:
        told = str(error)
    results = folder.results()
    kept = {name for (name, _), r in results.items() if r.exit_status == "submitted"}
    predictions = json.loads((folder.path / "preds.json").read_text())
    ballast.unlink()
    code = begin(options, {"sandbox": "local"}, model=model)
    then = [r for r in folder.results().values() if r.exit_status == "submitted"]
    found = {
        "error": told,
        "kept": len(kept),
        "whole": set(predictions) <= {name for name, _ in results} and code == 0,
        "then": len(then),
        "of": COUNT,
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
