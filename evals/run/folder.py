"""The folder of a run: what it is, every attempt's result and record, and the predictions.

``run.json``               what the run is (suite, data set, model, settings); written first
``attempts/ID/N/``         ``result.json``, ``session.json``, ``trajectory.jsonl`` of attempt N; the
                           folder appears whole, by a rename, once the attempt is over
``preds.json``             the predictions in the official form, rewritten whole after each attempt;
                           ``preds-2.json`` and so on hold those of further attempts
``grades.json``            what ``agent eval grade`` found; ``grades-of-NAME.json`` for the
                           predictions of a file
``sessions/``              sessions that are being worked on; emptied when a run begins
``lock``                   held while a process works on the run

A kill at any moment loses the attempts under way and nothing else: the attempts' folders decide,
and the predictions are made from them.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.sessions.store import now
from evals.errors import RunError
from evals.instance import Done, Result, Verdict
from sandboxes.paths import sync, write_whole

FORMAT = 2
"""Format 1 did not say all that decides what comes out of a run."""
_UNBORN = ".new-"


class RunFolder:
    """One run on disk. Only the process that holds ``claim`` may write in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def sessions(self) -> Path:
        """The absolute folder of sessions that are being worked on."""
        return self.path.absolute() / "sessions"

    @property
    def grading(self) -> Path:
        """The folder in which the official harness leaves its files."""
        return self.path / "grading"

    def attempt(self, instance_id: str, attempt: int) -> Path:
        """Return the folder of one attempt."""
        return self.path / "attempts" / instance_id / str(attempt)

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the run for this process alone. Raises ``RunError``."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / "lock").open("w")
        except OSError as error:
            raise RunError(f"cannot write in {self.path}: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(f"another process works on {self.path}; wait for it") from error
            for left in (self.sessions, *self.path.glob(f"attempts/*/{_UNBORN}*")):
                shutil.rmtree(left, ignore_errors=True)
            yield

    def begin(self, identity: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
        """Write ``run.json``, or see that it says the same ``identity``.

        Raises ``RunError`` if the folder is of another run.
        """
        there = self.about()
        if there and there.get("format") != FORMAT:
            raise RunError(
                f"{self.path} is of another version, which did not record all that decides a run; "
                "give another folder with --run, or begin anew with --redo"
            )
        if there:
            self._compare(there.get("identity", {}), identity)
        elif strangers := sorted(p.name for p in self.path.glob("preds*.json")):
            raise RunError(
                f"{self.path / strangers[0]} is of another run: there is no run.json beside it; "
                "give another folder with --run"
            )
        self.write("run.json", {"format": FORMAT, "identity": dict(identity), **extra})

    def _compare(self, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
        for key in [*here, *there]:
            if there.get(key) != here.get(key):
                raise RunError(
                    f"{self.path} holds another run: its {key} is {there.get(key)!r}, now it is "
                    f"{here.get(key)!r}; give another folder with --run, or begin anew with --redo"
                )

    def about(self) -> dict[str, Any]:
        """Read ``run.json``; empty before the run. Raises ``RunError`` if it is damaged."""
        return self._read("run.json")

    def _read(self, name: str) -> dict[str, Any]:
        try:
            data = json.loads((self.path / name).read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / name} cannot be read: {error}") from error
        if not isinstance(data, dict):
            raise RunError(f"{self.path / name} is damaged: it is no object")
        return data

    def results(self) -> dict[tuple[str, int], Result]:
        """Read every attempt that is over, by instance and attempt. Raises ``RunError``."""
        found = {}
        for path in sorted(self.path.glob("attempts/*/*/result.json")):
            if path.parent.name.startswith("."):
                continue
            try:
                result = Result.from_dict(json.loads(path.read_text("utf-8")))
            except (OSError, ValueError, TypeError) as error:
                raise RunError(f"{path} is damaged ({error}); remove its folder") from error
            if (result.instance_id, str(result.attempt)) != path.parts[-3:-1]:
                raise RunError(
                    f"{path} is of another run: it is the result of {result.instance_id}"
                )
            found[result.instance_id, result.attempt] = result
        return found

    def keep(self, done: Done) -> None:
        """Write down an attempt, all of it or nothing, in place of an earlier one of its name.

        Raises ``OSError``; what was there before then still is.
        """
        result = done.result
        place = self.attempt(result.instance_id, result.attempt)
        unborn = place.with_name(_UNBORN + place.name)
        shutil.rmtree(unborn, ignore_errors=True)
        try:
            unborn.mkdir(parents=True)
            for name, data in done.record.items():
                (unborn / name).parent.mkdir(exist_ok=True)
                _write(unborn / name, data)
            _write(unborn / "result.json", _json(result.as_dict()))
            if place.exists():
                shutil.rmtree(place)
            unborn.rename(place)
            sync(place.parent)
        except OSError:
            shutil.rmtree(unborn, ignore_errors=True)
            raise

    def drop(self, instance_id: str, attempt: int) -> None:
        """Forget an attempt."""
        shutil.rmtree(self.attempt(instance_id, attempt), ignore_errors=True)

    def write_predictions(
        self, results: Mapping[tuple[str, int], Result], model: str, attempt: int
    ) -> None:
        """Write the predictions of one attempt of every instance. Raises ``OSError``."""
        name = "preds.json" if attempt == 1 else f"preds-{attempt}.json"
        data = {
            instance: {
                "instance_id": instance,
                "model_name_or_path": model,
                "model_patch": result.patch,
            }
            for (instance, number), result in results.items()
            if number == attempt
        }
        self.write(name, data)

    def predictions(self, attempt: int) -> dict[str, str]:
        """Return the patches of one attempt, by instance."""
        return {
            name: result.patch
            for (name, number), result in self.results().items()
            if number == attempt
        }

    def grades(self, name: str = "grades.json") -> dict[tuple[str, int], Verdict]:
        """Read the verdicts; empty before grading."""
        return {key: verdict for key, (verdict, _) in self.graded(name).items()}

    def graded(self, name: str = "grades.json") -> dict[tuple[str, int], tuple[Verdict, str]]:
        """Read each verdict with the hash of what was graded. Raises ``RunError``."""
        data = self._read(name).get("verdicts", [])
        found = {}
        try:
            for item in data:
                key, of = (item["instance_id"], item.pop("attempt")), item.pop("of", "")
                found[key] = Verdict(**item), of
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"{self.path / name} is damaged; remove it and grade again") from error
        return found

    def write_grades(
        self,
        grades: Mapping[tuple[str, int], Verdict],
        suite: str,
        *,
        of: Mapping[tuple[str, int], str] | None = None,
        name: str = "grades.json",
    ) -> None:
        """Keep the verdicts, with a hash of what was graded (``of``). Raises ``OSError``."""
        hashes = of or {}
        verdicts = [
            {**vars(verdict), "attempt": key[1], "of": hashes.get(key, "")}
            for key, verdict in grades.items()
        ]
        self.write(name, {"suite": suite, "graded": now(), "verdicts": verdicts})

    def write(self, name: str, data: Mapping[str, Any]) -> None:
        """Replace a file whole. Raises ``OSError``; the old one then still stands."""
        with write_whole(self.path / name) as draft:
            draft.write_bytes(_json(data))


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=1, ensure_ascii=True, default=str) + "\n").encode()


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
