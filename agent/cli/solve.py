"""``agent solve``: work on a task in a repository and print the patch."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.control import controlled
from agent.cli.failure import tell
from agent.cli.flags import Apply, Given, Interactive, Repo, ResultOutput, takes
from agent.cli.interrupts import Interrupts
from agent.cli.output import Output
from agent.cli.printing import finish, listener, load_told, print_error
from agent.cli.typed_text import read_text
from agent.errors import ConfigError, StoreError
from agent.run.standing import stand
from agent.settings.load import load_settings
from agent.settings.option import Group
from agent.settings.variables import old_variable_lines
from sandboxes.paths import private_dir, state_dir

if TYPE_CHECKING:
    from agent.loading import LoadedModel
    from model.vision.picture import Picture


@takes(*Group)
def solve(
    given: Given,
    task: Annotated[
        str, typer.Argument(help="What to do; - reads it from stdin.", metavar="[TASK | -]")
    ] = "-",
    repo: Repo = Path(),
    picture: Annotated[
        list[Path] | None,
        typer.Option("--picture", help="Show the model a PNG, JPEG, GIF or WebP; repeatable."),
    ] = None,
    apply: Apply = False,
    output: ResultOutput = Output.TEXT,
    interactive: Interactive = None,
) -> None:
    """Repair or change a git repository.

    Works on a private copy and prints the patch.

    Exit codes: 0 good patch, 1 error, 2 usage, 3 no patch or check fails, 4 limit, 130 interrupted.

    Examples:
      agent solve "clamp in bounds.py is wrong" --check "python3 -m pytest -xq"
      agent solve - --repo ~/project --model Qwen/Qwen3.5-4B -o json < issue.md
    """
    raise typer.Exit(
        run(
            task,
            repo,
            given,
            output=output,
            apply=apply,
            interactive=interactive,
            pictures=picture or (),
        )
    )


def run(
    task: str,
    repo: Path,
    flags: Mapping[str, Any],
    *,
    output: Output = Output.TEXT,
    apply: bool = False,
    interactive: bool | None = None,
    model: LoadedModel | None = None,
    pictures: Sequence[Path] = (),
) -> int:
    """Run the command with its flags read; return the exit code. Without ``model`` it loads one.

    Whatever goes wrong is one line on stderr and, with a JSON output, also one object of the usual
    keys with status ``error`` (or ``interrupted``).
    """
    names: dict[str, str | None] = {"model": flags.get("model"), "sandbox": flags.get("sandbox")}
    notices: list[str] = []
    try:
        with Interrupts() as interrupts, ExitStack() as stack:
            with interrupts.immediate():
                task = read_text(task, "task")
                if not repo.is_dir():
                    raise ConfigError(f"--repo {repo} is not a directory")
                settings = load_settings(flags, repo)
                names = {"model": settings.model, "sandbox": settings.sandbox}
                top, folder = stand(repo, settings)
                require_state_folder()
                from agent.events import Notice, Working
                from agent.types import Task

                shown = _read_pictures(pictures)
                listen = listener(output, notices)
                stack.callback(listen, Working(""))
                listen(Working("starting"))
                # torch comes in here: everything that can be wrong without it is known by now.
                from agent.run.build import prepare
                from agent.run.solve import solve as run_task

                for line in old_variable_lines():
                    listen(Notice(line))
                client = stack.enter_context(
                    controlled(settings, repo, interrupts, listen, interactive=interactive)
                )
                settings = prepare(settings, repo=top, listen=listen)
                model = load_told(settings, listen, model)
            listen(Working("copying the repository"))
            report = run_task(
                Task(task, top, settings.check, folder=folder, pictures=shown),
                settings,
                model,
                client,
                apply=apply,
            )
            return finish(report, top, output, apply=apply, notices=notices)
    except (Exception, KeyboardInterrupt) as error:
        failure = tell(error)
        if output is not Output.TEXT:
            print_error(failure.message, failure.exit_code, names, output, notices)
        return failure.exit_code


def _read_pictures(paths: Sequence[Path]) -> tuple[Picture, ...]:
    """Read the pictures to show. Raises ``PictureError``."""
    from model.vision.picture import read_picture_file

    return tuple(read_picture_file(path) for path in paths)


def require_state_folder() -> None:
    """Make the folder for sessions and copies. Raises ``StoreError`` if it cannot be written."""
    folder = state_dir()
    try:
        private_dir(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise StoreError(
            f"the state folder {folder} cannot be written: {error.strerror}; make it writable, or "
            "set HOME or XDG_STATE_HOME to a place that is"
        ) from error
