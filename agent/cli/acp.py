"""``agent acp``: the Agent Client Protocol over stdio, for editors."""

from __future__ import annotations

from typing import Annotated

import typer


def acp(
    model: Annotated[
        str | None, typer.Option(help='"embedded", a checkpoint directory, or a hub name.')
    ] = None,
    sandbox: Annotated[
        str | None,
        typer.Option(metavar="docker|bubblewrap|local", help="Where commands run."),
    ] = None,
    image: Annotated[str | None, typer.Option(help="Docker image.")] = None,
    network: Annotated[
        bool | None,
        typer.Option("--network/--no-network", help="Let commands reach the network."),
    ] = None,
    thinking: Annotated[
        str | None, typer.Option(metavar="preserve|drop|off", help="How the model reasons.")
    ] = None,
    mode: Annotated[
        str, typer.Option(metavar="ask|edit|auto", help="What new sessions ask for.")
    ] = "ask",
) -> None:
    """Serve an editor: the Agent Client Protocol over stdin and stdout.

    Not for typing: an editor starts it (docs/editors.md). Logs go to a file in the state folder.
    """
    from agent.acp.main import run

    flags = {
        "model": model,
        "sandbox": sandbox,
        "image": image,
        "network": network,
        "thinking": thinking,
    }
    run({key: value for key, value in flags.items() if value is not None}, mode)
