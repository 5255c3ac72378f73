"""The first prompt's overview of a repository: its own notes to agents, and a map of its code.

Both are the same for every task in it, so that the state after them can be stored and used again
(``agent.sessions.prefix_cache``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.loading import LoadedModel
from agent.loop.agents_md import first_notes
from agent.settings.extensions import Extension, skill_lines
from agent.settings.table import Settings
from sandboxes.base import Sandbox
from sandboxes.stop import Stop
from tools import repo_map
from tools.errors import ToolFailure
from tools.profiles.profile import load_profile
from tools.types import ToolContext

ROOMY_CONTEXT = 32_768
"""A model with less room than this, in tokens, gets no map unless it is asked for."""

DEFAULT_TOKENS = 1024
SKILLS = "Skills of the repository. Before work that one is for, read its file and follow it:"
OWN_SKILLS = "Skills of the user. Before work that one is for, read it with `skill` and follow it:"
INTRODUCTION = "The most referenced code of the repository (repo_map shows more, or one part):"


def is_roomy(model: LoadedModel) -> bool:
    """Return whether the model has room for more than the task and its work."""
    return model.engine.context_length >= ROOMY_CONTEXT


def overview(
    repo: Path,
    sandbox: Sandbox,
    settings: Settings,
    model: LoadedModel,
    stop: Stop | None = None,
    own: Sequence[Extension] = (),
) -> str:
    """Return the words of the tool profile, the notes, skills and the map of ``repo``; maybe "".

    The map is not weighted by the task. A repository that cannot be mapped gets none. Skills are a
    line each, and like the map only for a model with room; ``own`` are those of the user.
    """
    parts = [load_profile(settings.tools).prompt, first_notes(repo)]
    tokens = settings.map_tokens
    roomy = is_roomy(model)
    if roomy and (skills := skill_lines(repo)):
        parts.append("\n".join([SKILLS, *skills]))
    if roomy and own:
        parts.append("\n".join([OWN_SKILLS, *(f"- {one.name}: {one.description}" for one in own)]))
    if tokens is None:
        tokens = DEFAULT_TOKENS if roomy else 0
    if tokens:
        context = ToolContext(sandbox, stop=stop or Stop(), count_tokens=model.chat.count_tokens)
        try:
            if drawn := repo_map.draw(context, ".", tokens):
                parts.append(f"{INTRODUCTION}\n\n{drawn.text}")
        except (ToolFailure, OSError):
            pass  # the tools will say what is wrong, if they are asked
    return "\n\n".join(part for part in parts if part)
