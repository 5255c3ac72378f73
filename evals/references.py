"""``agent eval check``: see that a suite is graded rightly here before a model is blamed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.cli.output import write_err, write_out
from agent.text import visible
from evals.grade import GradeOptions, grade
from evals.run.attempt import AgentName
from evals.run.begin import EXIT_INTERRUPTED, RunOptions, begin
from evals.run.folder import RunFolder

REFERENCES: tuple[AgentName, ...] = ("oracle", "nop")


@dataclass(frozen=True)
class CheckOptions:
    """The flags of ``agent eval check``."""

    suite: str
    dataset: str | None = None
    folder: Path | None = None
    ids: tuple[str, ...] = ()
    workers: int = 4
    attempts: int = 1
    image_map: Path | None = None
    pull: bool = True
    judge: str | None = None
    scripts: Path | None = None
    without: tuple[str, ...] = ()
    time_factor: float = 1.0


def check(options: CheckOptions, flags: Mapping[str, Any]) -> int:
    """Run and grade the task's own solutions and no change; return the exit code."""
    home = (
        options.folder
        or Path("runs") / f"check-{RunOptions(options.suite, options.dataset).place.name}"
    )
    rows: dict[str, list[str]] = {}
    for agent in REFERENCES:
        run = RunOptions(
            suite=options.suite,
            dataset=options.dataset,
            folder=home / agent,
            ids=options.ids,
            without=options.without,
            workers=options.workers,
            attempts=options.attempts,
            image_map=options.image_map,
            pull=options.pull,
            agent=agent,
            judge=options.judge,
            time_factor=options.time_factor,
        )
        if begin(run, flags) == EXIT_INTERRUPTED:
            return EXIT_INTERRUPTED
        grade(
            GradeOptions(
                run.place,
                workers=options.workers,
                image_map=options.image_map,
                pull=options.pull,
                dataset=options.dataset,
                judge=options.judge,
                scripts=options.scripts,
            )
        )
        for name, fault in _faults(RunFolder(run.place), agent).items():
            rows.setdefault(name, []).append(fault)
    for name, faults in sorted(rows.items()):
        write_out(visible(f"{name}: {'; '.join(faults)}".replace("\n", " ")) + "\n")
    total = len({name for name, _ in RunFolder(home / REFERENCES[0]).results()})
    write_err(f"{total - len(rows)} of {total} tasks are graded as they should be\n")
    return 1 if rows else 0


def _faults(folder: RunFolder, agent: AgentName) -> dict[str, str]:
    """Return what is wrong with the verdicts of a reference, by instance."""
    wanted = agent == "oracle"
    verdicts = folder.grades()
    seen: dict[str, list[bool | None]] = {}
    reasons: dict[str, str] = {}
    for (name, attempt), result in folder.results().items():
        verdict = verdicts.get((name, attempt))
        resolved = verdict.resolved if verdict is not None else None
        if result.exit_status != "submitted":
            resolved, reasons[name] = None, result.summary
        elif verdict is not None and resolved is not wanted:
            reasons[name] = verdict.reason
        seen.setdefault(name, []).append(resolved)
    faults = {}
    for name, outcomes in seen.items():
        if len(set(outcomes)) > 1:
            faults[name] = f"{agent} is flaky: solved in {outcomes.count(True)} of {len(outcomes)}"
        elif outcomes[0] is not wanted:
            words = {True: "solved", False: "unsolved", None: "not graded"}[outcomes[0]]
            reason = f" ({reasons[name]})" if reasons.get(name) else ""
            faults[name] = f"{agent} is {words}{reason}"
    return faults
