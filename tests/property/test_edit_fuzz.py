"""A small run of benchmarks/edits.py: no wrong content and no exception."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.edits import fuzz

CALLS = int(os.environ.get("TENUTO_FUZZ", "160"))


@pytest.mark.parametrize("seed", [1, 2])
def test_generated_edits_and_patches(seed: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    report = fuzz(CALLS, seed)
    assert report.wrong == []
    counts = report.counts
    assert counts["calls"] == CALLS
    # Most must have been done, not refused.
    assert counts["edit: made"] > 20
    assert counts["diff: as the model"] > 20
    assert counts["envelope: as the model"] > 10
