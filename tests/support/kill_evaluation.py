"""Runs an evaluation whole, and again with 20 kill -9 on the way: kill_evaluation.py FOLDER.

Prints one JSON object: what the two runs left, and how often the second was killed. The model is
scripted and the children are forks of this process, so that a run begins within milliseconds.
"""

from __future__ import annotations

import json
import os
import random
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from agent.loading import LoadedModel
from agent.sessions.trajectory import session_ids
from evals.run.begin import RunOptions, begin
from evals.run.folder import RunFolder
from model.chat.chat_format import ChatFormat
from model.chat.tokenizer import Tokenizer
from model.scripted import scripted_engine

HERE = Path(__file__).parent
KILLS, INSTANCES, SEED = 20, 30, 7


def load(folder: Path, turns: tuple[str, ...]) -> LoadedModel:
    """A scripted model with the tokenizer and template of the tiny checkpoint."""
    checkpoint = runpy.run_path(str(HERE / "make_tiny_checkpoint.py"))["make"](folder)
    tokenizer = Tokenizer.load(checkpoint)
    engine = scripted_engine([t + "<|im_end|>" for t in turns], tokenizer=tokenizer)
    return LoadedModel(engine, ChatFormat.load(checkpoint, tokenizer))


def child(options: RunOptions, model: LoadedModel) -> int:
    """Begin or go on with the run in a process of its own; returns its number."""
    number = os.fork()
    if number:
        return number
    nothing = os.open(os.devnull, os.O_WRONLY)
    if "KILL_VERBOSE" not in os.environ:
        os.dup2(nothing, 2)
    code = 99
    try:
        code = begin(options, {"sandbox": "bubblewrap", "seed": 3}, model=model)
    finally:
        os._exit(code)


def left(folder: Path) -> dict[str, Any]:
    """What a run left, without times and session names."""
    run = RunFolder(folder)
    results = {}
    for (name, attempt), result in run.results().items():
        data = result.as_dict()
        # A fork of a process that has used torch may fail at its first use of torch's threads,
        # and is tried again.
        for key in ("seconds", "session", "tries"):
            data.pop(key)
        usage = {k: v for k, v in result.usage.items() if not k.endswith("_s")}
        # How much is drafted depends on what passes cost.
        del usage["drafted_tokens"], usage["accepted_tokens"]
        # The system prompt is prefilled by whoever comes first, and shared by the rest.
        usage["prefilled_tokens"] += usage.pop("shared_tokens")
        data["usage"] = usage
        place = run.attempt(name, attempt)
        data["ids"] = session_ids(place / "trajectory.jsonl")
        results[f"{name}/{attempt}"] = data
    return {"results": results, "preds": json.loads((folder / "preds.json").read_text())}


def done(folder: Path) -> int:
    """How many attempts are over."""
    return len(list(folder.glob("attempts/*/1/result.json")))


def main() -> None:
    """Both runs."""
    torch.set_num_threads(1)
    work = Path(sys.argv[1])
    support = runpy.run_path(str(HERE / "evaluation.py"))
    data = support["write_tasks"](work / "tasks.jsonl", INSTANCES)
    model = load(work / "checkpoint", support["turns"]())

    def options(name: str) -> RunOptions:
        return RunOptions(str(HERE / "small_suite.py"), str(data), work / name, workers=2)

    started = time.monotonic()
    assert os.waitpid(child(options("whole"), model), 0)[1] == 0
    whole_s = time.monotonic() - started

    chance = random.Random(SEED)
    killed = 0
    for number in range(KILLS):
        process = child(options("broken"), model)
        until = time.monotonic() + chance.uniform(0.0, 0.2) * whole_s
        # At the latest before so much is done that the last kill would find nothing to kill.
        while time.monotonic() < until and done(work / "broken") <= number:
            time.sleep(0.002)
        os.kill(process, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(process, 0)[1])
    there = done(work / "broken")
    code = os.waitstatus_to_exitcode(os.waitpid(child(options("broken"), model), 0)[1])
    found = {
        "whole": left(work / "whole"),
        "broken": left(work / "broken"),
        "killed": killed,
        "before_the_last": there,
        "code": code,
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
