"""``agent cache``: what is kept to be faster, and may be removed at any time."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli.flags import ListOutput
from agent.cli.help import Commands
from agent.cli.output import Output, write_err, write_json, write_out
from agent.text import visible

app = Commands(help="What is kept on disk to be faster.")


@app.command(name="list")
def list_caches(
    output: ListOutput = Output.TEXT,
) -> None:
    """List it: how large, where, and what it is."""
    from agent.sessions.caches import caches

    found = caches()
    if output is Output.JSON:
        lines = [
            {"name": c.name, "size": c.size, "path": str(c.paths[-1]), "what": c.what}
            for c in found
        ]
        write_json({"caches": lines})
        return
    for kind in found:
        where = visible(str(kind.paths[-1]))
        write_out(f"{kind.name:<10}{kind.size / 1e6:>10,.1f} MB  {kind.what}, {where}\n")


@app.command()
def clear(
    names: Annotated[
        list[str] | None, typer.Argument(help="prefixes, quantized, tags; default: all.")
    ] = None,
) -> None:
    """Remove it. The next run makes again what it needs."""
    from agent.errors import ConfigError
    from agent.sessions.caches import caches
    from agent.sessions.caches import clear as remove

    kinds = {kind.name: kind for kind in caches()}
    for name in names or ():
        if name not in kinds:
            raise ConfigError(f"there is no cache {name!r}; there are {', '.join(kinds)}")

    freed, failed = remove([kinds[name] for name in names or kinds])
    for path, error in failed:
        write_err(f"error: cannot remove {visible(str(path))}: {error.strerror}\n")
    write_out(f"{freed / 1e6:,.1f} MB removed\n")
    raise typer.Exit(1 if failed else 0)
