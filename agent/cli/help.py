"""Help texts: flags in groups, with short forms and defaults, wrapped to the terminal's width."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from agent.settings.option import Group

MAX_WIDTH = 100
MIN_WIDTH = 40
FLAG_COLUMN = 28
_OWN = "Options"
_ORDER = (_OWN, *(group.value for group in Group))


class HelpedCommand(TyperCommand):
    """A command with our help text."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_text(self, ctx))


class HelpedGroup(TyperGroup):
    """A group of commands with our help text."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_text(self, ctx))


class Commands(typer.Typer):
    """A group of commands that all have our help text; without a command it prints its own."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=HelpedGroup, no_args_is_help=True, **settings)

    def command(self, *names: Any, **settings: Any) -> Callable[..., Any]:
        """Add a command, as ``typer.Typer.command`` does."""
        return super().command(*names, **{"cls": HelpedCommand, **settings})


def help_text(command: Any, ctx: Any) -> str:
    """Return the help of ``command`` for the terminal's width."""
    width = max(MIN_WIDTH, min(MAX_WIDTH, shutil.get_terminal_size().columns))
    lines = [f"Usage: {' '.join([ctx.command_path, *_pieces(command, ctx)])}", ""]
    lines += _paragraphs(command.help or "", width)
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        name = "Arguments" if parameter.param_type_name == "argument" else _panel(parameter)
        sections.setdefault(name, []).append(_row(parameter))
    if children := getattr(command, "commands", {}):
        sections["Commands"] = [(name, _summary(child)) for name, child in children.items()]
    for name in ("Arguments", *_ORDER, "Commands"):
        if rows := sections.get(name):
            lines += ["", name]
            for left, right in rows:
                lines += _columns(left, right, width)
    return "\n".join(lines) + "\n"


def _pieces(command: Any, ctx: Any) -> Iterator[str]:
    """Yield what follows the command's name: options, arguments, a command."""
    yield "[OPTIONS]"
    for parameter in command.get_params(ctx):
        if parameter.param_type_name == "argument":
            yield parameter.metavar or parameter.name.upper()
    if getattr(command, "commands", {}):
        yield "COMMAND"


def _panel(parameter: Any) -> str:
    panel = getattr(parameter, "rich_help_panel", None)
    return panel if panel in _ORDER else _OWN


def _row(parameter: Any) -> tuple[str, str]:
    """Return what is typed for the parameter, and what it means."""
    text = parameter.help or ""
    if parameter.param_type_name == "argument":
        return parameter.metavar or parameter.name.upper(), text
    short = [word for word in parameter.opts if not word.startswith("--")]
    long = [word for word in parameter.opts if word.startswith("--")]
    names = ", ".join([*short, *long]) if short else f"    {long[0]}"
    if parameter.secondary_opts:
        names += f", {parameter.secondary_opts[0]}"
    elif not parameter.is_flag:
        names += f" {parameter.metavar or parameter.name.upper()}"
    # Settings say their own default; a path and the like are worth showing, a switch is not.
    default = parameter.default
    if default not in (None, "", ()) and not isinstance(default, bool) and not callable(default):
        text += f" (default: {default})"
    return names, text


def _summary(command: Any) -> str:
    """Return the first sentence of the command's help."""
    first = " ".join((command.help or "").split("\n\n")[0].split())
    return first.split(". ")[0].rstrip(".") + "."


def _columns(left: str, right: str, width: int) -> Iterator[str]:
    """Yield the lines of one row: ``left``, and ``right`` wrapped beside it or below it."""
    column = min(FLAG_COLUMN, width // 2 - 4)
    wrapped = textwrap.wrap(right, width - column - 4, break_on_hyphens=False) or [""]
    if len(left) > column:
        yield f"  {left}"
    else:
        yield f"  {left:<{column}}  {wrapped.pop(0)}".rstrip()
    yield from (" " * (column + 4) + line for line in wrapped)


def _paragraphs(text: str, width: int) -> Iterator[str]:
    """Yield the lines of ``text``; a paragraph of indented lines stays as it is."""
    for number, paragraph in enumerate(text.strip("\n").split("\n\n")):
        if number:
            yield ""
        if "\n  " in paragraph:
            yield from paragraph.split("\n")
        else:
            yield from textwrap.wrap(" ".join(paragraph.split()), width, break_on_hyphens=False)
