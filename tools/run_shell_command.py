"""run_shell_command: one command in the session's bash, its output and its exit code."""

from __future__ import annotations

import shlex

from pydantic import Field, field_validator

from sandboxes.base import ExecResult
from tools.errors import ToolFailure
from tools.paths import locate_directory
from tools.schema import Parameters
from tools.truncate import clean_output, cut_middle
from tools.types import Observation, ToolContext, ToolSpec

MAX_TIMEOUT_S = 600.0
MAX_CHARACTERS = 30_000
_DURATION_SHOWN_FROM_S = 10.0
_START_TIMEOUT_S = 20.0


class RunShellCommandParameters(Parameters):
    """What run_shell_command takes. The time-out is in seconds."""

    command: str = Field(description="The bash command.")
    timeout: float | None = Field(
        default=None, description="Seconds (not milliseconds) to wait, at most 600."
    )
    directory: str | None = Field(
        default=None, description="Run in this directory of the repository, for this command only."
    )
    is_background: bool = Field(
        default=False, description="Start it and return at once (servers, watchers)."
    )

    @field_validator("timeout")
    @classmethod
    def _in_range(cls, timeout: float | None) -> float | None:
        if timeout is not None and not 0 < timeout <= MAX_TIMEOUT_S:
            raise ValueError(f"seconds, more than 0 and at most {MAX_TIMEOUT_S:g}")
        return timeout


def run(context: ToolContext, parameters: RunShellCommandParameters) -> Observation:
    """The cleaned output and how the command ended. ``ok`` means that it exited with code 0."""
    command = parameters.command
    if not command.strip():
        raise ToolFailure("The command is empty: give a bash command.")
    if "\0" in command:
        raise ToolFailure("The command has a null character in it, which bash cannot take.")
    if parameters.is_background:
        return _start(context, command, parameters.directory)
    if parameters.directory is not None:
        # A subshell, so that the session's own directory stays; eval, so that whatever the
        # command holds (comments, here-documents, a stray parenthesis) stays inside it.
        command = f"( {_enter(context, parameters.directory)} && eval {shlex.quote(command)} )"
    timeout_s = parameters.timeout or min(context.command_timeout_s, MAX_TIMEOUT_S)
    result = context.sandbox.shell().run(
        command,
        timeout_s=timeout_s,
        on_output=context.on_output,
        should_stop=context.should_stop,
    )
    return _report(context, result, timeout_s)


def _enter(context: ToolContext, directory: str) -> str:
    place = locate_directory(context.sandbox, directory)
    return f"cd -- {shlex.quote(context.sandbox.root + '/' + place.real)}"


def _report(context: ToolContext, result: ExecResult, timeout_s: float) -> Observation:
    output, cut = cut_middle(
        clean_output(result.output), MAX_CHARACTERS, already_dropped=result.dropped_bytes
    )
    body = output.rstrip("\n")
    ending = f"[{_ending(context, result, timeout_s)}]"
    text = f"{body}\n{ending}" if body else ending
    return Observation(text, ok=result.exit_code == 0, truncated=cut)


def _ending(context: ToolContext, result: ExecResult, timeout_s: float) -> str:
    if result.timed_out and result.duration_s >= timeout_s:
        return f"timed out after {timeout_s:g} s; its processes were killed"
    if result.shell_died:
        return (
            f"the shell ended; a new one starts in {context.sandbox.root}, "
            "without the variables set before"
        )
    if result.exit_code is None:
        return "stopped; its processes were killed"
    if result.duration_s >= _DURATION_SHOWN_FROM_S:
        return f"exit code {result.exit_code}, took {result.duration_s:.0f} s"
    return f"exit code {result.exit_code}"


def _start(context: ToolContext, command: str, directory: str | None) -> Observation:
    """Start ``command`` detached from the shell's input and output; say its pid and its file."""
    enter = f"{_enter(context, directory)} && " if directory is not None else ""
    start = (
        'log=$(mktemp "${TMPDIR:-/tmp}/background.XXXXXX") || exit; '
        f"{enter}{{ nohup bash -c {shlex.quote(command)} "
        '</dev/null >"$log" 2>&1 & printf "%s %s" "$!" "$log"; }'
    )
    result = context.sandbox.shell().run(f"( {start} )", timeout_s=_START_TIMEOUT_S)
    pid, _, log = result.output.strip().partition(" ")
    if result.exit_code != 0 or not pid.isdigit():
        output, _ = cut_middle(clean_output(result.output).rstrip("\n"), MAX_CHARACTERS)
        raise ToolFailure(f"The command could not be started in the background.\n{output}".rstrip())
    return Observation(
        f"Started in the background: pid {pid}, output in {log}. "
        f"Look with `cat {log}`, end it with `kill {pid}`."
    )


TOOL = ToolSpec(
    name="run_shell_command",
    description=(
        "Run a bash command in the repository and get its output (stdout and stderr together) "
        "and its exit code. All commands share one shell: directory and variables last. "
        "There is no terminal and no one to answer questions, so use non-interactive flags. "
        "A command that takes longer than its timeout is killed."
    ),
    parameters=RunShellCommandParameters,
    run=run,
    kind="command",
)
