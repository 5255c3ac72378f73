"""``agent sandbox``: the base image, and what killed runs left behind."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.output import visible, write_err, write_out

app = typer.Typer(help="Sandboxes.", no_args_is_help=True)


@app.command()
def build(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Even if it is there.")] = False,
) -> None:
    """Build the base image of the Docker sandbox, unless it is there. Prints its tag."""
    from sandboxes.image import build_base_image

    tag = build_base_image(lambda line: write_err(f"{visible(line)}\n"), rebuild=rebuild)
    write_out(f"{tag}\n")


@app.command()
def prune() -> None:
    """Remove containers and working copies whose process is gone."""
    from sandboxes.prune import prune as prune_sandboxes

    removed = prune_sandboxes()
    for line in removed:
        write_out(f"removed {visible(line)}\n")
    if not removed:
        write_out("nothing to remove\n")
