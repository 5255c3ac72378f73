"""A suite of one's own, in one file: `agent eval run examples/suite_adapter.py --dataset FOLDER`.

This one takes folders like those of benchmarks that ask for a whole program from a document:

    FOLDER/NAME/prompt.md      what the model is told
    FOLDER/NAME/start/         files to begin with (may be missing: an empty repository)
    FOLDER/NAME/tests/         hidden from the model; copied beside the program for grading
    FOLDER/NAME/tests/run.sh   exit code 0 means solved

The contract is `evals/suites/suite.py`: `load` reads the tasks, `place` lays one out, `grade` says
what a patch is worth.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from evals.suites.dataset import unique
from evals.errors import DatasetError
from evals.suites.images import begin_repository
from evals.instance import Instance, TaskPlace
from evals.suites.suite import grade_each, run_check


class FromDocument:
    name = "from-document"

    def load(self, dataset):
        if dataset is None or not Path(dataset).is_dir():
            raise DatasetError("give --dataset FOLDER")
        found = []
        for prompt in sorted(Path(dataset).resolve().glob("*/prompt.md")):
            if not (prompt.parent / "tests" / "run.sh").is_file():
                raise DatasetError(f"{prompt.parent} has no tests/run.sh, which grading needs")
            text = prompt.read_text("utf-8")
            row = {"folder": str(prompt.parent), "prompt": text}
            found.append(Instance(prompt.parent.name, text, row=row))
        return unique(found)

    @contextmanager
    def place(self, instance, machine):
        with tempfile.TemporaryDirectory(prefix="tenuto-suite-") as name:
            repo = Path(name) / "repo"
            start = Path(instance.row["folder"]) / "start"
            shutil.copytree(start, repo) if start.is_dir() else repo.mkdir()
            begin_repository(repo)
            yield TaskPlace(repo)

    def grade(self, instances, patches, machine, *, folder, workers=1):
        def one(instance, patch):
            tests = Path(instance.row["folder"]) / "tests"
            files = {
                f"tests/{path.relative_to(tests)}": path.read_text("utf-8")
                for path in tests.rglob("*")
                if path.is_file()
            }
            with self.place(instance, machine) as place:
                return run_check(
                    instance.id, place, patch, "bash tests/run.sh", machine, restore=files
                )

        return grade_each(one, instances, patches, workers)


SUITE = FromDocument()
