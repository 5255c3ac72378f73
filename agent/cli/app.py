"""The commands put together, and what becomes of their errors: one line and an exit code."""

from __future__ import annotations

from importlib import metadata
from itertools import pairwise
from typing import Annotated, Any

import typer

from agent import version
from agent.cli import (
    acp,
    cache,
    chat,
    doctor,
    model,
    prove,
    resume,
    sandbox,
    sessions,
    setup,
    shell_completion,
    solve,
)
from agent.cli.failure import tell
from agent.cli.help import Commands
from agent.cli.output import Output, write_err, write_out
from agent.cli.printing import print_error
from agent.cli.quick_chat import with_chat
from agent.text import visible

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = Commands(
    name="agent",
    help="A coding agent whose model runs in the same process as its loop.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="chat")(chat.chat)
app.command(name="solve")(solve.solve)
app.command(name="resume")(resume.resume)
app.command(name="fork")(resume.fork)
app.command(name="rewind")(resume.rewind)
app.command(name="doctor")(doctor.doctor)
app.command(name="setup")(setup.setup)
app.command(name="prove")(prove.prove)
app.command(name="acp")(acp.acp)
app.command(name="completion")(shell_completion.completion)
app.add_typer(sessions.app, name="sessions")
app.add_typer(model.app, name="model")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(cache.app, name="cache")

ADDED = "tenuto.commands"
"""The entry points under which packages that stand above this one add commands."""


def added_commands() -> dict[str, Any]:
    """Return the commands that other packages of this distribution add: by name, group or function.

    Only our own distribution is asked: what else is installed adds nothing. Empty in a plain clone
    that was never installed.
    """
    try:
        points = metadata.distribution("tenuto").entry_points.select(group=ADDED)
    except metadata.PackageNotFoundError:
        return {}
    return {point.name: point.load() for point in points}


for _name, _command in added_commands().items():
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name=_name)
    else:
        app.command(name=_name)(_command)


def _version(asked: bool) -> None:
    if asked:
        write_out(f"tenuto {version()}\n")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Run a coding agent whose model runs in the same process as its loop."""


def call(arguments: list[str]) -> int:
    """Run one command line and return its exit code. Nothing is raised."""
    shell_completion.answer_shells()
    try:
        code = app(with_chat(arguments), prog_name="agent", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except _UsageError as error:
        format_message = getattr(error, "format_message", error.__str__)
        message = " ".join(str(format_message()).split())
        exit_code = int(getattr(error, "exit_code", 2))
        context = getattr(error, "ctx", None)
        if context is not None and type(error).__name__ == "NoArgsIsHelpError":
            write_out(f"{context.get_help()}\n")
            return exit_code
        command = context.command_path if context is not None else "agent"
        write_err(f"error: {visible(message)} (see {command} --help)\n")
        if (output := _wanted_output(arguments)) is not None:
            print_error(visible(message), exit_code, {"model": None, "sandbox": None}, output)
        return exit_code
    except typer.Abort:
        return tell(KeyboardInterrupt()).exit_code
    except BrokenPipeError:
        write_out("")
        return 0
    except (Exception, KeyboardInterrupt) as error:
        return tell(error).exit_code


def _wanted_output(arguments: list[str]) -> Output | None:
    """Return the JSON output that a command line asks for which could not be read as a whole."""
    if arguments[:1] not in (["solve"], ["resume"], ["fork"]):
        return None
    named = [
        *(word.partition("=")[2] for word in arguments if word.startswith("--output=")),
        *(after for word, after in pairwise(arguments) if word in ("--output", "-o")),
    ]
    wanted = [word for word in named if word in (Output.JSON, Output.STREAM_JSON)]
    return Output(wanted[-1]) if wanted else None
