"""Graded by what the attempt left in its container."""

from __future__ import annotations

import base64
from typing import Any

from claw_eval.graders.base import AbstractGrader
from claw_eval.models.trace import DimensionScores


class HiddenGrader(AbstractGrader):
    """Wants the hidden check to pass, and the file to hold the truth."""

    def grade(
        self, messages: Any, dispatches: Any, task: Any, audit_data: Any, env_snapshot: Any
    ) -> DimensionScores:
        """Return the scores."""
        truth = base64.b64decode(env_snapshot["local_file:fixtures/truth.txt"]["content"]).decode()
        second = env_snapshot["cmd:echo no >&2; exit 3"]
        assert (second["exit_code"], second["stdout"], second["stderr"]) == (3, "", "no\n")
        assert "error" in env_snapshot["file:/workspace/none.txt"]
        passed = env_snapshot["cmd:python /workspace/fixtures/verify.py"]["stdout"] == "right"
        found = env_snapshot.get("file:/workspace/sum.txt", {}).get("content", "")
        called = any(item.tool_name == "Bash" for item in dispatches)
        done = passed and found.strip() == truth.strip() and called
        return DimensionScores(completion=float(done), robustness=float(done))
