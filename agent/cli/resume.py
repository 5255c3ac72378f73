"""``agent resume``, ``agent fork`` and ``agent rewind``: going on with saved sessions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.control import Approve, Interactive, McpFromRepo, controlled
from agent.cli.failure import tell
from agent.cli.interrupts import Interrupts
from agent.cli.output import write_json, write_out
from agent.cli.printing import Output, finish, listener, print_error, write_notices
from agent.errors import AgentError, ConfigError

if TYPE_CHECKING:
    from agent.loading import LoadedModel
    from agent.sessions.store import SavedSession, SessionStore

Name = Annotated[str, typer.Argument(help="The session's id, or how it begins.", metavar="ID")]
Text = Annotated[str | None, typer.Argument(help="What to tell the model.", metavar="[MESSAGE]")]
ModelName = Annotated[
    str | None, typer.Option("--model", help="Another checkpoint; default: the session's.")
]
SandboxKind = Annotated[
    str | None,
    typer.Option("--sandbox", metavar="docker|bubblewrap|local", help="Where commands run."),
]
Image = Annotated[str | None, typer.Option("--image", help="Docker image.")]
Network = Annotated[
    str | None,
    typer.Option("--network", metavar="none|bridge", help="What network commands have."),
]
Check = Annotated[
    str | None, typer.Option("--check", help="Command that passes once the task is done.")
]
ThinkingMode = Annotated[
    str | None,
    typer.Option(
        "--thinking",
        metavar="preserve|drop|off",
        help="From this turn on: keep the reasoning, drop that of earlier user turns, or none.",
    ),
]
MaxSteps = Annotated[int | None, typer.Option("--max-steps", help="Turns of the model at most.")]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", help="Tokens of the session at most.")
]
MaxTurnTokens = Annotated[
    int | None, typer.Option("--max-turn-tokens", help="Tokens of one turn at most.")
]
QuantizeMode = Annotated[
    str | None,
    typer.Option("--quantize", metavar="none|int8|int4", help="Round the model's weights."),
]
Drafts = Annotated[
    bool | None,
    typer.Option("--drafts/--no-drafts", help="Whether passes try several tokens at once."),
]
KvMemory = Annotated[
    int | None,
    typer.Option("--kv-memory", metavar="MIB", help="Memory for the model's state."),
]
Compact = Annotated[
    bool | None,
    typer.Option("--compact/--no-compact", help="Whether a full context is compacted."),
]
CompactAt = Annotated[
    float | None,
    typer.Option("--compact-at", help="How full, as a part of the context length."),
]
MaxWallTime = Annotated[float | None, typer.Option("--max-wall-time", help="Seconds at most.")]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, help="Draw other random numbers from here on.")
]
Temperature = Annotated[float | None, typer.Option("--temperature", help="0 is greedy.")]
Apply = Annotated[
    bool, typer.Option("--apply", help="Apply the patch to the repository if it is good.")
]
Format = Annotated[Output, typer.Option("--output", help="How to print the result.")]


def resume(
    name: Name,
    message: Text = None,
    model: ModelName = None,
    sandbox: SandboxKind = None,
    image: Image = None,
    network: Network = None,
    check: Check = None,
    thinking: ThinkingMode = None,
    max_steps: MaxSteps = None,
    max_tokens: MaxTokens = None,
    max_turn_tokens: MaxTurnTokens = None,
    max_wall_time: MaxWallTime = None,
    kv_memory: KvMemory = None,
    quantize: QuantizeMode = None,
    drafts: Drafts = None,
    compact: Compact = None,
    compact_at: CompactAt = None,
    seed: Seed = None,
    temperature: Temperature = None,
    apply: Apply = False,
    output: Format = Output.TEXT,
    approve: Approve = None,
    interactive: Interactive = None,
    mcp_from_repo: McpFromRepo = None,
) -> None:
    """Go on with a session, in a fresh sandbox with the files of its last complete step.

    Without a message a session that was stopped goes on as if it had not been. What is not given
    as a flag is as it was. Exit codes and output as for solve.
    """
    flags = {
        "model": model,
        "sandbox": sandbox,
        "image": image,
        "network": network,
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
        "temperature": temperature,
        "approve": approve,
        "mcp_from_repo": mcp_from_repo,
    }
    raise typer.Exit(
        run(
            name,
            message,
            flags,
            check=check,
            seed=seed,
            apply=apply,
            output=output,
            interactive=interactive,
        )
    )


def fork(
    name: Name,
    message: Text = None,
    model: ModelName = None,
    sandbox: SandboxKind = None,
    image: Image = None,
    network: Network = None,
    check: Check = None,
    thinking: ThinkingMode = None,
    max_steps: MaxSteps = None,
    max_tokens: MaxTokens = None,
    max_turn_tokens: MaxTurnTokens = None,
    max_wall_time: MaxWallTime = None,
    kv_memory: KvMemory = None,
    quantize: QuantizeMode = None,
    drafts: Drafts = None,
    compact: Compact = None,
    compact_at: CompactAt = None,
    seed: Seed = None,
    temperature: Temperature = None,
    apply: Apply = False,
    output: Format = Output.TEXT,
    approve: Approve = None,
    interactive: Interactive = None,
    mcp_from_repo: McpFromRepo = None,
) -> None:
    """Make a new session with the conversation, state and files of another.

    With a message it goes on at once, as with resume; without one its id is printed.
    """
    flags = {
        "model": model,
        "sandbox": sandbox,
        "image": image,
        "network": network,
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
        "temperature": temperature,
        "approve": approve,
        "mcp_from_repo": mcp_from_repo,
    }
    given = (check, seed, apply or None, interactive, *flags.values())
    if message is None and any(value is not None for value in given):
        raise ConfigError("without a message nothing runs: give these flags to agent resume")
    raise typer.Exit(
        run(
            name,
            message,
            flags,
            check=check,
            seed=seed,
            apply=apply,
            output=output,
            interactive=interactive,
            copy=True,
        )
    )


def rewind(
    name: Name,
    to: Annotated[
        int, typer.Option("--to", help="The step to go back to the end of; 0: before the first.")
    ],
    model: ModelName = None,
) -> None:
    """Take a session back: conversation, model state and files together.

    What came after the step stays readable in its trajectory.
    """
    from agent.loading import load_for
    from agent.run.resume import stored_settings
    from agent.sessions.rewind import rewind as go_back
    from agent.sessions.store import SessionStore

    store = SessionStore()
    store.reap()
    saved = store.find(name)
    stored = stored_settings(saved, {"model": model})
    loaded = load_for(stored)
    notices: list[str] = []
    cost = go_back(saved, to, loaded, listen=listener(Output.TEXT, notices))
    write_notices(notices)
    paid = f"{cost:,} tokens prefilled" if cost else "nothing prefilled"
    write_out(f"session {saved.id} is at step {to} ({paid}); go on with agent resume {saved.id}\n")


def run(
    name: str,
    message: str | None,
    flags: Mapping[str, Any],
    *,
    check: str | None = None,
    seed: int | None = None,
    apply: bool = False,
    output: Output = Output.TEXT,
    interactive: bool | None = None,
    copy: bool = False,
    model: LoadedModel | None = None,
) -> int:
    """The commands once their flags are read; returns the exit code. Without ``model`` it loads.

    Whatever goes wrong is one line on stderr and, with a JSON output, also one object of the usual
    keys with status ``error`` (or ``interrupted``).
    """
    names: dict[str, str | None] = {"model": flags.get("model"), "sandbox": flags.get("sandbox")}
    notices: list[str] = []
    try:
        with Interrupts() as interrupts, ExitStack() as stack:
            with interrupts.immediate():
                # torch comes in with these.
                from agent.loading import load_for
                from agent.run import resume as resuming
                from agent.run.build import prepare
                from agent.sessions.rewind import fork as make_copy
                from agent.sessions.store import SessionStore

                if message is not None and not message.strip():
                    raise ConfigError("the message is empty: say what to do, or leave it out")
                store = SessionStore()
                store.reap()
                saved = store.find(name)
                settings = resuming.stored_settings(saved, dict(flags))
                names = {"model": settings.model, "sandbox": settings.sandbox}
                if copy:
                    saved = make_copy(store, saved)
                    if message is None:
                        return _print_copy(saved, output)
                    stack.callback(_unless_begun, store, saved, _recorded(saved))
                listen = listener(output, notices)
                # Refused before the model is loaded, where that can be known.
                with saved.claim():
                    pass
                repo = Path(str(saved.data["repo"]))
                control = stack.enter_context(
                    controlled(settings, repo, interrupts, listen, interactive=interactive)
                )
                settings = prepare(settings, store=store, listen=listen)
                model = model or load_for(settings)
            report = resuming.resume(
                saved,
                message and message.encode("utf-8", "replace").decode("utf-8"),
                settings,
                model,
                check=check,
                seed=seed,
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


def _recorded(saved: SavedSession) -> int:
    """How long the record of ``saved`` is, in bytes."""
    return saved.trajectory.stat().st_size if saved.trajectory.exists() else 0


def _unless_begun(store: SessionStore, copy: SavedSession, recorded: int) -> None:
    """Remove a copy whose run never began: its record is still the one it was made with."""
    with suppress(AgentError, OSError):
        if _recorded(copy) == recorded:
            store.remove(copy.id)


def _print_copy(saved: SavedSession, output: Output) -> int:
    if output is Output.TEXT:
        write_out(f"{saved.id}\n")
    else:
        write_json({"session": saved.id, "parent": saved.data["parent"], "status": saved.status})
    return 0
