"""run_shell_command: run one command in the session's bash."""

from __future__ import annotations

import shlex

from pydantic import Field, field_validator

from sandboxes.base import Shell
from sandboxes.shell.background import BackgroundProcess
from tools.errors import ToolFailure
from tools.files.places import locate_directory
from tools.schema import Parameters
from tools.shell.command_report import MAX_CHARACTERS, observe, show_output
from tools.types import Observation, ToolContext, ToolSpec

MAX_TIMEOUT_S = 600.0
SHOWN_COMMAND = 80


class RunShellCommandParameters(Parameters):
    """The parameters of run_shell_command. The time-out is in seconds."""

    command: str = Field(description="The bash command.")
    timeout: float | None = Field(
        default=None, description="Seconds (not milliseconds) to wait, at most 600."
    )
    directory: str | None = Field(
        default=None, description="Run in this directory of the repository, for this command only."
    )
    is_background: bool = Field(
        default=False,
        description="Start it and return at once (servers, watchers, programs that want input).",
    )

    @field_validator("timeout")
    @classmethod
    def _in_range(cls, timeout: float | None) -> float | None:
        if timeout is not None and not 0 < timeout <= MAX_TIMEOUT_S:
            raise ValueError(f"seconds, more than 0 and at most {MAX_TIMEOUT_S:g}")
        return timeout


def run(context: ToolContext, parameters: RunShellCommandParameters) -> Observation:
    """Run the command and report it. ``ok`` means that it exited with code 0."""
    command = parameters.command
    if not command.strip():
        raise ToolFailure("The command is empty: give a bash command.")
    if "\0" in command:
        raise ToolFailure("The command has a null character in it, which bash cannot take.")
    shell = context.sandbox.shell()
    before = _report_ended(context, shell)
    if parameters.is_background:
        return _prepend(before, _start(context, command, parameters.directory))
    if parameters.directory is not None:
        # A subshell, so that the session's own directory stays; eval, so that whatever the
        # command holds (comments, here-documents, a stray parenthesis) stays inside it.
        command = f"( {_enter(context, parameters.directory)} && eval {shlex.quote(command)} )"
    timeout_s = parameters.timeout or min(context.command_timeout_s, MAX_TIMEOUT_S)
    result = shell.run(
        command,
        timeout_s=timeout_s,
        # Who gives a time-out says how long the command may well be silent.
        silence_s=context.silence_s if parameters.timeout is None else None,
        save_over=MAX_CHARACTERS,
        on_output=context.on_output,
        stop=context.stop,
    )
    return _prepend(before, observe(result, context.sandbox.root, timeout_s))


def _enter(context: ToolContext, directory: str) -> str:
    place = locate_directory(context.sandbox, directory)
    return f"cd -- {shlex.quote(context.sandbox.root + '/' + place.real)}"


def _report_ended(context: ToolContext, shell: Shell) -> str:
    """Report first on a command that was left running and has ended.

    Raises ``ToolFailure`` if it still runs: the shell takes no other one until then.
    """
    if (running := shell.running()) is None:
        return ""
    result = shell.wait(timeout_s=0)
    shown = shorten(running.command)
    if not result.running:
        said = observe(result, context.sandbox.root, float("inf")).text
        return f"The command left running, `{shown}`, has ended:\n{said}\n\n"
    printed, _ = show_output(result)
    news = f" It printed since:\n{printed}" if printed else ""
    raise ToolFailure(
        f"The shell is busy: `{shown}` has been running for {running.elapsed_s:.0f} s. Wait for it "
        "with shell_process (action read), or interrupt or stop it there; next time start what "
        f"runs on with is_background.{news}"
    )


def _prepend(before: str, seen: Observation) -> Observation:
    return Observation(before + seen.text, seen.ok, seen.truncated) if before else seen


def _start(context: ToolContext, command: str, directory: str | None) -> Observation:
    """Start ``command`` beside the shell. The observation has its id and where its output goes."""
    enter = f"{_enter(context, directory)} || exit\n" if directory is not None else ""
    started = context.processes().start(command, enter)
    if not isinstance(started, BackgroundProcess):
        output, _ = show_output(started)
        raise ToolFailure(f"The command could not be started in the background.\n{output}".rstrip())
    return Observation(
        f"Started in the background: pid {started.id}, output in {started.log}. "
        "Read it, wait for it, interrupt or stop it with shell_process; give it input with "
        "shell_input."
    )


def shorten(command: str) -> str:
    """Return the command's first line, cut if it is long."""
    line = command.strip().split("\n", 1)[0]
    more = line != command.strip() or len(line) > SHOWN_COMMAND
    return line[:SHOWN_COMMAND] + (" ..." if more else "")


TOOL = ToolSpec(
    name="run_shell_command",
    description=(
        "Run a bash command in the repository and get its output (stdout and stderr together) "
        "and its exit code. All commands share one shell: directory and variables last. "
        "There is no terminal and no one to answer questions, so use non-interactive flags. "
        "A command that takes longer than its timeout is killed. Without a timeout given, one that "
        "prints nothing for a minute is left running: go on with shell_process."
    ),
    parameters=RunShellCommandParameters,
    run=run,
    kind="command",
)
