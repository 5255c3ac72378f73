"""``agent solve``: work on a task in a repository and print the patch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.config import load_settings
from agent.errors import ConfigError
from agent.failure import tell
from agent.interrupts import Interrupts
from agent.output import is_terminal, visible, write_err, write_json, write_patch
from sandboxes.repository import find_repository

if TYPE_CHECKING:
    from agent.events import Listener
    from agent.solve import LoadedModel
    from agent.types import SolveReport

MAX_TASK_BYTES = 1_000_000


class Output(StrEnum):
    """How the result is written to stdout."""

    TEXT = "text"
    JSON = "json"
    STREAM_JSON = "stream-json"


def solve(
    task: Annotated[
        str, typer.Argument(help="What to do; - reads it from stdin.", metavar="[TASK | -]")
    ] = "-",
    repo: Annotated[Path, typer.Option(help="The git repository to work on.")] = Path(),
    model: Annotated[
        str | None, typer.Option(help="'embedded', a checkpoint directory, or a hub name.")
    ] = None,
    sandbox: Annotated[
        str | None,
        typer.Option(
            metavar="docker|bubblewrap|local",
            help="Where commands run. 'local' has no isolation at all.",
        ),
    ] = None,
    image: Annotated[str | None, typer.Option(help="Docker image; default: our own.")] = None,
    network: Annotated[
        bool | None, typer.Option("--network/--no-network", help="Let commands reach the network.")
    ] = None,
    check: Annotated[
        str | None, typer.Option(help="Command that passes once the task is done.")
    ] = None,
    n: Annotated[
        int | None, typer.Option(help="Attempts at most; the first that passes --check wins.")
    ] = None,
    thinking: Annotated[
        str | None,
        typer.Option(
            metavar="preserve|off",
            help="Keep the model's reasoning in its context, or do without. ('drop' would equal "
            "'preserve' here: it removes the reasoning of earlier user turns, and there is one.)",
        ),
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="Turns of the model at most.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Tokens of the session at most, prompts included.")
    ] = None,
    max_turn_tokens: Annotated[int | None, typer.Option(help="Tokens of one turn at most.")] = None,
    max_wall_time: Annotated[
        float | None, typer.Option(help="Seconds at most, from the first turn.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampling.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 is greedy; default: the checkpoint's.")
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Apply the patch to the repository if it is good.")
    ] = False,
    output: Annotated[Output, typer.Option(help="How to print the result.")] = Output.TEXT,
) -> None:
    """Repair or change a git repository.

    Works on a private copy and prints the patch.

    Exit codes: 0 good patch, 1 error, 2 usage, 3 no patch or check fails, 4 limit, 130 interrupted.
    """
    flags = {
        "model": model,
        "sandbox": sandbox,
        "image": image,
        "network": network,
        "check": check,
        "n": n,
        "thinking": thinking,
        "max_steps": max_steps,
        "max_tokens": max_tokens,
        "max_turn_tokens": max_turn_tokens,
        "max_wall_time": max_wall_time,
        "seed": seed,
        "temperature": temperature,
    }
    raise typer.Exit(run(task, repo, flags, output=output, apply=apply))


def run(
    task: str,
    repo: Path,
    flags: Mapping[str, Any],
    *,
    output: Output = Output.TEXT,
    apply: bool = False,
    model: LoadedModel | None = None,
) -> int:
    """The command once its flags are read; returns the exit code. Without ``model`` it loads one.

    Whatever goes wrong is one line on stderr and, with a JSON output, also one object of the usual
    keys with status ``error`` (or ``interrupted``).
    """
    names: dict[str, str | None] = {"model": flags.get("model"), "sandbox": flags.get("sandbox")}
    try:
        with Interrupts() as interrupts:
            with interrupts.immediate():
                task = _task_text(task)
                if not repo.is_dir():
                    raise ConfigError(f"--repo {repo} is not a directory")
                settings = load_settings(flags, repo)
                names = {"model": settings.model, "sandbox": settings.sandbox}
                find_repository(repo)
                # torch comes in here: everything that can be wrong without it is known by now.
                from agent import solve as solving
                from agent.types import Task

                listen = _listener(output)
                settings = solving.prepare(settings, listen=listen)
                model = model or solving.load_model(settings.model)
            report = solving.solve(
                Task(task, repo, settings.check),
                settings,
                model,
                listen=listen,
                interrupted=interrupts,
                apply=apply,
            )
            return _finish(report, repo, output, apply=apply)
    except (Exception, KeyboardInterrupt) as error:
        failure = tell(error)
        if output is not Output.TEXT:
            _print_error(failure.message, failure.exit_code, names, output)
        return failure.exit_code


def _task_text(argument: str) -> str:
    """The task: the argument, or stdin for ``-``. Raises ``ConfigError`` if there is none."""
    if argument != "-":
        text = argument
    elif sys.stdin is None or is_terminal(sys.stdin):
        raise ConfigError("no task: write it as an argument, or pipe it in")
    else:
        data = sys.stdin.buffer.read(MAX_TASK_BYTES + 1)
        if len(data) > MAX_TASK_BYTES:
            raise ConfigError(f"the task is longer than {MAX_TASK_BYTES:,} bytes; shorten it")
        text = data.decode("utf-8", "replace")
    # An argument that was no UTF-8 arrives with surrogates in it, which no tokenizer takes.
    text = text.encode("utf-8", "replace").decode("utf-8").strip()
    if not text:
        raise ConfigError("the task is empty: say what to do")
    return text


def _listener(output: Output) -> Listener:
    """Progress for a terminal on stderr and, if asked for, events on stdout."""
    from agent.progress import terminal_listener
    from agent.stream import event_as_json

    show = terminal_listener()
    if output is not Output.STREAM_JSON:
        return show

    def both(event: Any) -> None:
        show(event)
        if (line := event_as_json(event)) is not None:
            write_json(line)

    return both


def _finish(report: SolveReport, repo: Path, output: Output, *, apply: bool) -> int:
    """Apply the patch if asked, print the result, return the exit code."""
    from agent.report import as_json, check_line, usage_line

    data = as_json(report)
    if output is Output.JSON:
        write_json(data)
    elif output is Output.STREAM_JSON:
        write_json({"event": "result"} | data)
    else:
        write_patch(report.patch)
    lines = [f"{data['status']}: {data['summary']}" if data["summary"] else data["status"]]
    if report.check is not None:
        lines.append(check_line(report.check))
    if apply and report.patch:
        lines.append(f"applied to {repo}" if report.applied else "not applied")
    lines += [usage_line(report.result.usage, len(report.result.steps))]
    lines.append(f"session {report.session}")
    write_err("".join(visible(line.replace("\n", " ")) + "\n" for line in lines if line))
    return int(data["exit_status"])


def _print_error(
    message: str, exit_code: int, names: Mapping[str, str | None], output: Output
) -> None:
    from agent.report import error_as_json

    data = error_as_json(message, exit_code, model=names["model"], sandbox=names["sandbox"])
    write_json(data if output is Output.JSON else {"event": "result"} | data)
