"""``agent doctor``: is everything there that ``agent solve`` needs?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.cli.output import write_json, write_out
from agent.cli.sessions import Output
from agent.settings.load import load_settings
from agent.text import visible


def doctor(
    model: Annotated[str | None, typer.Option(help="The checkpoint to try.")] = None,
    sandbox: Annotated[
        str | None,
        typer.Option(metavar="docker|bubblewrap|local", help="The sandbox that must work."),
    ] = None,
    repo: Annotated[Path, typer.Option(help="Whose .agent.toml counts.")] = Path(),
    output: Annotated[Output, typer.Option(help="text, or one JSON object.")] = Output.TEXT,
) -> None:
    """Check this machine, one line each; exit code 1 if something needed is broken."""
    settings = load_settings({"model": model, "sandbox": sandbox}, repo)
    from agent.cli.checks import examine, healthy

    findings = examine(settings)
    good = healthy(findings)
    if output is Output.JSON:
        lines = [
            {"name": f.name, "status": f.status, "detail": f.detail, "remedy": f.remedy}
            for f in findings
        ]
        write_json({"healthy": good, "findings": lines})
    else:
        for found in findings:
            remedy = f" -> {found.remedy}" if found.remedy else ""
            write_out(f"{found.status:<5}{found.name:<12}{visible(found.detail + remedy)}\n")
    raise typer.Exit(0 if good else 1)
