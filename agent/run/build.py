"""The parts of a run, built from the settings: image, sandbox, limits, sampling."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path

from agent.events import (
    Listener,
    Notice,
    nobody,
)
from agent.loop.budget import RunLimits
from agent.loop.thinking_bound import ThinkLimits
from agent.sessions.store import SessionStore
from agent.settings.table import Settings
from model.chat.chat_format import ChatFormat
from model.chat.effort import LEVELS, read_effort
from model.sampling import SamplingParams
from sandboxes.backends.docker import ROOT
from sandboxes.base import Limits, Sandbox
from sandboxes.images.image_tags import BASE_TAG
from sandboxes.images.image_tree import fill_from_image
from sandboxes.images.repository_image import ImageRecipe, image_of
from sandboxes.mounts import environment_of, parse_mount
from sandboxes.open import open_sandbox
from sandboxes.prune import prune
from sandboxes.workspace.kept_tree import Origin
from sandboxes.workspace.workspace import Workspace


def limits_of(settings: Settings) -> Limits:
    """Return the limits on what the sandbox may use."""
    return Limits(
        memory_mb=settings.memory_mb,
        cpus=settings.cpus,
        disk_mb=settings.disk_mb,
        network=settings.online,
        writable=settings.writable,
    )


def open_box(settings: Settings, workspace: Workspace, name: str) -> Sandbox:
    """Open the sandbox of the settings; it owns the workspace. Raises ``SandboxError``."""
    return open_sandbox(
        settings.sandbox,
        workspace,
        image=settings.image,
        limits=limits_of(settings),
        name=name,
        root=settings.workdir,
        search_path=settings.search_path,
        mounts=[parse_mount(mount) for mount in settings.mounts],
        environment=environment_of(settings.pass_env, os.environ),
        account=settings.account,
    )


def open_workspace(
    settings: Settings, repo: Path, origin: Origin | None = None, tree: str = ""
) -> Workspace:
    """Make the private copy to work on; with ``origin``, as it was at the checkpoint ``tree``.

    Raises ``SandboxError``.
    """
    if settings.image_tree:
        image, place = settings.image or BASE_TAG, settings.workdir or ROOT
        fill = functools.partial(fill_from_image, image, place)
        return Workspace.of_image(repo, fill, origin=origin, tree=tree)
    if origin is not None:
        return Workspace.reopen(repo, origin, tree, ignored=settings.ignored_files)
    return Workspace.create(repo, ignored=settings.ignored_files)


def unset_variables(settings: Settings) -> list[str]:
    """Return the names of variables that commands were to get and that nobody gives a value."""
    return [name for name in settings.pass_env if "=" not in name and name not in os.environ]


def sampling_of(settings: Settings, default: SamplingParams) -> SamplingParams:
    """Return the sampling of the settings, given that of the checkpoint's makers."""
    if settings.temperature is None:
        return default
    return dataclasses.replace(default, temperature=settings.temperature)


def settle_thinking(settings: Settings, chat: ChatFormat) -> Settings:
    """Return the settings with ``auto`` thinking as the chat template has it.

    An effort that was asked for is a wish to think.
    """
    if settings.thinking != "auto":
        return settings
    wanted = chat.thinks or read_effort(settings.effort) in LEVELS
    return settings.model_copy(update={"thinking": "preserve" if wanted else "off"})


def run_limits(settings: Settings) -> RunLimits:
    """Return the loop's limits in the settings."""
    return RunLimits(
        max_steps=settings.max_steps,
        max_tokens=settings.max_tokens,
        max_turn_tokens=settings.max_turn_tokens,
        max_wall_time_s=settings.max_wall_time,
        thinking=ThinkLimits(settings.think_budget, settings.think_budget_session),
    )


def image_for(settings: Settings, repo: Path, tell: Callable[[str], None]) -> str:
    """Return the image's tag: found, or built where that is allowed. Raises ``SandboxError``."""
    recipe = ImageRecipe(
        repo,
        image=settings.image,
        dockerfile=settings.dockerfile,
        devcontainer=settings.devcontainer,
        setup=settings.setup,
        files=settings.setup_files,
    )
    return image_of(recipe, build=settings.build, limits=limits_of(settings), on_progress=tell)


def prepare(
    settings: Settings,
    *,
    repo: Path | None = None,
    store: SessionStore | None = None,
    listen: Listener = nobody,
) -> Settings:
    """Clear away what killed runs left, and see that the sandbox's image is there.

    Once a process is enough. Returns the settings with the image in them. Raises
    ``SandboxUnavailable`` and ``ImageMissing``.
    """
    (store or SessionStore()).reap()
    for line in dict.fromkeys(prune()):
        listen(Notice(f"removed {line}, left by a run that was killed"))
    return with_image(settings, listen, repo)


def with_image(settings: Settings, listen: Listener = nobody, repo: Path | None = None) -> Settings:
    """Return the settings with the image to use, where Docker is: our own unless they name another.

    Our own is built if need be. That of the repository (a Dockerfile, a set-up) is taken as it was
    built, or built now if the user asked for that. Without ``repo`` it is left for later.
    """
    if unset := unset_variables(settings):
        lines = f"{', '.join(unset)} of --env has no value here, and none is kept with a session"
        listen(Notice(f"{lines}; set it, or give --env NAME=VALUE again"))
    wanted = settings.dockerfile or settings.devcontainer or settings.setup
    if settings.sandbox != "docker":
        if wanted:
            listen(Notice("dockerfile, devcontainer and setup are for --sandbox docker: left out"))
        return settings
    if wanted and repo is None:
        return settings
    image = image_for(settings, repo or Path(), lambda line: listen(Notice(line)))
    done = {"image": image, "dockerfile": None, "devcontainer": None, "setup": ()}
    return settings.model_copy(update=done)
