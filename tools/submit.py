"""submit: note that the model is done. Only a flag; the loop alone ends the run."""

from __future__ import annotations

from pydantic import Field

from tools.schema import Parameters
from tools.types import Observation, ToolContext, ToolSpec


class SubmitParameters(Parameters):
    """The parameters of submit."""

    summary: str = Field(default="", description="What was wrong and what you changed, briefly.")


def run(context: ToolContext, parameters: SubmitParameters) -> Observation:
    """Set the flag."""
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
