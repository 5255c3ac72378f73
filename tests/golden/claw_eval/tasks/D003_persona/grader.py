"""Graded by a judge, which a failure of must not make a 0 of."""

from __future__ import annotations

from typing import Any

from claw_eval.graders.base import AbstractGrader
from claw_eval.models.trace import DimensionScores


class PersonaGrader(AbstractGrader):
    """Asks the judge about the last answer, if the user spoke once."""

    def grade(
        self, messages: Any, dispatches: Any, task: Any, audit_data: Any, judge: Any
    ) -> DimensionScores:
        """Return the scores."""
        words = [item.message.text for item in messages if item.message.role == "user"]
        try:
            found = judge.evaluate(task.prompt["text"], messages[-1].message.text, "", "Is it tea?")
            score = found.score
        except Exception:
            score = 0.0
        spoke = len(words) == 2 and words[1].startswith("[user_agent]")
        return DimensionScores(completion=score * spoke, robustness=1.0)
