"""``agent sandbox``: images, what runs now, and what killed runs left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.cli.flags import Given, takes
from agent.cli.help import Commands
from agent.cli.output import write_err, write_out
from agent.text import visible

app = Commands(help="Sandboxes.")


def _tell(line: str) -> None:
    write_err(f"{visible(line)}\n")


@app.command()
@takes("network")
def build(
    given: Given,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Even if it is there.")] = False,
    browser: Annotated[
        bool, typer.Option("--browser", help="The one with Chromium, for the screenshot tool.")
    ] = False,
    repo: Annotated[
        Path | None,
        typer.Option(help="Build the image that this repository's .agent.toml asks for."),
    ] = None,
) -> None:
    """Build the base image of the Docker sandbox, unless it is there. Prints its tag.

    With --browser, one with Chromium in it, which runs use with --image. With --repo, the
    repository's own: this runs its Dockerfile and set-up commands as root in containers, without
    your credentials.
    """
    if repo is None:
        from sandboxes.images.base_image import build_base_image

        write_out(f"{build_base_image(_tell, rebuild=rebuild, browser=browser)}\n")
        return
    from agent.errors import ConfigError
    from agent.run.build import image_for
    from agent.settings.load import load_settings
    from agent.settings.variables import old_variable_lines
    from sandboxes.images.base_image import require_image

    if browser:
        raise ConfigError("--browser is for our own image, --repo for a repository's: give one")
    if not repo.is_dir():
        raise ConfigError(f"--repo {repo} is not a directory")
    for line in old_variable_lines():
        _tell(line)
    settings = load_settings({**given, "build": True, "sandbox": "docker"}, repo)
    image = image_for(settings, repo, _tell)
    require_image(image)
    write_out(f"{image}\n")


@app.command("list")
def list_() -> None:
    """List what is there: containers, working copies, and the images of repositories."""
    from sandboxes.listing import listing

    for kind, name, what in listing():
        write_out(f"{kind:9}  {visible(name)}  {visible(what)}\n")


@app.command()
def prune(
    images: Annotated[
        bool, typer.Option("--images", help="Remove the images of repositories too.")
    ] = False,
) -> None:
    """Remove containers and working copies whose process is gone."""
    from sandboxes.prune import prune as prune_sandboxes

    removed = prune_sandboxes()
    if images:
        from sandboxes.images.repository_image import remove_layers

        removed += [f"image {tag}" for tag in remove_layers()]
    for line in removed:
        write_out(f"removed {visible(line)}\n")
    if not removed:
        write_out("nothing to remove\n")
