"""Graded by the desk's audit, the calls and the answer."""

from __future__ import annotations

from typing import Any

from claw_eval.graders.base import AbstractGrader
from claw_eval.models.trace import DimensionScores


class CloseGrader(AbstractGrader):
    """Wants the right ticket closed and named, and every failed call made good."""

    def grade(self, messages: Any, dispatches: Any, task: Any, audit_data: Any) -> DimensionScores:
        """Return the scores."""
        if audit_data["desk"]["closed"] != ["T-1"]:
            return DimensionScores()
        named = "T-1" in messages[-1].message.text
        status = {item.tool_name: item.response_status for item in dispatches}
        recovered = all(code < 400 for code in status.values())
        return DimensionScores(completion=0.5 + 0.5 * named, robustness=float(recovered))
