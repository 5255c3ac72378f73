"""The official SWE-bench harness (``swebench`` 5): its command runs, its files stay as they are.

It runs in a process of its own in ``folder``, where it writes ``logs/run_evaluation/RUN/MODEL/ID/``
and a summary. What it found is read back from its ``report.json`` files.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from evals.errors import GradeError
from evals.instance import Verdict
from evals.suites.dataset import EXTRA

FIELDS = (
    "instance_id",
    "image",
    "repo",
    "version",
    "FAIL_TO_PASS",
    "PASS_TO_PASS",
    "log_parser",
    "eval_type",
    "eval_script",
)
"""What the harness reads of a row; it fails with a KeyError on a row without one of them."""
MODEL = "tenuto"
_CLI = "from swebench.cli.cli import main; main()"


def predictions_of(patches: Mapping[str, str], model: str) -> dict[str, dict[str, str]]:
    """Predictions in the official form, by instance id."""
    return {
        name: {"instance_id": name, "model_name_or_path": model, "model_patch": patch}
        for name, patch in patches.items()
    }


def evaluate(
    rows: Sequence[Mapping[str, Any]],
    patches: Mapping[str, str],
    folder: Path,
    *,
    timeout_s: float,
    workers: int = 1,
    gold: bool = False,
) -> list[Verdict]:
    """Grade ``patches`` (with ``gold``, each row's own ``patch``) against ``rows``.

    The harness keeps results by the run's name, so that name is made from what is graded: a second
    call goes on, and a changed patch is graded anew. Raises ``GradeError``.
    """
    if importlib.util.find_spec("swebench") is None:
        raise GradeError(f"grading needs the swebench package; {EXTRA}")
    model = "gold" if gold else MODEL
    folder.mkdir(parents=True, exist_ok=True)
    data, preds = folder / "dataset.jsonl", folder / "preds.json"
    data.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))
    preds.write_text(json.dumps(predictions_of(patches, model), indent=1))
    digest = sha256(data.read_bytes() + (b"gold" if gold else preds.read_bytes())).hexdigest()
    run = f"tenuto-{digest[:12]}"
    command = ["eval", data.name, "--run-id", run, "-j", str(max(1, workers))]
    command += ["--timeout", str(max(1, round(timeout_s)))]
    command += ["--gold"] if gold else ["-p", preds.name]
    _call(command, folder)
    reports = folder / "logs" / "run_evaluation" / run / model
    names = [str(row["instance_id"]) for row in rows]
    return [_verdict(name, reports / name, patches, gold) for name in names]


def summary(folder: Path, gold: bool = False) -> dict[str, Any]:
    """Read the newest summary that the harness wrote in ``folder``. Raises ``GradeError``."""
    found = sorted(folder.glob(f"{'gold' if gold else MODEL}.tenuto-*.json"), key=_age)
    if not found:
        raise GradeError(f"the harness left no summary in {folder}")
    data: dict[str, Any] = json.loads(found[-1].read_text("utf-8"))
    return data


def _age(path: Path) -> float:
    return path.stat().st_mtime


def _call(arguments: Iterable[str], folder: Path) -> None:
    # Not the console script: it may lie anywhere, and the interpreter is known.
    command = [sys.executable, "-c", _CLI, *arguments]
    environment = {**os.environ, "NO_COLOR": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with (folder / "harness.log").open("wb") as log:
        process = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if process.returncode != 0:
        lines = (folder / "harness.log").read_text("utf-8", "replace").strip().splitlines()
        told = " ".join(lines[-1].split())[:200] if lines else "nothing"
        raise GradeError(
            f"swebench eval ended with exit code {process.returncode} and said: {told}; "
            f"see {folder / 'harness.log'}"
        )


def _verdict(name: str, place: Path, patches: Mapping[str, str], gold: bool) -> Verdict:
    if not gold and not patches.get(name):
        return Verdict(name, False, reason="empty patch")
    try:
        report = json.loads((place / "report.json").read_text("utf-8"))[name]
        resolved = bool(report["resolved"])
    except (OSError, ValueError, KeyError):
        return _no_report(name, place)
    output = _tail(place / "test_output.txt")
    reason = ""
    if not resolved:
        reason = str(report.get("infra_failure_reason") or "") or _failed_tests(report)
    return Verdict(name, resolved, float(resolved), reason, output)


def _no_report(name: str, place: Path) -> Verdict:
    """Make a verdict without a report: the patch did not apply, or it could not be run."""
    log = _tail(place / "run_instance.log")
    if "Patch Apply Failed" in log:
        return Verdict(name, False, reason="the patch does not apply", output=log)
    lines = log.strip().splitlines()
    told = lines[-1][:200] if lines else "it left no log"
    return Verdict(name, None, reason=f"not graded: {told}", output=log)


def _failed_tests(report: Mapping[str, Any]) -> str:
    status = report.get("tests_status") or {}
    failed = [
        test
        for kind in ("FAIL_TO_PASS", "PASS_TO_PASS")
        for test in (status.get(kind) or {}).get("failure", ())
    ]
    if not failed:
        return "not resolved"
    more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
    return f"fails {', '.join(failed[:3])}{more}"


def _tail(path: Path, characters: int = 20_000) -> str:
    try:
        return path.read_text("utf-8", "replace")[-characters:]
    except OSError:
        return ""
