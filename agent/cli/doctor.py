"""``agent doctor``: is everything there that ``agent solve`` needs?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.cli.flags import Given, ListOutput, takes
from agent.cli.output import Output, write_json, write_out
from agent.settings.load import load_settings
from agent.text import visible


@takes("model", "device", "sandbox", "image")
def doctor(
    given: Given,
    repo: Annotated[
        Path, typer.Option("--repo", "-r", metavar="DIR", help="Whose .agent.toml counts.")
    ] = Path(),
    output: ListOutput = Output.TEXT,
) -> None:
    """Check this machine, one line each; exit code 1 if something needed is broken."""
    settings = load_settings(given, repo)
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
