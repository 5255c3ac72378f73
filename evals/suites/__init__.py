"""The suites by name, and those that a file of the user's defines."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from evals.errors import DatasetError
from evals.suites.claw.claw_eval import ClawEval
from evals.suites.nl2repo import Nl2Repo
from evals.suites.repair import Repair
from evals.suites.skillsbench import SkillsBench
from evals.suites.suite import Suite
from evals.suites.swebench import SweBench
from evals.suites.swebench_pro import SweBenchPro
from evals.suites.tasks import Tasks
from evals.suites.terminal_bench import TerminalBench

_ALL: tuple[Suite, ...] = (
    *(SweBench(), SweBenchPro(), TerminalBench()),
    *(SkillsBench(), SkillsBench(with_skills=False)),
    *(Nl2Repo(), ClawEval(), Repair(), Tasks()),
)
SUITES: dict[str, Suite] = {suite.name: suite for suite in _ALL}


def find_suite(name: str) -> Suite:
    """Find a suite by its name or its Python file. Raises ``DatasetError``."""
    if name in SUITES:
        return SUITES[name]
    path = Path(name)
    if path.suffix != ".py":
        raise DatasetError(f"there is no suite {name!r}; use {', '.join(SUITES)}, or a .py file")
    if not path.is_file():
        raise DatasetError(f"the suite {name} does not exist")
    spec = importlib.util.spec_from_file_location(f"tenuto_suite_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise DatasetError(f"the suite {name} cannot be loaded: {error}") from error
    suite: Suite | None = getattr(module, "SUITE", None)
    if suite is None:
        raise DatasetError(f"the suite {name} defines no SUITE; see evals/suites/suite.py")
    for part in ("load", "place", "grade"):
        if not callable(getattr(suite, part, None)):
            raise DatasetError(f"the SUITE of {name} has no {part}(); see evals/suites/suite.py")
    return suite
