"""``agent solve``: work on a task in a repository and print the patch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.control import Approve, Interactive, McpFromRepo, controlled
from agent.cli.failure import tell
from agent.cli.interrupts import Interrupts
from agent.cli.output import is_terminal
from agent.cli.printing import Output, finish, listener, print_error
from agent.errors import ConfigError
from agent.settings.load import load_settings
from sandboxes.workspace.repository import find_repository

if TYPE_CHECKING:
    from agent.loading import LoadedModel

MAX_TASK_BYTES = 1_000_000


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
        str | None,
        typer.Option(metavar="none|bridge", help="What network commands have; default: none."),
    ] = None,
    mount: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:INSIDE][:rw]", help="A folder that commands may read, or write with rw."
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=VALUE]", help="A variable that commands get."),
    ] = None,
    build: Annotated[
        bool,
        typer.Option("--build", help="Build the image that the repository asks for, if need be."),
    ] = False,
    check: Annotated[
        str | None, typer.Option(help="Command that passes once the task is done.")
    ] = None,
    n: Annotated[
        int | None, typer.Option(help="Attempts at most; the first that passes --check wins.")
    ] = None,
    thinking: Annotated[
        str | None,
        typer.Option(
            metavar="preserve|drop|off",
            help="Keep the model's reasoning in its context; drop that of earlier user turns; or "
            "do without.",
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
    kv_memory: Annotated[
        int | None,
        typer.Option(
            metavar="MIB", help="Memory for the model's state; default: half of what is free."
        ),
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(metavar="none|int8|int4", help="Round the model's weights.")
    ] = None,
    drafts: Annotated[
        bool | None,
        typer.Option("--drafts/--no-drafts", help="Whether passes try several tokens at once."),
    ] = None,
    compact: Annotated[
        bool | None,
        typer.Option("--compact/--no-compact", help="Whether a full context is compacted."),
    ] = None,
    compact_at: Annotated[
        float | None, typer.Option(help="How full, as a part of the context length.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampling.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 is greedy; default: the checkpoint's.")
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Apply the patch to the repository if it is good.")
    ] = False,
    output: Annotated[Output, typer.Option(help="How to print the result.")] = Output.TEXT,
    approve: Approve = None,
    interactive: Interactive = None,
    mcp_from_repo: McpFromRepo = None,
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
        "mounts": mount or None,
        "pass_env": env or None,
        "build": build or None,
        "check": check,
        "n": n,
        "thinking": thinking,
        "max_steps": max_steps,
        "max_tokens": max_tokens,
        "max_turn_tokens": max_turn_tokens,
        "max_wall_time": max_wall_time,
        "kv_memory": kv_memory,
        "quantize": quantize,
        "drafts": drafts,
        "compact": compact,
        "compact_at": compact_at,
        "seed": seed,
        "temperature": temperature,
        "approve": approve,
        "mcp_from_repo": mcp_from_repo,
    }
    raise typer.Exit(run(task, repo, flags, output=output, apply=apply, interactive=interactive))


def run(
    task: str,
    repo: Path,
    flags: Mapping[str, Any],
    *,
    output: Output = Output.TEXT,
    apply: bool = False,
    interactive: bool | None = None,
    model: LoadedModel | None = None,
) -> int:
    """The command once its flags are read; returns the exit code. Without ``model`` it loads one.

    Whatever goes wrong is one line on stderr and, with a JSON output, also one object of the usual
    keys with status ``error`` (or ``interrupted``).
    """
    names: dict[str, str | None] = {"model": flags.get("model"), "sandbox": flags.get("sandbox")}
    notices: list[str] = []
    try:
        with Interrupts() as interrupts, ExitStack() as stack:
            with interrupts.immediate():
                task = _task_text(task)
                if not repo.is_dir():
                    raise ConfigError(f"--repo {repo} is not a directory")
                settings = load_settings(flags, repo)
                names = {"model": settings.model, "sandbox": settings.sandbox}
                find_repository(repo)
                # torch comes in here: everything that can be wrong without it is known by now.
                from agent.loading import load_for
                from agent.run.build import prepare
                from agent.run.solve import solve as run_task
                from agent.types import Task

                listen = listener(output, notices)
                control = stack.enter_context(
                    controlled(settings, repo, interrupts, listen, interactive=interactive)
                )
                settings = prepare(settings, repo=repo, listen=listen)
                model = model or load_for(settings)
            report = run_task(
                Task(task, repo, settings.check),
                settings,
                model,
                listen=listen,
                interrupted=interrupts,
                apply=apply,
                control=control,
            )
            return finish(report, repo, output, apply=apply, notices=notices)
    except (Exception, KeyboardInterrupt) as error:
        failure = tell(error)
        if output is not Output.TEXT:
            print_error(failure.message, failure.exit_code, names, output, notices)
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
