"""``agent model``: which checkpoints there are and what they are."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli.flags import ListOutput
from agent.cli.help import Commands
from agent.cli.output import Output, write_json, write_out
from agent.text import visible

app = Commands(help="Checkpoints.")


@app.command(name="list")
def list_models(
    output: ListOutput = Output.TEXT,
) -> None:
    """List the checkpoints on this machine: the embedded one and those of the hub's cache."""
    from model.checkpoint import hub

    found = hub.list_models()
    if output is Output.JSON:
        models = [{"name": m.name, "path": str(m.path), "size": m.size} for m in found]
        write_json({"models": models})
        return
    if not found:
        write_out("no checkpoints; point --model at a directory or a hub name\n")
    for item in found:
        size = f"{item.size / 1e6:,.1f} MB"
        write_out(f"{visible(item.name):<40} {size:>13}  {visible(str(item.path))}\n")


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="Like --model of agent solve.")] = "embedded",
    output: ListOutput = Output.TEXT,
) -> None:
    """Load a checkpoint and say what it is: size, layers, context, fingerprint."""
    from agent.loading import describe_model

    facts = describe_model(name)
    if output is Output.JSON:
        write_json(facts)
        return
    for key, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int) else visible(str(value))
        write_out(f"{key.replace('_', ' ') + ':':<18}{shown}\n")
