"""``agent eval export --for``: the folder that a leaderboard asks for, made from a graded run.

``swebench``        the layout of ``SWE-bench/experiments``: ``all_preds.jsonl``, ``metadata.yaml``,
                    ``README.md``, ``trajs/ID.traj``, ``logs/ID/`` with the harness's files
``swebench-pro``    what ``swe_bench_pro_eval.py`` takes: ``patches.json``, a list of instance_id,
                    patch and prefix
``terminal-bench``  the layout of the leaderboard's repository: ``metadata.yaml`` and a job folder
                    with ``config.json`` and ``TRIAL/result.json``

What the leaderboard asks and the run does not know is left as ``TODO`` and told.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import yaml

from agent import version
from agent.cli.output import write_err
from agent.errors import ConfigError
from agent.text import visible
from evals.errors import RunError
from evals.instance import UNSETTLED, Result
from evals.report.summary import AttemptRow, Summary, summarize
from evals.run.folder import RunFolder

TODO = "TODO"
TRIALS = 5
"""Trials of every task that the leaderboard of Terminal-Bench asks for."""
HARNESS_FILES = ("patch.diff", "report.json", "test_output.txt", "run_instance.log", "eval.sh")


def submit(folder: RunFolder, to: Path, leaderboard: str) -> int:
    """Write the folder ``to`` for ``leaderboard``; return the exit code.

    Raises ``ConfigError`` for another leaderboard or suite, ``RunError``.
    """
    write = LEADERBOARDS.get(leaderboard)
    if write is None:
        raise ConfigError(f"--for {leaderboard!r}: use {', '.join(LEADERBOARDS)}")
    summary = summarize(folder)
    suite = summary.about.get("identity", {}).get("suite")
    if suite != leaderboard:
        raise ConfigError(f"--for {leaderboard}: {folder.path} is a run of the suite {suite}")
    if to.exists() and any(to.iterdir()):
        raise RunError(f"{to} is not empty; give another folder with --to")
    try:
        to.mkdir(parents=True, exist_ok=True)
        warnings = write(_Submission(folder, summary, to))
    except OSError as error:
        raise RunError(f"cannot write in {to}: {error.strerror or error}") from error
    for line in warnings:
        write_err(visible(f"not ready to submit: {line}") + "\n")
    write_err(visible(f"{to}: a submission to {leaderboard}") + "\n")
    return 1 if warnings else 0


@dataclass(frozen=True)
class _Submission:
    """One submission: the run it is made from, and the folder it goes to."""

    folder: RunFolder
    summary: Summary
    to: Path

    @property
    def model(self) -> str:
        """The model's name, as the run has it."""
        return str(self.summary.about.get("identity", {}).get("model", "model"))

    def write(self, name: str, text: str) -> None:
        path = self.to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def grading(self, instance: str) -> Path | None:
        """Return the folder in which grading left the first attempt's files of an instance."""
        home = self.folder.grading / "attempt-1"
        own = home / instance
        # The harness keeps one folder for each set of predictions: the newest has them.
        found = sorted(home.glob(f"logs/run_evaluation/*/*/{instance}"), key=_age)
        return found[-1] if found else own if own.is_dir() else None

    def faults(self) -> list[str]:
        """Return what is missing in every submission."""
        attempts = self.summary.attempts
        faults = []
        if ungraded := [a for a in attempts if not a.graded]:
            name = ungraded[0].result.instance_id
            faults.append(f"{len(ungraded)} attempts are not graded, {name} among them")
        if failed := [a for a in attempts if a.result.exit_status in UNSETTLED]:
            name = failed[0].result.instance_id
            faults.append(f"{len(failed)} attempts ended in an error, {name} among them")
        known = int(self.summary.about.get("instances", 0))
        made = len({a.result.instance_id for a in attempts})
        if made < known:
            faults.append(f"{known - made} of the data set's {known} instances were not run")
        return faults


def _swebench(made: _Submission) -> list[str]:
    """Write the layout of ``SWE-bench/experiments``; pass@1 alone counts there."""
    firsts = [a for a in made.summary.attempts if a.result.attempt == 1]
    faults = made.faults()
    if len(firsts) < len(made.summary.attempts):
        faults.append("the leaderboard takes one attempt at each instance; the first is written")
    lines = []
    for attempt in firsts:
        result = attempt.result
        lines.append(
            json.dumps(
                {
                    "instance_id": result.instance_id,
                    "model_name_or_path": f"tenuto/{made.model.rpartition('/')[2]}",
                    "model_patch": result.patch,
                }
            )
        )
        trajectory = made.folder.attempt(result.instance_id, 1) / "trajectory.jsonl"
        if trajectory.is_file():
            (made.to / "trajs").mkdir(exist_ok=True)
            shutil.copyfile(trajectory, made.to / "trajs" / f"{result.instance_id}.traj")
        elif result.patch:
            faults.append(f"{result.instance_id} has no trajectory")
        if result.patch and not _copy_logs(made, result.instance_id):
            faults.append(f"{result.instance_id} has no logs of the official harness")
    made.write("all_preds.jsonl", "".join(line + "\n" for line in lines))
    solved = sum(a.outcome == "resolved" for a in firsts)
    metadata = {
        "assets": {"logs": TODO, "trajs": TODO},
        "info": {
            "name": f"Tenuto + {made.model.rpartition('/')[2]}",
            "authors": TODO,
            "site": TODO,
            "report": TODO,
            "logo": TODO,
        },
        "tags": {
            "checked": False,
            "model": [made.model],
            "org": TODO,
            "os_model": TODO,
            "os_system": True,
            "system": {"attempts": "1"},
        },
    }
    made.write("metadata.yaml", yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True))
    made.write("README.md", _readme(made, solved, len(firsts)))
    return [*faults, f"metadata.yaml says {TODO} where only you know"]


def _copy_logs(made: _Submission, instance: str) -> bool:
    source = made.grading(instance)
    if source is None:
        return False
    place = made.to / "logs" / instance
    for name in HARNESS_FILES:
        if (source / name).is_file():
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, place / name)
    return place.is_dir()


def _readme(made: _Submission, solved: int, total: int) -> str:
    identity = made.summary.about.get("identity", {})
    settings = "".join(
        f"- {key}: {identity[key]}\n"
        for key in ("dataset", "seed", "temperature", "max_steps", "max_tokens", "thinking")
        if identity.get(key) is not None
    )
    return (
        f"# Tenuto {version()} with {made.model}\n\n{solved} of {total} instances resolved, one "
        f"attempt each.\n\n{settings}\n## Checklist\n\n"
        "- [ ] Is a pass@1 submission (does not attempt the same task instance more than once)\n"
        "- [ ] Does not use SWE-bench test knowledge (`PASS_TO_PASS`, `FAIL_TO_PASS`)\n"
        "- [ ] Does not use the `hints` field in SWE-bench\n"
        "- [ ] Does not have web-browsing or takes steps to prevent lookup of solutions\n"
    )


def _swebench_pro(made: _Submission) -> list[str]:
    """Write the predictions that the makers' script takes, one file for each attempt."""
    prefix = f"tenuto-{made.model.rpartition('/')[2]}"
    for number in sorted({a.result.attempt for a in made.summary.attempts}):
        found = [
            {"instance_id": a.result.instance_id, "patch": a.result.patch, "prefix": prefix}
            for a in made.summary.attempts
            if a.result.attempt == number
        ]
        name = "patches.json" if number == 1 else f"patches-{number}.json"
        made.write(name, json.dumps(found, indent=1) + "\n")
    return made.faults()


def _terminal_bench(made: _Submission) -> list[str]:
    """Write the layout of the leaderboard's repository: a job of Harbor's form."""
    name = made.model.rpartition("/")[2]
    home = f"submissions/terminal-bench/2.0/tenuto__{name}"
    provider = made.model.rpartition("/")[0] or TODO
    model = {
        "model_name": name,
        "model_provider": provider.lower(),
        "model_display_name": name,
        "model_org_display_name": provider,
    }
    metadata = {
        "agent_url": TODO,
        "agent_display_name": "Tenuto",
        "agent_org_display_name": TODO,
        "models": [model],
    }
    made.write(f"{home}/metadata.yaml", yaml.safe_dump(metadata, sort_keys=False))
    job = f"{home}/{made.summary.name}"
    config = {"job_name": made.summary.name, "n_attempts": _most(made), "timeout_multiplier": 1.0}
    made.write(f"{job}/config.json", json.dumps(config, indent=1) + "\n")
    for attempt in made.summary.attempts:
        trial = f"{attempt.result.instance_id}__{attempt.result.attempt}"
        kept = made.folder.attempt(attempt.result.instance_id, attempt.result.attempt)
        ended = datetime.fromtimestamp(_age(kept / "result.json"), UTC)
        data = trial_result(attempt, trial, made.model, made.summary.name, ended)
        made.write(f"{job}/{trial}/result.json", json.dumps(data, indent=1) + "\n")
    faults = made.faults()
    counts: dict[str, int] = {}
    for attempt in made.summary.attempts:
        counts[attempt.result.instance_id] = counts.get(attempt.result.instance_id, 0) + 1
    if few := [task for task, count in counts.items() if count < TRIALS]:
        faults.append(f"{few[0]} has {counts[few[0]]} trials; the leaderboard asks for {TRIALS}")
    changed = [
        key
        for key in ("max_wall_time", "time_multiplier")
        if made.summary.about.get("identity", {}).get(key) not in (None, 1, 1.0)
    ]
    if changed:
        faults.append(f"{changed[0]} was set: the leaderboard takes the tasks' own limits alone")
    return [*faults, f"metadata.yaml says {TODO} where only you know"]


def _most(made: _Submission) -> int:
    return max((a.result.attempt for a in made.summary.attempts), default=1)


def trial_result(
    attempt: AttemptRow, trial: str, model: str, job: str, ended: datetime
) -> dict[str, Any]:
    """Return an attempt as the ``result.json`` of one of Harbor's trials (``TrialResult``)."""
    result, verdict = attempt.result, attempt.verdict
    provider, _, name = model.rpartition("/")
    began = ended - timedelta(seconds=result.seconds)
    reward = None if verdict is None or verdict.resolved is None else verdict.reward
    info = {"name": name, "provider": provider or "local"}
    return {
        "id": str(uuid5(NAMESPACE_URL, f"{job}/{trial}")),
        "task_name": result.instance_id,
        "trial_name": trial,
        "trial_uri": f"file://{trial}",
        "task_id": {"path": result.instance_id},
        "source": "terminal-bench",
        "task_checksum": result.digest,
        "config": {"task": {"path": result.instance_id}, "trial_name": trial},
        "agent_info": {"name": "tenuto", "version": version(), "model_info": info},
        "agent_result": _agent_result(result),
        "verifier_result": None if reward is None else {"rewards": {"reward": reward}},
        "exception_info": _exception(result, ended),
        "started_at": began.isoformat(),
        "finished_at": ended.isoformat(),
    }


def _agent_result(result: Result) -> dict[str, Any]:
    usage = result.usage
    return {
        "n_input_tokens": round(usage.get("prefilled_tokens", 0) + usage.get("reused_tokens", 0)),
        "n_cache_tokens": round(usage.get("reused_tokens", 0)),
        "n_output_tokens": round(usage.get("generated_tokens", 0)),
        "metadata": {"status": result.status, "steps": result.steps, "seed": result.seed},
    }


def _exception(result: Result, when: datetime) -> dict[str, str] | None:
    if result.exit_status not in UNSETTLED:
        return None
    return {
        "exception_type": result.exit_status,
        "exception_message": result.summary,
        "exception_traceback": "",
        "occurred_at": when.isoformat(),
    }


def _age(path: Path) -> float:
    return path.stat().st_mtime


LEADERBOARDS: Mapping[str, Callable[[_Submission], list[str]]] = {
    "swebench": _swebench,
    "swebench-pro": _swebench_pro,
    "terminal-bench": _terminal_bench,
}
