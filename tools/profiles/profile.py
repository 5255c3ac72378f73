"""The profiles by name, and those that a file describes.

A profile changes the names, schemas and words of tools, not the code under them. ``qwen`` is what
``registry.default_tools`` has; the embedded model is trained on it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tools import edit, submit
from tools.profiles import editor
from tools.profiles.shown_tool import show
from tools.registry import default_tools
from tools.shell import run_shell_command
from tools.types import ToolContext, ToolSpec

NAMES = ("qwen", "editor", "lean")
_MAX_BYTES = 100_000
_BASH = (
    "Run a bash command in the repository and get its output (stdout and stderr together) and its "
    "exit code. All commands share one shell: directory and variables last. There is no terminal, "
    "so nobody answers questions. A command that takes longer than its timeout is killed."
)
_EDITOR_PROMPT = (
    "Files are changed with `str_replace_editor` here: where `edit` and `old_string` are named "
    "above, its command `str_replace` and its `old_str` are meant. Commands run with `bash`."
)
_LEAN_PROMPT = (
    "Files are read with commands here, and changed with `edit`. Commands run with `bash`."
)


class ProfileError(Exception):
    """A profile that cannot be used; the message is one line."""


@dataclass(frozen=True)
class Profile:
    """The tools that a model sees, and what the first prompt says of them (may be empty)."""

    name: str
    tools: tuple[ToolSpec, ...]
    prompt: str = ""


class _ShownTool(BaseModel):
    """One ``[tools.NAME]`` of a file: our tool, and the names of its parameters by ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    runs: str
    description: str = ""
    parameters: dict[str, str] | None = None


class _ProfileFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = ""
    tools: dict[str, _ShownTool] = Field(min_length=1)


def load_profile(name: str) -> Profile:
    """Return the profile ``name``, or that in the TOML file ``name``. Raises ``ProfileError``."""
    if name == "qwen":
        return Profile(name, default_tools())
    if name == "editor":
        return Profile(name, (editor.TOOL, _show_bash(), submit.TOOL), _EDITOR_PROMPT)
    if name == "lean":
        words = {"run_shell_command": "bash", "read_file": "cat", "write_file": "bash"}
        shown = show(edit.TOOL, "edit", words=words)
        return Profile(name, (_show_bash(), shown, submit.TOOL), _LEAN_PROMPT)
    return _read_profile(Path(name))


def _show_bash() -> ToolSpec:
    return show(
        run_shell_command.TOOL,
        "bash",
        description=_BASH,
        parameters={"command": "command", "timeout": "timeout"},
        given=_give_timeout,
        words={"run_shell_command": "bash"},
    )


def _give_timeout(context: ToolContext) -> Mapping[str, Any]:
    """Give the usual time-out: a command left running could not be looked after without a tool."""
    return {"timeout": min(context.command_timeout_s, run_shell_command.MAX_TIMEOUT_S)}


def _read_profile(path: Path) -> Profile:
    known = {spec.name: spec for spec in (*default_tools(), editor.TOOL)}
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ProfileError(f"{path} is too large for a tool profile")
        text = data.decode("utf-8-sig")
        given = _ProfileFile.model_validate(tomllib.loads(text))
    except OSError as error:
        names = ", ".join(NAMES)
        raise ProfileError(
            f"there is no tool profile {str(path)!r} ({error.strerror}); give one of {names}, or a "
            "TOML file"
        ) from None
    except (ValidationError, ValueError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        where = ".".join(map(str, first["loc"])) + ": " + first["msg"] if first else str(error)
        raise ProfileError(f"{path} is no tool profile: {where}") from None
    shown = tuple(_show_given(path, known, name, tool) for name, tool in given.tools.items())
    if not any(tool.runs == "submit" for tool in given.tools.values()):
        raise ProfileError(f"{path} has no tool that runs submit: nothing would end the work")
    return Profile(path.stem, shown, given.prompt)


def _show_given(path: Path, known: Mapping[str, ToolSpec], name: str, tool: _ShownTool) -> ToolSpec:
    spec = known.get(tool.runs)
    if spec is None:
        raise ProfileError(f"{path}: tools.{name} runs {tool.runs!r}, which is none of our tools")
    fields = spec.parameters.model_fields
    shown = tool.parameters
    if shown is not None:
        for field in shown:
            if field not in fields:
                raise ProfileError(f"{path}: tools.{name} names {field!r}, not of {tool.runs}")
        hidden = [field for field in fields if fields[field].is_required() and field not in shown]
        if hidden:
            raise ProfileError(f"{path}: tools.{name} leaves out {hidden[0]!r}, which is required")
        if len(set(shown.values())) < len(shown):
            raise ProfileError(f"{path}: tools.{name} gives two parameters one name")
    return show(spec, name, description=tool.description, parameters=shown)
