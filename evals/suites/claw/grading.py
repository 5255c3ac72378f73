"""Run inside a container of the makers' checkout: grade one attempt with the task's own grader.

It is handed to the container's Python as text. ``/record.json`` is what the attempt left, and
``/judge/socket``, if there, leads to the judge. It prints one JSON object: ``score`` and
``scores``, or ``ungraded`` with the reason.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

_httpx: Any = import_module("httpx")
_openai: Any = import_module("openai")
_scoring, _trace = (import_module(f"claw_eval.models.{name}") for name in ("scoring", "trace"))

RECORD, SOCKET, TASKS = Path("/record.json"), "/judge/socket", Path("/claw/tasks")
SAME_QUESTION = 3
"""How often a grader may ask the same: it asks again when it can make nothing of an answer."""


class Ungraded(BaseException):
    """No grade is possible. Graders catch ``Exception`` and would make a 0 of it."""


class _Door(_httpx.HTTPTransport):  # type: ignore[misc]
    """Takes the judge's questions to the socket, and ends the grading if nothing comes of it."""

    def __init__(self) -> None:
        self._there = Path(SOCKET).exists()
        self._asked: dict[str, int] = {}
        super().__init__(uds=SOCKET)

    def handle_request(self, request: Any) -> Any:
        if not self._there:
            raise Ungraded("it needs a judge; name one with --judge")
        key = hashlib.sha256(request.read()).hexdigest()
        self._asked[key] = self._asked.get(key, 0) + 1
        if self._asked[key] > SAME_QUESTION:
            raise Ungraded(f"the judge gave nothing usable in {SAME_QUESTION} answers")
        try:
            answer = super().handle_request(request)
        except _httpx.HTTPError as error:
            raise Ungraded(f"the judge cannot be reached: {error}") from error
        if answer.status_code != 200:
            told = answer.read().decode("utf-8", "replace")[:300]
            raise Ungraded(f"the judge gave no answer: {told}")
        return answer


def make_judge() -> Any:
    """Return the makers' own judge, whose questions go through the socket."""
    package = import_module("claw_eval.graders.llm_judge")
    judge = package.LLMJudge(model_id="judge", api_key="none", base_url="http://judge/v1")
    client = _httpx.Client(transport=_Door(), timeout=600)
    judge.client = _openai.OpenAI(
        api_key="none", base_url="http://judge/v1", http_client=client, max_retries=0
    )
    return judge


def local_files(task: Any, folder: Path) -> dict[str, Any]:
    """Return the files that only the grader sees, as the makers hand them over."""
    found = {}
    for name in getattr(task, "local_grader_files", None) or ():
        path = folder / name
        if path.exists():
            text = base64.b64encode(path.read_bytes()).decode()
            found[f"local_file:{name}"] = {"encoding": "base64", "content": text}
        else:
            found[f"local_file:{name}"] = {"error": f"not found: {path}"}
    return found


def grade(task_id: str, record: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of one attempt."""
    folder = TASKS / task_id
    task = import_module("claw_eval.models.task").TaskDefinition.from_yaml(folder / "task.yaml")
    registry = import_module("claw_eval.graders.registry")
    grader = registry.get_grader(task.task_id, tasks_dir=TASKS, task_dir=folder)
    snapshot = {**record["snapshot"], **local_files(task, folder)}
    judge = make_judge()
    optional = {
        "audit_data": record["audit"],
        "judge": judge,
        "media_events": [_trace.MediaLoad.model_validate(item) for item in record["media"]],
        "env_snapshot": snapshot or None,
    }
    known = inspect.signature(grader.grade).parameters
    scores = grader.grade(
        [_trace.TraceMessage.model_validate(item) for item in record["messages"]],
        [_trace.ToolDispatch.model_validate(item) for item in record["dispatches"]],
        task,
        **{name: value for name, value in optional.items() if name in known},
    )
    score = _scoring.compute_task_score(scores)
    calls = judge.get_call_log() if hasattr(judge, "get_call_log") else []
    return {
        "score": score,
        "passed": _scoring.is_pass(score),
        "scores": scores.model_dump(),
        "judge": calls,
    }


if __name__ == "__main__":
    try:
        outcome = grade(sys.argv[1], json.loads(RECORD.read_text("utf-8")))
    except Ungraded as error:
        outcome = {"ungraded": str(error)}
    except Exception as error:
        outcome = {"ungraded": f"its grader failed: {type(error).__name__}: {error}"[:500]}
    sys.stdout.write("\n" + json.dumps(outcome) + "\n")
