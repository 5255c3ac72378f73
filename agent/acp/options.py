"""Modes and configuration options: what a person may choose while a session is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from acp.schema import (
    SessionConfigOptionBoolean,
    SessionConfigOptionSelect,
    SessionConfigSelectOption,
    SessionMode,
    SessionModeState,
)

from agent.errors import ConfigError
from agent.settings.table import SandboxKind, Settings, Thinking

if TYPE_CHECKING:
    from agent.control.approvals import Mode as Asked

Mode = Literal["ask", "edit", "auto", "plan"]

ASKED: dict[Mode, Asked] = {
    "ask": "all",
    "edit": "commands",
    "auto": "never",
    "plan": "plan",
}
_MODES: dict[Mode, tuple[str, str]] = {
    "ask": ("Ask", "Ask before files are changed and before commands run"),
    "edit": ("Edit", "Change files without asking; ask before commands run"),
    "auto": ("Auto", "Ask for nothing"),
    "plan": ("Plan", "Only look: nothing is changed, no command runs; ends with a plan"),
}
_THINKING: dict[Thinking, tuple[str, str]] = {
    "auto": ("Auto", "As the chat template has it"),
    "preserve": ("Preserve", "Reasoning stays in the context"),
    "drop": ("Drop", "Reasoning of earlier turns is removed from the context"),
    "off": ("Off", "Answer without reasoning"),
}
_EFFORTS: dict[str, tuple[str, str]] = {
    "auto": ("Auto", "As much as the chat template has it"),
    "none": ("None", "Answer without reasoning"),
    "low": ("Low", ""),
    "medium": ("Medium", ""),
    "high": ("High", ""),
    "xhigh": ("Highest", ""),
}
_SANDBOXES: dict[SandboxKind, tuple[str, str]] = {
    "docker": ("Docker", "Commands run in a container without network"),
    "bubblewrap": ("Bubblewrap", "Commands run in namespaces of their own"),
    "local": ("Local", "Commands run on this machine, with no isolation"),
}
Option = SessionConfigOptionSelect | SessionConfigOptionBoolean
OPTIONS = ("mode", "model", "effort", "thinking", "sandbox")


def mode_named(name: str) -> Mode:
    """Return the mode of that name. Raises ``ConfigError``."""
    for mode in ASKED:
        if mode == name:
            return mode
    raise ConfigError(f"there is no mode {name!r}; use {', '.join(ASKED)}")


def modes(current: Mode) -> SessionModeState:
    """Return the modes, for clients that know no configuration options."""
    known = [SessionMode(id=k, name=n, description=d) for k, (n, d) in _MODES.items()]
    return SessionModeState(current_mode_id=current, available_modes=known)


def options(mode: Mode, settings: Settings, models: Sequence[str]) -> list[Option]:
    """Return every option with its present value; ``models`` are this machine's checkpoints."""
    names = list(dict.fromkeys([*models, settings.model]))
    return [
        _select("mode", "Mode", "mode", mode, _MODES),
        _select("model", "Model", "model", settings.model, {name: (name, "") for name in names}),
        _select("effort", "Effort", "thought_level", _effort_of(settings), _EFFORTS),
        _select("thinking", "Reasoning kept", None, settings.thinking, _THINKING),
        _select("sandbox", "Sandbox", None, settings.sandbox, _SANDBOXES),
    ]


def _effort_of(settings: Settings) -> str:
    """Return the effort among those that are offered."""
    if settings.thinking == "off":
        return "none"
    return settings.effort if settings.effort in _EFFORTS else "auto"


def _select(
    name: str,
    title: str,
    category: Literal["mode", "model", "thought_level"] | None,
    value: str,
    values: Mapping[Any, tuple[str, str]],
) -> SessionConfigOptionSelect:
    choices = [
        SessionConfigSelectOption(value=key, name=shown, description=text or None)
        for key, (shown, text) in values.items()
    ]
    return SessionConfigOptionSelect(
        id=name,
        name=title,
        category=category,
        type="select",
        current_value=value,
        options=choices,
    )
