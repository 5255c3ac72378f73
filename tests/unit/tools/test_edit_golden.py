"""Each folder of tests/golden/edit is one call: the files before and after, and what was said.

A folder without ``after`` is a call that must fail and change nothing. ``ROOT`` in an observation
stands for the workspace's path.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[2] / "golden" / "edit"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_cases_are_there() -> None:
    assert len(CASES) >= 45


@pytest.mark.parametrize("name", CASES)
def test_edit_case(name: str, bench) -> None:
    case = GOLDEN / name
    shutil.copytree(case / "before", bench.root, dirs_exist_ok=True)

    observation = bench("edit", **json.loads((case / "call.json").read_text()))

    said = observation.text.replace(str(bench.root), "ROOT") + "\n"
    assert said == (case / "observation.txt").read_text()
    succeeds = (case / "after").is_dir()
    assert observation.ok is succeeds
    assert files_of(bench.root) == files_of(case / ("after" if succeeds else "before"))
