"""``agent setup``: from an installed package to a configuration that is proven to work."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.flags import Given, ListOutput, takes
from agent.cli.output import Output, is_terminal, write_err, write_json, write_out
from agent.errors import AgentError, ConfigError
from agent.settings.load import load_settings
from agent.text import visible

if TYPE_CHECKING:
    from agent.cli.candidates import Suggestion
    from agent.cli.host import Host

STEPS = ("model", "image", "configuration", "proof")
EMBEDDED = "embedded"


@takes("model", "device", "quantize", "sandbox")
def setup(
    given: Given,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    skip: Annotated[
        list[str] | None,
        typer.Option(metavar="|".join(STEPS), help="Leave a step out. May be repeated."),
    ] = None,
    native: Annotated[
        bool, typer.Option("--native", help="Only build the compiled CPU path (needs g++).")
    ] = False,
    repo: Annotated[
        Path | None,
        typer.Option("--repo", "-r", metavar="DIR", help="Only propose its .agent.toml."),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="With --repo: write what is proposed.")
    ] = False,
    output: ListOutput = Output.TEXT,
) -> None:
    """Set up this machine: choose and fetch a model, build the sandbox, prove that it works.

    Every step may be left out and repeated; what is there already is not done again.

    Examples:
      agent setup
      agent setup --yes --model embedded
      agent setup --native
      agent setup --repo ~/project --write
    """
    tell = Teller(output)
    if write and repo is None:
        raise ConfigError("--write writes what --repo DIR proposes: give both")
    if repo is not None:
        from agent.cli import repository_setup

        lines, facts = repository_setup.run(repo, write=write)
        for line in lines:
            tell.line(line)
        tell.facts |= facts
        return tell.end()
    if native:
        return _build_native(tell)
    if unknown := set(skip or ()) - set(STEPS):
        raise ConfigError(f"there is no step {min(unknown)!r}; steps: {', '.join(STEPS)}")
    steps = [step for step in STEPS if step not in (skip or ())]
    proven = run(given, steps, tell, asks=not yes)
    tell.end()
    raise typer.Exit(0 if proven else 1)


class Teller:
    """Writes lines for a person, or keeps facts for one JSON object at the end."""

    def __init__(self, output: Output) -> None:
        self.json = output is Output.JSON
        self.facts: dict[str, Any] = {}

    def line(self, text: str) -> None:
        """Write one line: on stdout, or on stderr where stdout takes the JSON object."""
        (write_err if self.json else write_out)(f"{visible(text)}\n")

    def end(self) -> None:
        """Write the JSON object if that was asked for."""
        if self.json:
            write_json(self.facts)


def run(given: Given, steps: list[str], tell: Teller, *, asks: bool) -> bool:
    """Run ``steps``; return whether what was proven holds. Raises the errors of each step."""
    from agent.cli.candidates import suggest
    from agent.cli.host import look

    settings = load_settings(given)
    host = look(settings)
    for line in host.lines():
        tell.line(line)
    if host.device == "cpu" and not host.compiled:
        tell.line("the compiled CPU path is not built; install g++, then agent setup --native")
    found = suggest(host)
    tell.facts |= {
        "host": asdict(host),
        "suggestions": [{**asdict(one), "line": one.line()} for one in found],
    }
    values: dict[str, Any] = {k: given[k] for k in ("device", "quantize") if k in given}
    values |= _choose(given, found, tell, asks=asks and "model" in steps)
    values["sandbox"] = given.get("sandbox") or _sandbox(host)
    if "model" in steps:
        _pull(values["model"], tell)
    if "image" in steps:
        _image(values["sandbox"], tell)
    if "configuration" in steps:
        from agent.cli.own_configuration import write_configuration

        path = write_configuration(values)
        tell.line(f"written to {path}: {', '.join(f'{k} = {v}' for k, v in values.items())}")
        tell.facts["configuration"] = str(path)
    tell.facts |= {"model": values["model"], "sandbox": values["sandbox"]}
    return "proof" not in steps or _prove({**given, **values}, tell)


def _choose(given: Given, found: list[Suggestion], tell: Teller, *, asks: bool) -> dict[str, Any]:
    """Return the model to write down, and how it is rounded: given, recommended, or asked for."""
    for number, one in enumerate(found, 1):
        tell.line(f"{number}  {one.line()}")
    tell.line(f"{len(found) + 1}  {EMBEDDED}: ships with the package, repairs one-line bugs only")
    if "model" in given:
        return {"model": given["model"]}
    best = next((n for n, one in enumerate(found, 1) if one.recommended), len(found) + 1)
    if asks:
        best = _ask(best, len(found) + 1)
    if best > len(found):
        return {"model": EMBEDDED}
    chosen = found[best - 1].candidate
    rounded = {} if chosen.quantize == "none" else {"quantize": chosen.quantize}
    return {"model": chosen.name, **rounded}


def _ask(default: int, most: int) -> int:
    """Ask for a number at the terminal. Raises ``ConfigError`` where nobody can answer."""
    if not is_terminal(sys.stdin):
        raise ConfigError("nobody can be asked here; add --yes, or --model NAME")
    while True:
        write_out(f"which one? [{default}] ")
        typed = sys.stdin.readline()
        if not typed:
            raise KeyboardInterrupt
        if not typed.strip():
            return default
        if typed.strip().isdigit() and 1 <= int(typed) <= most:
            return int(typed)
        write_out(f"type a number from 1 to {most}\n")


def _sandbox(host: Host) -> str:
    if not host.docker:
        return "docker"
    if not host.bubblewrap:
        return "bubblewrap"
    raise ConfigError(
        f"neither Docker ({host.docker}) nor bubblewrap ({host.bubblewrap}) works here; install "
        "one of them, or add --sandbox local, which has no isolation at all"
    )


def _pull(name: str, tell: Teller) -> None:
    """Fetch the checkpoint, with the hub's progress; what is there is not fetched again."""
    from model.checkpoint import hub
    from model.checkpoint.checkpoint import Checkpoint

    path = hub.resolve(name)
    size = sum(file.stat().st_size for file in Checkpoint.open(path).files)
    tell.line(f"{name}: {size / 1e6:,.1f} MB of weights in {path}")


def _image(sandbox: str, tell: Teller) -> None:
    """Build the base image of the Docker sandbox unless it is there."""
    if sandbox == "docker":
        from sandboxes.images.base_image import ensure_base_image

        tell.line(f"image {ensure_base_image(tell.line)} is there")


def _prove(flags: Given, tell: Teller) -> bool:
    from agent.cli import prove

    proofs = prove.run(load_settings(flags), Output.JSON if tell.json else Output.TEXT)
    tell.facts["proof"] = prove.as_json(proofs)
    proven = all(proof.holds for proof in proofs)
    if proven:
        tell.line("ready: agent in a repository begins a chat")
    return proven


def _build_native(tell: Teller) -> None:
    """Build the compiled CPU path. Raises ``AgentError`` if there is no compiler."""
    from kernels.native.build import BuildError, build

    try:
        paths = build()
    except BuildError as error:
        raise AgentError(f"the compiled CPU path is not built: {error}; torch serves") from error
    tell.line(f"the compiled CPU path is in {paths[0].parent}")
    tell.facts["native"] = str(paths[0].parent)
    tell.end()
