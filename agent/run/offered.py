"""The tools that a session offers beside those of its profile, where they are of use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from agent.loading import LoadedModel
from agent.loop.overview import is_roomy
from agent.settings.extensions import Extension
from tools import screenshot
from tools.errors import ToolFailure
from tools.schema import Parameters
from tools.types import Observation, ToolContext, ToolSpec


class SkillParameters(Parameters):
    """The parameter of skill."""

    name: str = Field(description="The skill's name.")


def offered(model: LoadedModel, own: Sequence[Extension]) -> tuple[ToolSpec, ...]:
    """Return ``screenshot`` for a model with eyes, and ``skill`` for the user's ``own`` skills.

    Skills are for a model with room alone, as the overview tells of them (``agent.loop.overview``).
    """
    tools = (screenshot.TOOL,) if model.chat.sees else ()
    skills = {one.name: one for one in own} if is_roomy(model) else {}
    return (*tools, skill_tool(skills)) if skills else tools


def skill_tool(skills: Mapping[str, Extension]) -> ToolSpec:
    """Return the tool that reads one of the user's skills: their files lie outside the sandbox."""

    def run(context: ToolContext, parameters: SkillParameters) -> Observation:
        found = skills.get(parameters.name.strip().lower())
        if found is None:
            names = ", ".join(skills)
            raise ToolFailure(
                f"There is no skill {parameters.name!r:.80}. The skills are: {names}."
            )
        return Observation(found.text or "[empty skill]")

    return ToolSpec(
        name="skill",
        description="Read one of the user's skills: how work of its kind is to be done.",
        parameters=SkillParameters,
        run=run,
        kind="session",
    )
