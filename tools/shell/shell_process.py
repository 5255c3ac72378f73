"""shell_process: look at, wait for, interrupt or stop what was left running."""

from __future__ import annotations

import re
import time
from typing import Literal

from pydantic import Field, field_validator

from sandboxes.shell.background import BackgroundProcess, ProcessState
from tools.errors import ToolFailure
from tools.schema import Parameters
from tools.shell.command_report import observe, show_output
from tools.shell.run_shell_command import MAX_TIMEOUT_S, shorten
from tools.types import Observation, ToolContext, ToolSpec

SHELL = "shell"
_PID = re.compile(r"\d{1,9}", re.ASCII)
_INTERRUPT_WAIT_S = 3.0


class ShellProcessParameters(Parameters):
    """The parameters of shell_process. ``wait`` is in seconds."""

    action: Literal["list", "read", "interrupt", "stop"] = Field(
        description=(
            "list: all that was left running. read: what it printed since the last read, and "
            "whether it ended. interrupt: Ctrl-C. stop: end it and what it started."
        )
    )
    id: str | None = Field(
        default=None,
        description=(
            "The pid of a background process, or 'shell' for the command in the shell. May be left "
            "out if only one is there."
        ),
    )
    wait: float | None = Field(
        default=None, description="For read: seconds to wait for its end, at most 600."
    )

    @field_validator("wait")
    @classmethod
    def _in_range(cls, wait: float | None) -> float | None:
        if wait is not None and not 0 <= wait <= MAX_TIMEOUT_S:
            raise ValueError(f"seconds, from 0 to {MAX_TIMEOUT_S:g}")
        return wait


def run(context: ToolContext, parameters: ShellProcessParameters) -> Observation:
    """List the processes, or act on one and report it."""
    if parameters.action == "list":
        return Observation("\n".join(_list(context)) or "Nothing is running.")
    target = choose(context, parameters.id)
    if target is None:
        return _act_on_shell(context, parameters)
    return _act_on_process(context, target, parameters)


def choose(context: ToolContext, wanted: str | None) -> BackgroundProcess | None:
    """Choose the process that ``wanted`` names; None for the command in the shell.

    Raises ``ToolFailure`` if there is none, or several and none is named.
    """
    processes = context.processes()
    busy = context.sandbox.shell().running() is not None
    if wanted is None:
        living = [p for p in processes.all() if processes.state(p).running]
        if busy and not living:
            return None
        if not busy and len(living) == 1:
            return living[0]
        if not busy and not living and len(processes.all()) == 1:
            return processes.all()[0]
        if not busy and not living:
            raise ToolFailure("Nothing is running.")
        raise ToolFailure("More than one is running, give an id:\n" + "\n".join(_list(context)))
    if wanted.strip().lower() == SHELL:
        if not busy:
            raise ToolFailure("No command is running in the shell.")
        return None
    found = processes.get(int(wanted)) if _PID.fullmatch(wanted.strip()) else None
    if found is None:
        listed = _list(context)
        known = "These were started:\n" + "\n".join(listed) if listed else "None was started."
        raise ToolFailure(f"There is no background process {wanted[:80]}. {known}")
    return found


def tell(context: ToolContext, process: BackgroundProcess, state: ProcessState) -> Observation:
    """Report what ``process`` printed since the last time, and whether it runs."""
    body, cut = show_output(context.processes().output(process))
    if cut:
        body += f"\n[all of it is in {process.log}]"
    ending = f"[{_describe(process, state)}]"
    return Observation(f"{body}\n{ending}" if body else ending, truncated=cut)


def _act_on_shell(context: ToolContext, parameters: ShellProcessParameters) -> Observation:
    shell = context.sandbox.shell()
    if parameters.action == "stop":
        result = shell.stop()
    else:
        wait_s = parameters.wait or 0.0
        if parameters.action == "interrupt":
            shell.interrupt()
            wait_s = _INTERRUPT_WAIT_S
        result = shell.wait(timeout_s=wait_s, on_output=context.on_output, stop=context.stop)
    # No time-out of a command applies to what is only waited for.
    seen = observe(result, context.sandbox.root, float("inf"))
    return Observation(seen.text, ok=result.running or seen.ok, truncated=seen.truncated)


def _act_on_process(
    context: ToolContext, process: BackgroundProcess, parameters: ShellProcessParameters
) -> Observation:
    processes = context.processes()
    if parameters.action == "stop":
        state = processes.stop(process)
    elif parameters.action == "interrupt":
        processes.interrupt(process)
        state = processes.wait(process, _INTERRUPT_WAIT_S)
    else:
        state = processes.wait(process, parameters.wait or 0.0, stop=context.stop)
    return tell(context, process, state)


def _list(context: ToolContext) -> list[str]:
    lines = []
    if (running := context.sandbox.shell().running()) is not None:
        silent = f", silent for {running.silent_s:.0f} s"
        lines.append(
            f"shell: `{shorten(running.command)}`, running for {running.elapsed_s:.0f} s{silent}"
        )
    processes = context.processes()
    for process in processes.all():
        how = _describe(process, processes.state(process))
        lines.append(f"{process.id}: `{shorten(process.command)}`, {how}, output in {process.log}")
    return lines


def _describe(process: BackgroundProcess, state: ProcessState) -> str:
    if state.running:
        return f"running for {time.monotonic() - process.began:.0f} s"
    if state.exit_code is None:
        return "ended: killed"
    if state.exit_code > 128:
        return f"ended with exit code {state.exit_code} (signal {state.exit_code - 128})"
    return f"ended with exit code {state.exit_code}"


TOOL = ToolSpec(
    name="shell_process",
    description=(
        "Look after what was left running: background processes, and a command that the shell "
        "still runs."
    ),
    parameters=ShellProcessParameters,
    run=run,
    kind="session",
)
