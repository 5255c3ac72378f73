"""shell_input: write to the input of a background process, and read its answer."""

from __future__ import annotations

from pydantic import Field, field_validator

from tools.errors import ToolFailure
from tools.schema import Parameters
from tools.shell.command_report import show_output
from tools.shell.run_shell_command import MAX_TIMEOUT_S
from tools.shell.shell_process import choose, tell
from tools.types import Observation, ToolContext, ToolSpec

MAX_INPUT = 60_000
_WAIT_S = 5.0


class ShellInputParameters(Parameters):
    """The parameters of shell_input. ``wait`` is in seconds."""

    input: str = Field(description="The text. A newline is put after it unless it ends with one.")
    id: str | None = Field(
        default=None,
        description="The pid of the background process. May be left out if only one is there.",
    )
    wait: float = Field(default=_WAIT_S, description="Seconds to wait for its answer, at most 600.")
    end: bool = Field(default=False, description="Close its input afterwards, like Ctrl-D.")

    @field_validator("wait")
    @classmethod
    def _in_range(cls, wait: float) -> float:
        if not 0 <= wait <= MAX_TIMEOUT_S:
            raise ValueError(f"seconds, from 0 to {MAX_TIMEOUT_S:g}")
        return wait


def run(context: ToolContext, parameters: ShellInputParameters) -> Observation:
    """Write the input. Returns what the process printed in answer."""
    text = parameters.input
    if "\0" in text:
        raise ToolFailure("The input has a null character in it, which cannot be given.")
    if len(text) > MAX_INPUT:
        raise ToolFailure(f"The input is longer than {MAX_INPUT:,} characters: give it in parts.")
    if not text.endswith("\n") and not (parameters.end and not text):
        text += "\n"
    process = choose(context, parameters.id)
    if process is None:
        raise ToolFailure(
            "The command in the shell has no input: stop it with shell_process and start it with "
            "is_background."
        )
    processes = context.processes()
    before = processes.state(process)
    if not before.running:
        return tell(context, process, before)
    # What it printed before is no answer.
    earlier, _ = show_output(processes.output(process))
    if not processes.write(process, text, end=parameters.end):
        raise ToolFailure("The process does not take input now.")
    state = processes.wait(process, parameters.wait, for_answer=True, stop=context.stop)
    seen = tell(context, process, state)
    return Observation(
        f"{earlier}\n{seen.text}" if earlier else seen.text, truncated=seen.truncated
    )


TOOL = ToolSpec(
    name="shell_input",
    description="Write to the standard input of a process started with is_background.",
    parameters=ShellInputParameters,
    run=run,
    kind="command",
)
