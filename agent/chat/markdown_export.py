"""A conversation as a Markdown document."""

from __future__ import annotations

import json
from collections.abc import Sequence

from agent.text import fenced
from agent.types import Step


def conversation_as_markdown(session: str, steps: Sequence[Step]) -> str:
    """Return every step with its reasoning, words, calls and what they gave."""
    parts = [f"# Session {session}"]
    for step in steps:
        parts.append(f"## Step {step.index + 1}")
        if thought := (step.message.thinking).strip():
            parts.append("\n".join(f"> {line}" for line in thought.split("\n")))
        if step.message.content.strip():
            parts.append(step.message.content.strip())
        for call, seen in zip(step.message.tool_calls, step.observations, strict=False):
            arguments = json.dumps(dict(call.arguments), ensure_ascii=False, indent=1)
            parts.append(f"**{call.name}**\n\n{fenced(arguments)}\n\n{fenced(seen.text)}")
    return "\n\n".join(parts) + "\n"
