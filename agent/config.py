"""Settings: flags over ``AGENT_*`` variables over ``.agent.toml`` over the user's own file.

Of the repository, the file in the folder to work on comes before the one at its top.

A repository is not trusted, so its ``.agent.toml`` may only say how to work on it
(``REPOSITORY_KEYS``). What decides who is trusted with what (the sandbox, its network and size, the
model) is the user's: a flag, a variable, or ``$XDG_CONFIG_HOME/tenuto/config.toml``. A key that is
not known is an error that names the nearest one; a key that a repository may not set is one too.

An ``AGENT_*`` variable that resembles no key is left alone, because build servers set their own
(``AGENT_ID``, ``AGENT_OS`` …); one that is nearly a key is an error.
"""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from agent.errors import ConfigError
from sandboxes.errors import WorkspaceError
from sandboxes.mounts import environment_of, parse_mount
from sandboxes.workspace.repository import find_repository

PREFIX = "AGENT_"
REPOSITORY_FILE = ".agent.toml"
MAX_FILE_BYTES = 65_536
REPOSITORY_KEYS = frozenset(
    {
        "check",
        "image",
        "dockerfile",
        "devcontainer",
        "setup",
        "setup_files",
        "thinking",
        "map_tokens",
        "max_steps",
        "max_tokens",
        "max_turn_tokens",
        "max_wall_time",
        "command_timeout",
        "check_timeout",
        "temperature",
    }
)

IMAGE_KEYS = frozenset({"image", "dockerfile", "devcontainer"})

TABLES = frozenset({"rules", "hooks", "mcp"})
"""Tables of the files that ``agent.control.policy`` reads."""

Thinking = Literal["preserve", "drop", "off"]
SandboxKind = Literal["docker", "bubblewrap", "local"]
NetworkMode = Literal["none", "bridge"]
Quantize = Literal["none", "int8", "int4"]
Approve = Literal["never", "edits", "commands", "all"]


class Settings(BaseModel):
    """One run's settings. Times are seconds, sizes tokens or megabytes as named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(default="embedded", min_length=1)
    sandbox: SandboxKind = "docker"
    image: str | None = Field(default=None, min_length=1)
    workdir: str | None = Field(default=None, pattern=r"^/.+")
    search_path: str | None = Field(default=None, min_length=1)
    ignored_files: bool = False
    writable: bool = False
    keep_state: bool = True
    dockerfile: str | None = Field(default=None, min_length=1)
    devcontainer: str | None = Field(default=None, min_length=1)
    setup: tuple[str, ...] = ()
    setup_files: tuple[str, ...] = ()
    build: bool = False
    network: NetworkMode = "none"
    mounts: tuple[str, ...] = ()
    pass_env: tuple[str, ...] = ()
    kv_memory: int | None = Field(default=None, ge=1)
    quantize: Quantize = "none"
    drafts: bool = True
    memory_mb: int = Field(default=4096, ge=64)
    disk_mb: int = Field(default=4096, ge=64)
    cpus: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    check: str | None = Field(default=None, min_length=1)
    thinking: Thinking = "preserve"
    n: int = Field(default=1, ge=1, le=64)
    map_tokens: int | None = Field(default=None, ge=0, le=32_768)
    max_steps: int = Field(default=100, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_turn_tokens: int = Field(default=8192, ge=1)
    max_wall_time: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    command_timeout: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    check_timeout: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, lt=2**63)
    compact: bool = True
    compact_at: float = Field(default=0.85, gt=0, lt=1, allow_inf_nan=False)
    warm_cache_mb: int = Field(default=4096, ge=0)
    temperature: float | None = Field(default=None, ge=0, le=10, allow_inf_nan=False)
    approve: Approve = "never"
    mcp_from_repo: bool = False

    @property
    def online(self) -> bool:
        """Whether commands reach the network."""
        return self.network != "none"

    @field_validator("network", mode="before")
    @classmethod
    def _yes_or_no(cls, value: Any) -> Any:
        """Sessions and files of before say yes or no."""
        words = {"true": "bridge", "false": "none", "1": "bridge", "0": "none"}
        return words.get(str(value).lower(), value)

    @field_validator("mounts", "pass_env", "setup", "setup_files", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any, info: ValidationInfo) -> Any:
        """One text stands for a list: of commands a single one, else parted by commas."""
        if not isinstance(value, str):
            return value
        parts = [value] if info.field_name == "setup" else value.split(",")
        return tuple(part.strip() for part in parts if part.strip())

    @field_validator("mounts")
    @classmethod
    def _may_be_mounted(cls, mounts: tuple[str, ...]) -> tuple[str, ...]:
        for mount in mounts:
            parse_mount(mount)
        return mounts

    @field_validator("pass_env")
    @classmethod
    def _are_names(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        environment_of(entries, {})
        return entries


def user_file() -> Path:
    """``$XDG_CONFIG_HOME/tenuto/config.toml``, or the one under ``~/.config``."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".config"
    return root / "tenuto" / "config.toml"


def repository_files(repo: Path | None) -> list[Path]:
    """Where ``.agent.toml`` may lie: in the folder that was given, then at the repository's top."""
    if repo is None:
        return []
    folders = [repo]
    with suppress(WorkspaceError):
        folders.append(find_repository(repo).top)
    if folders[-1] == repo.resolve():
        del folders[1:]
    return [folder / REPOSITORY_FILE for folder in folders]


def load_settings(flags: Mapping[str, Any], repo: Path | None = None) -> Settings:
    """Join the four sources; a flag that is None was not given.

    Raises ``ConfigError`` for an unknown key, a key that a repository may not set, or a bad value.
    """
    own_file = user_file()
    layers: list[tuple[str, dict[str, Any]]] = [
        ("the command line", {key: value for key, value in flags.items() if value is not None}),
        ("the environment", _environment(os.environ)),
    ]
    layers += [(str(path), _repository(path)) for path in repository_files(repo)]
    layers.append((str(own_file), _settings_in(own_file)))
    for name, values in layers:
        for key in values:
            if key not in Settings.model_fields:
                raise ConfigError(f"unknown key {key!r} in {name}{_nearest(key)}")

    merged: dict[str, Any] = {}
    for _, values in reversed(layers):
        if IMAGE_KEYS & values.keys():
            # Who names an image stands above who named another one, in whatever way.
            for key in IMAGE_KEYS:
                merged.pop(key, None)
        merged |= values
    if len(given := sorted(IMAGE_KEYS & merged.keys())) > 1:
        raise ConfigError(f"{' and '.join(given)} are given together; give one of them")
    return check_settings(merged, layers)


def check_settings(
    values: Mapping[str, Any], layers: Sequence[tuple[str, Mapping[str, Any]]]
) -> Settings:
    """``values`` as settings. Raises ``ConfigError`` that names the layer a bad value is from."""
    try:
        return Settings(**values)
    except ValidationError as error:
        raise ConfigError(_explain(error, layers)) from error


def _environment(variables: Mapping[str, str]) -> dict[str, Any]:
    """The ``AGENT_*`` variables as keys, without those that are plainly somebody else's."""
    values: dict[str, Any] = {}
    for name, value in variables.items():
        if not name.startswith(PREFIX):
            continue
        key = name.removeprefix(PREFIX).lower()
        if key in Settings.model_fields:
            values[key] = value
        elif near := difflib.get_close_matches(key, Settings.model_fields, n=1, cutoff=0.75):
            raise ConfigError(
                f"unknown variable {name}: did you mean {PREFIX}{near[0].upper()}? (else unset it)"
            )
    return values


def _repository(path: Path) -> dict[str, Any]:
    """What the repository's own file says, if it is allowed to say it."""
    values = _settings_in(path, trusted=False)
    for key in values:
        if key in Settings.model_fields and key not in REPOSITORY_KEYS:
            raise ConfigError(
                f"{path} sets {key!r}, which a repository may not decide; remove it there and "
                f"set it yourself: a flag, {PREFIX}{key.upper()}, or {user_file()}"
            )
    return values


def _settings_in(path: Path, *, trusted: bool = True) -> dict[str, Any]:
    """The file's keys without the tables that are no settings."""
    values = read_toml(path, trusted=trusted)
    return {key: value for key, value in values.items() if key not in TABLES}


def read_toml(path: Path, *, trusted: bool = True) -> dict[str, Any]:
    """The file's top-level keys; empty if there is no file. Raises ``ConfigError``.

    Where the file is not the user's own (``trusted`` is False) it must be a plain file.
    """
    # An untrusted path may be a link to anywhere or a pipe that never ends: open without following
    # and without waiting, then look at what was opened.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if trusted else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return {}
    except OSError as error:
        hint = "" if trusted else "; it must be a plain file"
        raise ConfigError(f"cannot read {path}: {error.strerror}{hint}") from error
    try:
        # Before it becomes a file object, which a folder cannot be.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigError(f"{path} is not a plain file; remove it or make it one")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes; it holds settings only")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split()) or "nested too deep"
        raise ConfigError(f"{path} is not valid TOML: {reason}") from error


def _nearest(key: str) -> str:
    """``": did you mean 'x'?"``, or the known keys if none is near."""
    near = difflib.get_close_matches(key.lower().replace("-", "_"), Settings.model_fields, n=1)
    if near:
        return f": did you mean {near[0]!r}?"
    return f"; known keys: {', '.join(sorted(Settings.model_fields))}"


def _explain(error: ValidationError, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """The first thing wrong, with the place that said it."""
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0]) if first["loc"] else "?"
    source = next((name for name, values in layers if key in values), "the defaults")
    return f"{key} = {first.get('input')!r} in {source}: {reason_of(first)}"


def reason_of(first: Mapping[str, Any]) -> str:
    """What is wrong with a value, in TOML's words."""
    reason = str(first["msg"]).removeprefix("Value error, ").replace("valid tuple", "list")
    return reason[:1].lower() + reason[1:]
