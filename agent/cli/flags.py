"""Flags of the commands: those of settings, made from the table of options, and shared others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from agent.cli.output import Output
from agent.settings.option import Group, choices, default_text, option_of, plain_type
from agent.settings.table import OPTIONS, Settings

Given = dict[str, Any]
"""The settings that a command line gives, by key."""

Repo = Annotated[
    Path, typer.Option("--repo", "-r", metavar="DIR", help="The git repository to work on.")
]
Apply = Annotated[
    bool,
    typer.Option("--apply", "-a", help="Apply the patch to the repository if it is good."),
]
ResultOutput = Annotated[
    Output,
    typer.Option(
        "--output", "-o", metavar="text|json|stream-json", help="How to print the result."
    ),
]
Interactive = Annotated[
    bool | None,
    typer.Option(
        "--interactive/--no-interactive",
        help="Let Ctrl-C ask for a message to the model; default: if --approve asks.",
        rich_help_panel=Group.APPROVAL.value,
    ),
]


def _refuse_stream(output: Output) -> Output:
    if output is Output.STREAM_JSON:
        raise typer.BadParameter("use text or json")
    return output


ListOutput = Annotated[
    Output,
    typer.Option(
        "--output",
        "-o",
        metavar="text|json",
        callback=_refuse_stream,
        help="Lines, or one JSON object.",
    ),
]


def takes(
    *parts: Group | str, but: tuple[str, ...] = (), stored: bool = False
) -> Callable[..., Callable[..., Any]]:
    """Return a decorator that gives a command the flags of ``parts``: groups, or single keys.

    The command's parameter ``given`` receives what the command line gave, by key. ``but`` names
    the keys of a group that the command does not have. With ``stored`` the help shows no defaults,
    because what is not given is as the session had it.
    """
    keys = [key for key in _keys(parts) if key not in but]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [
            parameter
            for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
            if name != "given"
        ]
        parameters = [*own, *(_parameter(key, stored) for key in keys)]

        def run(**values: Any) -> Any:
            flags = {key: values.pop(key) for key in keys}
            # A list that was not given comes as an empty one.
            return command(given={k: v for k, v in flags.items() if v not in (None, [])}, **values)

        run.__name__, run.__doc__, run.__module__ = (
            command.__name__,
            command.__doc__,
            command.__module__,
        )
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def _keys(parts: tuple[Group | str, ...]) -> Iterator[str]:
    """Yield the keys with a flag that ``parts`` name, in the table's order."""
    for key, row in OPTIONS.items():
        if row.flag and (key in parts or row.group in parts):
            yield key


def _parameter(key: str, stored: bool) -> inspect.Parameter:
    """Return the parameter from which typer makes the flag of ``key``."""
    field = Settings.model_fields[key]
    row = option_of(field)
    kind = _flag_type(field)
    flag = f"{row.flag}/--no-{row.flag.removeprefix('--')}" if kind is bool else row.flag
    declared = typer.Option(
        *(word for word in (flag, row.short) if word),
        metavar=row.metavar or "|".join(choices(field)) or None,
        help=row.help if stored else f"{row.help} (default: {default_text(field)})",
        rich_help_panel=row.group.value,
        show_default=False,
    )
    return inspect.Parameter(
        key,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, declared],
    )


def _flag_type(field: FieldInfo) -> Any:
    """Return the type that typer reads: words are checked with everything else, by the table."""
    kind = plain_type(field)
    if kind == tuple[str, ...]:
        return list[str]
    return kind if kind in (bool, int, float) else str
