"""One row of the table of options: what help, flags and documents say about a setting."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field
from pydantic.fields import FieldInfo


class Group(StrEnum):
    """A part of the settings that help and documents show together; the value is its heading."""

    MODEL = "Model"
    SANDBOX = "Sandbox"
    IMAGE = "Image"
    CHECK = "Check and attempts"
    LIMITS = "Limits"
    CONTEXT = "Context"
    SAMPLING = "Sampling"
    APPROVAL = "Approval"
    STORAGE = "Storage"


@dataclass(frozen=True)
class Option:
    """The description of a setting: how it is shown and given.

    ``flag`` is "" for a setting that only files and variables give. ``shown`` says the default in
    words where the value does not. ``more`` is what the documents add to ``help``, in Markdown.
    ``repository`` tells whether a repository's ``.agent.toml`` may set it.
    """

    group: Group
    help: str
    flag: str = ""
    short: str = ""
    metavar: str = ""
    shown: str = ""
    more: str = ""
    repository: bool = False


def option(
    default: Any,
    group: Group,
    help: str,
    *,
    flag: str = "",
    short: str = "",
    metavar: str = "",
    shown: str = "",
    more: str = "",
    repository: bool = False,
    **bounds: Any,
) -> Any:
    """Return a pydantic field with its ``Option``; ``bounds`` are those of ``pydantic.Field``."""
    field = Field(default=default, **bounds)
    row = Option(group, help, flag, short, metavar, shown, more, repository)
    field.metadata.append(row)
    return field


def option_of(field: FieldInfo) -> Option:
    """Return the row of ``field``."""
    return next(row for row in field.metadata if isinstance(row, Option))


def plain_type(field: FieldInfo) -> Any:
    """Return the field's type without ``| None``: a class, a ``Literal`` or ``tuple[str, ...]``."""
    annotation = field.annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(annotation) if part is not type(None))
    return annotation


def choices(field: FieldInfo) -> tuple[str, ...]:
    """Return the words that the setting may have, or nothing where it is not one of a few."""
    kind = plain_type(field)
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def default_text(field: FieldInfo) -> str:
    """Return the default as a person reads it: ``100``, ``on``, ``half of what is free``."""
    shown = option_of(field).shown
    if shown or field.default in (None, ()):
        return shown or "none"
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    return f"{field.default:g}" if isinstance(field.default, float) else str(field.default)


def bounds_text(field: FieldInfo) -> str:
    """Return the bounds of a number, as ``at least 1, at most 64``; "" where there are none."""
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = [
        f"{word} {'2**63' if bound == 2**63 else bound}"
        for name, word in words.items()
        for item in field.metadata
        if (bound := getattr(item, name, None)) is not None
    ]
    return ", ".join(found)
