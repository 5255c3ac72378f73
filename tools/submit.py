"""submit: the model says that it is done. Only a flag: the loop alone ends the run."""

from __future__ import annotations

from pydantic import Field

from tools.schema import Parameters
from tools.types import Observation, ToolContext, ToolSpec


class SubmitParameters(Parameters):
    """What submit takes."""

    summary: str = Field(default="", description="What was wrong and what you changed, briefly.")


def run(context: ToolContext, parameters: SubmitParameters) -> Observation:
    """Set the flag. Sees neither the workspace nor the summary."""
    return Observation("Submitted.", submitted=True)


TOOL = ToolSpec(
    name="submit",
    description=(
        "Hand in your work: the changes in the repository become the patch and the task ends. "
        "Call it once, alone, after you have checked that the change works."
    ),
    parameters=SubmitParameters,
    run=run,
    kind="session",
)
