"""JSON Lines are parted at line feeds alone, and a byte-order mark is passed over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evals.grade import read_predictions
from evals.suites.dataset import read_rows

TEXT = "x\u2028y\u2029z \x85 end"


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_rows_and_predictions(tmp_path: Path, suffix: str, mark: str) -> None:
    path = tmp_path / f"file{suffix}"

    def write(row: dict[str, str]) -> None:
        data = json.dumps(row if suffix == ".jsonl" else [row], ensure_ascii=False)
        path.write_text(f"{mark}{data}\n", "utf-8")

    write({"instance_id": "a__b-1", "repo": "a/b", "problem_statement": TEXT})
    assert [row["problem_statement"] for row in read_rows(str(path))] == [TEXT]
    write({"instance_id": "a__b-1", "model_name_or_path": "m", "model_patch": f"+{TEXT}\n"})
    assert read_predictions(path, {"a__b-1"}, "m") == {"a__b-1": f"+{TEXT}\n"}
