"""A run on disk as a test wants it: results, trajectories and verdicts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.sessions.records import step_to_json
from agent.types import Step
from evals.instance import Done, Result, Verdict
from evals.run.folder import RunFolder
from model.messages import Message, ToolCall
from model.session import Usage
from tools.types import Observation

PATCH = "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"


def records(text: str) -> list[dict[str, Any]]:
    """A trajectory of two steps in which every text is ``text``."""
    call = ToolCall("run_shell_command", {"command": text})
    first = Step(
        0,
        Message("assistant", text, text, (call,)),
        (Observation(text, ok=False),),
        Usage(context_tokens=6, prefilled_tokens=3, generated_tokens=3, decode_s=0.5),
        (11, 12, 13),
        (-0.5, -0.25, float("-inf")),
    )
    second = Step(
        1,
        Message("assistant", "", text, (ToolCall("submit", {"summary": text}),)),
        (Observation("Submitted.", submitted=True),),
        Usage(context_tokens=10, prefilled_tokens=2, generated_tokens=2, reused_tokens=6),
        (16, 17),
        (-1.0, -2.0),
    )
    told = [{"role": "system", "content": text}, {"role": "user", "content": text}]
    return [
        {"type": "session", "id": "s-1", "model": text, "seed": 3, "fingerprint": "f"},
        {"type": "prompt", "messages": told, "ids": [1, 2, 3]},
        {"type": "step", **step_to_json(first)},
        {"type": "prompt", "messages": [{"role": "tool", "content": text}], "ids": [14, 15]},
        {"type": "step", **step_to_json(second)},
        {"type": "check", "when": "after", "exit_code": 1, "output": text, "duration_s": 1.0},
        {"type": "end", "status": "submitted", "summary": text, "patch": PATCH + text},
    ]


def make_run(
    path: Path,
    outcomes: Mapping[str, Sequence[bool | None]],
    text: str = "plain",
    **identity: Any,
) -> RunFolder:
    """A run whose attempts came out as ``outcomes`` says; None: not graded."""
    folder = RunFolder(path)
    path.mkdir(parents=True)
    folder.begin({"suite": "repair", "model": text, **identity}, {"label": "tenuto/x"})
    grades = {}
    lines = "".join(json.dumps(record) + "\n" for record in records(text)).encode()
    usage = {"context_tokens": 10, "prefilled_tokens": 5, "generated_tokens": 5, "decode_s": 0.5}
    for name, seen in outcomes.items():
        for attempt, resolved in enumerate(seen, start=1):
            result = Result(
                name,
                attempt,
                "submitted",
                "submitted",
                patch=PATCH + text,
                summary=text,
                steps=2,
                usage=usage,
                session=text,
            )
            folder.keep(Done(result, {"trajectory.jsonl": lines}))
            if resolved is not None:
                reason = "" if resolved else text
                verdict = Verdict(name, resolved, float(resolved), reason, text)
                grades[name, attempt] = verdict
    folder.write_grades(grades, "repair")
    folder.write_predictions(folder.results(), "tenuto/x", 1)
    return folder
