"""The judge that graders ask: it asks again while it can make nothing of the answer."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any


class LLMJudge:
    """Asks an OpenAI-compatible client."""

    def __init__(self, model_id: str, api_key: str, base_url: str) -> None:
        self.model_id, self.client = model_id, None
        self.log: list[dict[str, Any]] = []

    def evaluate(self, prompt: str, talk: str, actions: str, rubric: str) -> Any:
        """Return an object with the ``score``; None after thirty tries."""
        asked = [{"role": "user", "content": f"{prompt}\n{talk}\n{actions}\n{rubric}"}]
        for _ in range(30):
            try:
                said = self.client.chat.completions.create(  # type: ignore[attr-defined]
                    model=self.model_id, messages=asked, temperature=0.0, max_tokens=100
                )
                score = float(json.loads(said.choices[0].message.content)["score"])
            except Exception:
                continue
            self.log.append({"score": score})
            return SimpleNamespace(score=score)
        return None

    def get_call_log(self) -> list[dict[str, Any]]:
        """Return what was judged."""
        return self.log
