"""The turns of a model that repairs an example repository: read, edit, check, submit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks.support.trajectory import turn
from evals.suites.repair import CHECK, EXAMPLES, example_rows


def repairs() -> dict[str, tuple[str, list[str]]]:
    """For each example its issue text and the turns, as a model writes them."""
    fixes = json.loads((EXAMPLES / "fixes.json").read_text())
    return {
        row["instance_id"]: (row["issue"], _turns(row, fixes[row["instance_id"]]))
        for row in example_rows()
    }


def _turns(row: Mapping[str, Any], fix: Mapping[str, str]) -> list[str]:
    path, wrong, right = row["path"], fix["wrong"], fix["right"]
    said = (
        (
            f"The issue is about {path}, and the check runs {row['test_path']}. I read the module "
            "whole before I change anything: the line that is wrong need not be in the function "
            "that the issue names.",
            ("read_file", {"file_path": path}),
        ),
        (
            f"It is `{wrong.strip()}`. With the values of the issue this takes the wrong branch or "
            f"the wrong element, which is just what was reported. It has to be `{right.strip()}`. "
            "The rest of the function does not depend on it, so one replacement is enough, and "
            "the tests stay as they are.",
            ("edit", {"file_path": path, "old_string": wrong, "new_string": right}),
        ),
        (
            "Now the check, to see that the test of the issue passes and that no other one fails.",
            ("run_shell_command", {"command": f"{CHECK} | sed 's/ in [0-9.]*s//'"}),
        ),
        (
            "All tests pass, and the change is the one line that the issue is about.",
            ("submit", {"summary": f"{path}: {right.strip()} in place of {wrong.strip()}"}),
        ),
    )
    return [turn(thought, call) + "<|im_end|>" for thought, call in said]
