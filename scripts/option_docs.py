"""Write the tables of settings in docs/usage.md from the table of options and the commands.

    .venv/bin/python scripts/option_docs.py [--check]

With --check nothing is written; the exit code says whether the page is current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import typer.main

from agent.cli.app import app
from agent.settings.option import Group, bounds_text, choices, default_text, plain_type
from agent.settings.table import OPTIONS, Settings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "usage.md"
BEGIN = "<!-- scripts/option_docs.py writes what follows -->\n"
END = "<!-- to here -->\n"


def page(text: str) -> str:
    """Return ``text`` with its tables as they should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "".join([before, BEGIN, "\n", *tables(), END, after])


def tables() -> Iterator[str]:
    """Yield one table a group, and before it the commands that have its flags."""
    commands = dict(_commands(typer.main.get_command(app)))
    for group in Group:
        yield f"### {group.value}\n\n"
        if takers := "; ".join(_takers(group, commands)):
            yield f"Flags of {takers}.\n\n"
        yield "| key | flag | meaning | default | in `.agent.toml` |\n|---|---|---|---|---|\n"
        for key, row in OPTIONS.items():
            if row.group is group:
                yield f"| {' | '.join(_cells(key))} |\n"
        yield "\n"


def _cells(key: str) -> Iterator[str]:
    """Yield the cells of one setting's row."""
    row, field = OPTIONS[key], Settings.model_fields[key]
    yield f"`{key}`"
    yield _flag(key)
    words = ", ".join(f"`{word}`" for word in choices(field))
    meaning = " ".join(part for part in (row.help, words and f"One of {words}.", row.more) if part)
    bounds = bounds_text(field)
    yield meaning + (f" ({bounds})" if bounds else "")
    yield default_text(field)
    yield "yes" if row.repository else "no"


def _flag(key: str) -> str:
    """Return the flags of ``key`` as they are typed."""
    row, field = OPTIONS[key], Settings.model_fields[key]
    if not row.flag:
        return ""
    if plain_type(field) is bool:
        return f"`{row.flag}`, `--no-{row.flag.removeprefix('--')}`"
    value = row.metavar or "WORD"
    return f"`{row.flag} {value}`" + (f", `{row.short}`" if row.short else "")


def _takers(group: Group, commands: dict[str, Any]) -> Iterator[str]:
    """Yield the commands that have the group's flags, with the flags where some are missing."""
    flags = {row.flag for row in OPTIONS.values() if row.group is group and row.flag}
    for name, command in commands.items():
        there = flags & {flag for parameter in command.params for flag in parameter.opts}
        if there == flags and there:
            yield f"`{name}`"
        elif there:
            yield f"`{name}` ({', '.join(f'`{flag}`' for flag in sorted(there))} only)"


def _commands(command: Any, path: tuple[str, ...] = ("agent",)) -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, as typed, with its click object."""
    children = getattr(command, "commands", {})
    for name, child in children.items():
        yield from _commands(child, (*path, name))
    if not children:
        yield " ".join(path), command


def main() -> int:
    """Write the page, or check it."""
    text = PAGE.read_text("utf-8")
    wanted = page(text)
    if "--check" in sys.argv[1:]:
        if text != wanted:
            print("docs/usage.md is out of date: run scripts/option_docs.py", file=sys.stderr)
        return int(text != wanted)
    PAGE.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
