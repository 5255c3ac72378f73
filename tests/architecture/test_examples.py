"""Each example has one wrong line: its test fails, and passes once that line is put right."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT


@dataclass(frozen=True)
class Fix:
    """The line that is wrong in an example and the line that belongs there."""

    example: str
    wrong: str
    right: str


FIXES = tuple(
    Fix(name, fix["wrong"], fix["right"])
    for name, fix in json.loads((ROOT / "examples" / "fixes.json").read_text("utf-8")).items()
)
ISSUE = re.compile(r"`(\w+)` in `(\w+\.py)` is wrong: `\1\(.*\)` returns .+, expected .+\.\n")


CALL_TESTS = """\
import sys
sys.path.insert(0, "")
module = __import__(sys.argv[1])
for name in [name for name in vars(module) if name.startswith("test_")]:
    vars(module)[name]()
"""


def run_tests(folder: Path) -> int:
    """Call every test function of the example; return 0 if none failed, else 1."""
    (file,) = folder.glob("test_*.py")
    command = [sys.executable, "-B", "-c", CALL_TESTS, file.stem]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode


def test_every_example_has_a_fix_here() -> None:
    folders = {path.parent.name for path in (ROOT / "examples").glob("*/ISSUE.md")}
    assert folders == {fix.example for fix in FIXES}


@pytest.mark.parametrize("fix", FIXES, ids=lambda fix: fix.example)
def test_the_one_wrong_line_is_all_that_is_wrong(fix: Fix, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    made = subprocess.run(
        [ROOT / "scripts" / "example", fix.example, copy], capture_output=True, check=False
    )
    assert made.returncode == 0, made.stderr
    issue = ISSUE.fullmatch((copy / "ISSUE.md").read_text("utf-8"))
    assert issue is not None
    function, file = issue.groups()
    source = (copy / file).read_text("utf-8")
    assert f"def {function}(" in source
    assert source.count(fix.wrong) == 1
    assert run_tests(copy) == 1
    (copy / file).write_text(source.replace(fix.wrong, fix.right), "utf-8")
    assert run_tests(copy) == 0


def test_an_unknown_example_is_refused_in_one_line(tmp_path: Path) -> None:
    made = subprocess.run(
        [ROOT / "scripts" / "example", "nonsense", tmp_path / "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 2
    assert made.stderr.startswith("error: no example 'nonsense'; there are: ")
    assert not (tmp_path / "x").exists()
