"""The command line: ``agent``. Reads flags, calls the commands, and lets no traceback through."""

from __future__ import annotations

import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from agent.commands import doctor, model, sandbox, sessions, solve
from agent.errors import BrokenInstall
from agent.failure import tell
from agent.output import visible, write_err, write_out

SIBLINGS = ("model", "kernels", "tools", "sandboxes")
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="agent",
    help="A coding agent whose model runs in the same process as its loop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="solve")(solve.solve)
app.command(name="doctor")(doctor.doctor)
app.add_typer(sessions.app, name="sessions")
app.add_typer(model.app, name="model")
app.add_typer(sandbox.app, name="sandbox")


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
    """A coding agent whose model runs in the same process as its loop."""


def version() -> str:
    """The installed version, or ``unknown`` in a plain clone that was never installed."""
    try:
        return metadata.version("tenuto")
    except metadata.PackageNotFoundError:
        return "unknown"


def main() -> NoReturn:
    """The console script. Always ends the process with an exit code."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        check_siblings()
        code = app(arguments, prog_name="agent", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except _UsageError as error:
        format_message = getattr(error, "format_message", error.__str__)
        message = str(format_message())
        write_err(f"error: {visible(' '.join(message.split()))} (see agent --help)\n")
        return int(getattr(error, "exit_code", 2))
    except typer.Abort:
        return tell(KeyboardInterrupt()).exit_code
    except BrokenPipeError:
        write_out("")
        return 0
    except (Exception, KeyboardInterrupt) as error:
        return tell(error).exit_code


def check_siblings() -> None:
    """Make sure that the packages beside ``agent`` are the ones that would be imported.

    ``tools`` and ``kernels`` are common names: another project's folder on ``PYTHONPATH``, or a
    distribution of that name, would be imported instead. Raises ``BrokenInstall``.
    """
    home = Path(__file__).resolve().parent.parent
    for name in SIBLINGS:
        found = find_spec(name)
        origin = found.origin if found is not None else None
        if origin is None or Path(origin).resolve().parent.parent != home:
            where = Path(origin).parent if origin else "nowhere"
            raise BrokenInstall(
                f"the package {name!r} is found at {where}, not beside agent in {home}; "
                "install tenuto into an environment of its own and unset PYTHONPATH"
            )
