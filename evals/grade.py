"""``agent eval grade``: what the predictions of a run are worth, by the suite's own means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.cli.output import write_err, write_out
from agent.run.build import with_image
from agent.settings.load import load_settings
from agent.text import visible
from evals.errors import GradeError
from evals.instance import Verdict
from evals.run.begin import load_again, model_label
from evals.run.folder import RunFolder
from evals.suites.images import Images, read_map
from evals.suites.suite import Machine

HARNESS_TIMEOUT_S = 1800.0
"""What the official harness gives the tests of one instance."""

Grades = Mapping[tuple[str, int], Verdict]


@dataclass(frozen=True)
class GradeOptions:
    """The flags of ``agent eval grade``."""

    folder: Path
    predictions: Path | None = None
    workers: int = 4
    image_map: Path | None = None
    pull: bool = True
    timeout: float | None = None


def grade(options: GradeOptions) -> int:
    """Grade a run; returns the exit code: 1 if an instance could not be graded."""
    folder = RunFolder(options.folder)
    suite, instances, settings = load_again(folder)
    known = {instance.id for instance in instances}
    results = folder.results()
    if strangers := sorted({name for name, _ in results} - known):
        raise GradeError(f"{folder.path} has results of {strangers[0]}, which the data set has not")
    wanted = {
        attempt: folder.predictions(attempt)
        for attempt in sorted({number for _, number in results})
    }
    if options.predictions is not None:
        label = str(folder.about().get("label", model_label(settings.model)))
        wanted = {1: read_predictions(options.predictions, known, label)}
    if not any(wanted.values()):
        raise GradeError(f"{folder.path} has no predictions; run it first: agent eval run")
    timeout = options.timeout or (HARNESS_TIMEOUT_S if suite.name == "swebench" else None)
    if timeout is not None:
        settings = load_settings(settings.model_dump() | {"check_timeout": timeout})
    if any(instance.image is None for instance in instances) and suite.name != "terminal-bench":
        settings = with_image(settings)
    images = Images(read_map(options.image_map), options.pull)
    machine = Machine(settings, images, lambda line: write_err(f"{visible(line)}\n"))
    grades: dict[tuple[str, int], Verdict] = {}
    with folder.claim():
        for attempt, patches in wanted.items():
            place = folder.grading / f"attempt-{attempt}"
            _lend_records(folder, attempt, patches, place)
            for verdict in suite.grade(
                instances, patches, machine, folder=place, workers=options.workers
            ):
                grades[verdict.instance_id, attempt] = verdict
        folder.write_grades(grades, suite.name)
    return _tell(grades)


def read_predictions(path: Path, known: set[str], label: str) -> dict[str, str]:
    """Predictions in any of the official forms, by instance.

    Raises ``GradeError`` for ids that are not ``known``, and for another model's.
    """
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".jsonl":
            data: Any = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            data = json.loads(text)
    except (OSError, ValueError) as error:
        raise GradeError(f"the predictions {path} cannot be read: {error}") from error
    found: dict[str, str] = {}
    for item in data.values() if isinstance(data, dict) else data:
        try:
            name, model = item["instance_id"], item["model_name_or_path"]
            patch = item["model_patch"]
        except (KeyError, TypeError) as error:
            raise GradeError(
                f"{path}: each prediction needs instance_id, model_name_or_path and model_patch"
            ) from error
        if name not in known:
            raise GradeError(f"{path} has a prediction for {name!r}, which the data set has not")
        if name in found:
            raise GradeError(f"{path} has two predictions for {name!r}")
        if model != label:
            raise GradeError(f"{path} is of another run: its model is {model!r}, not {label!r}")
        found[name] = patch or ""
    return found


def _lend_records(folder: RunFolder, attempt: int, patches: Mapping[str, str], place: Path) -> None:
    """Give the suite what the run itself recorded of each instance (``TaskPlace.at_end``)."""
    for name in patches:
        for file in folder.attempt(name, attempt).glob("verifier.json"):
            (place / name).mkdir(parents=True, exist_ok=True)
            (place / name / file.name).write_bytes(file.read_bytes())


def _tell(grades: Grades) -> int:
    """Print a line for each verdict, and the counts."""
    words = {True: "resolved", False: "unresolved", None: "not graded"}
    for (name, attempt), verdict in sorted(grades.items()):
        reason = f": {verdict.reason}" if verdict.reason else ""
        line = f"{words[verdict.resolved]:11} {name} attempt {attempt}{reason}"
        write_out(visible(line.replace("\n", " ")) + "\n")
    counts = dict.fromkeys(words.values(), 0)
    for verdict in grades.values():
        counts[words[verdict.resolved]] += 1
    write_err(", ".join(f"{count} {word}" for word, count in counts.items()) + "\n")
    return 1 if counts["not graded"] else 0
