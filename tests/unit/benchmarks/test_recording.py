"""Records of benchmarks carry their machine and versions, and benchmarks are started one way."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from benchmarks.support import recording

BENCHMARKS = Path(recording.__file__).parents[1]
RECORDS = sorted(recording.RESULTS.glob("*.json"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_record_says_its_date_machine_and_versions(path: Path) -> None:
    data = json.loads(path.read_text())
    entries = [data]
    if "date" not in data:
        entries = [entry for entry in data.values() if isinstance(entry, dict)]
    for entry in entries:
        assert [key for key in recording.NEEDED if not entry.get(key)] == []


@pytest.mark.parametrize("missing", recording.NEEDED)
def test_a_result_without_machine_or_versions_is_not_written(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "RESULTS", tmp_path)
    result = recording.machine() | {"seconds": 1.0}
    with pytest.raises(ValueError, match=f"the record one lacks {missing}"):
        recording.record("one", {key: value for key, value in result.items() if key != missing})
    assert list(tmp_path.iterdir()) == []


def test_an_entry_is_written_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "RESULTS", tmp_path)
    for name in ("first", "second"):
        recording.record("two", recording.machine(docker="1.2") | {"name": name}, under=name)
    found = recording.read("two")
    assert [found[name]["name"] for name in found] == ["first", "second"]
    assert found["first"]["versions"]["docker"] == "1.2"


def test_benchmarks_are_modules_that_change_no_path_and_write_no_record_themselves() -> None:
    for path in BENCHMARKS.rglob("*.py"):
        text = path.read_text()
        assert "sys.path" not in text, path
        if path.name != "recording.py":
            names = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
            assert "RESULTS" not in names, path
