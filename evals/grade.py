"""``agent eval grade``: what the predictions of a run are worth, by the suite's own means."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from agent.cli.output import write_err, write_out
from agent.run.build import with_image
from agent.settings.table import Settings
from agent.text import visible
from evals.errors import GradeError
from evals.instance import Instance, Verdict
from evals.judge import open_judge
from evals.run.begin import load_again, model_label
from evals.run.folder import RunFolder
from evals.scratch import clear_scratch
from evals.suites.images import Images, read_map
from evals.suites.suite import Machine, Suite, combine, needs_image

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
    dataset: str | None = None
    redo: bool = False
    judge: str | None = None
    scripts: Path | None = None


def grade(options: GradeOptions) -> int:
    """Grade a run; return the exit code: 1 if an instance could not be graded.

    A verdict is kept as soon as it is there, and not asked for again unless what is graded changed
    or nothing could be graded. Predictions of a file are graded beside the run's own.
    """
    folder = RunFolder(options.folder)
    suite, instances, settings = load_again(folder, options.dataset)
    wanted = _wanted(folder, instances, settings, options)
    timeout = options.timeout or getattr(suite, "timeout_s", None)
    if timeout is not None:
        settings = combine(settings, {"check_timeout": timeout})
    if needs_image(suite, instances):
        settings = with_image(settings)
    images = Images(read_map(options.image_map), options.pull)
    judge = open_judge(
        options.judge or dict(folder.about().get("identity", {})).get("judge"), settings
    )
    scripts = options.scripts.resolve() if options.scripts else None
    machine = Machine(
        settings, images, lambda line: write_err(f"{visible(line)}\n"), judge, scripts
    )
    stem = f"of-{options.predictions.stem}" if options.predictions else ""
    name = f"grades-{stem}.json" if stem else "grades.json"
    with folder.claim():
        for line in clear_scratch():
            write_err(f"removed {line}, left by a run that was killed\n")
        known = {} if options.redo else folder.graded(name)
        grades: dict[tuple[str, int], Verdict] = {}
        hashes: dict[tuple[str, int], str] = {}
        for attempt, patches in wanted.items():
            place = folder.grading / (stem or f"attempt-{attempt}")
            if not stem:
                _lend_records(folder, attempt, patches, place)
            work = _Grading(suite, instances, machine, place, options.workers)
            for verdict, of in work.grade(patches, attempt, known):
                grades[verdict.instance_id, attempt] = verdict
                hashes[verdict.instance_id, attempt] = of
                folder.write_grades(grades, suite.name, of=hashes, name=name)
    return _tell(grades)


def _wanted(
    folder: RunFolder,
    instances: Sequence[Instance],
    settings: Settings,
    options: GradeOptions,
) -> dict[int, dict[str, str]]:
    """Return the patches to grade, by attempt and instance. Raises ``GradeError``."""
    known = {instance.id for instance in instances}
    results = folder.results()
    if strangers := sorted({name for name, _ in results} - known):
        raise GradeError(f"{folder.path} has results of {strangers[0]}, which the data set has not")
    if options.predictions is not None:
        label = str(folder.about().get("label", model_label(settings.model)))
        return {1: read_predictions(options.predictions, known, label)}
    digests = {instance.id: instance.digest for instance in instances}
    for (name, _), result in results.items():
        if result.digest and result.digest != digests[name]:
            raise GradeError(
                f"{name} in {folder.path} was run from another version of its task than the data "
                "set has now; name the right one with --dataset"
            )
    wanted = {
        attempt: folder.predictions(attempt)
        for attempt in sorted({number for _, number in results})
    }
    if not any(wanted.values()):
        raise GradeError(f"{folder.path} has no predictions; run it first: agent eval run")
    return wanted


@dataclass(frozen=True)
class _Grading:
    """The grading of one attempt of every instance; ``place`` is for what it leaves behind."""

    suite: Suite
    instances: Sequence[Instance]
    machine: Machine
    place: Path
    workers: int

    def grade(
        self,
        patches: Mapping[str, str],
        attempt: int,
        known: Mapping[tuple[str, int], tuple[Verdict, str]],
    ) -> Iterator[tuple[Verdict, str]]:
        """Yield each verdict with the hash of what was graded, known ones first."""
        todo: dict[str, str] = {}
        hashes = {i.id: self._hash(i, patches[i.id]) for i in self.instances if i.id in patches}
        for name, of in hashes.items():
            verdict, before = known.get((name, attempt), (None, ""))
            if verdict is not None and verdict.resolved is not None and before == of:
                yield verdict, of
            else:
                todo[name] = patches[name]
        for verdict in self._verdicts(todo):
            yield verdict, hashes[verdict.instance_id]

    def _verdicts(self, patches: Mapping[str, str]) -> Iterator[Verdict]:
        """Yield verdicts as they come: one by one, unless the suite grades all at once."""
        if not patches or getattr(self.suite, "at_once", False):
            yield from self._some(patches, self.workers) if patches else []
            return
        with ThreadPoolExecutor(max_workers=max(1, self.workers)) as pool:
            waiting = [pool.submit(self._some, {k: v}, 1) for k, v in patches.items()]
            for future in as_completed(waiting):
                yield from future.result()

    def _some(self, patches: Mapping[str, str], workers: int) -> list[Verdict]:
        return self.suite.grade(
            self.instances, patches, self.machine, folder=self.place, workers=workers
        )

    def _hash(self, instance: Instance, patch: str) -> str:
        """Return a hash of the task, the patch and what the run itself recorded."""
        digest = sha256(f"{instance.digest}\0{patch}\0".encode())
        for file in sorted((self.place / instance.id).glob("verifier.json")):
            digest.update(file.read_bytes())
        return digest.hexdigest()[:16]


def read_predictions(path: Path, known: set[str], label: str) -> dict[str, str]:
    """Predictions in any of the official forms, by instance.

    Raises ``GradeError`` for ids that are not ``known``, and for another model's.
    """
    try:
        # A mark is passed over, and only a line feed ends a line: U+2028 may stand in a text.
        text = path.read_text("utf-8-sig")
        if path.suffix == ".jsonl":
            data: Any = [json.loads(line) for line in text.split("\n") if line.strip()]
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
