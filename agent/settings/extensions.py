"""Commands and skills that the user or the repository keeps as Markdown files.

A command is one file, ``NAME.md``; a skill is a folder with a ``SKILL.md``. Both may begin with
front matter (YAML between two lines of ``---``) that has a ``description``. A repository's files
are not trusted: they are read as text, never followed out of their folder, bounded in size.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

MAX_BYTES = 65_536
MAX_FILES = 200
MOST_TOLD = 30
"""Skills that the model is told of, a line each."""
COMMAND_FOLDERS = (".agents/commands", ".claude/commands")
SKILL_FOLDERS = (".agents/skills", ".claude/skills")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Extension:
    """A command or a skill: its name, what it is for, and the text that is sent."""

    name: str
    kind: Literal["command", "skill"]
    description: str
    text: str
    source: Path

    def message(self, arguments: str) -> str:
        """Return the message that calling it with ``arguments`` sends.

        ``$ARGUMENTS`` in a command stands for them; where it is missing they follow the text.
        """
        if self.kind == "skill":
            head = f"Use the skill {self.name!r}, written in {self.source}:\n\n{self.text}"
            return f"{head}\n\n{arguments}".rstrip()
        if "$ARGUMENTS" in self.text:
            return self.text.replace("$ARGUMENTS", arguments)
        return f"{self.text}\n\n{arguments}".rstrip()


@dataclass
class Extensions:
    """Everything found, by name, and a line for each file that could not be used."""

    found: dict[str, Extension] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)

    def spelt_out(self, text: str) -> str:
        """Return the message that ``text`` stands for if it calls one of these, else ``text``."""
        name, _, rest = text.removeprefix("/").partition(" ")
        known = self.found.get(name.strip()) if text.startswith("/") else None
        return text if known is None else known.message(rest.strip())


def skill_lines(repo: Path) -> list[str]:
    """Return a line for each skill of the repository: where it is written, and what it is for."""
    found = find_extensions(repo, None).found.values()
    return [
        f"- {one.source.relative_to(repo)}: {one.description}"
        for one in found
        if one.kind == "skill" and one.description.isprintable()
    ][:MOST_TOLD]


def own_skills(own: Path) -> tuple[Extension, ...]:
    """Return the skills in the user's own folder that a model can be told of, in a line each."""
    all_of = Extensions()
    _add_skills(all_of, own, ("skills",))
    sound = [one for one in all_of.found.values() if one.description.isprintable()]
    return tuple(sound[:MOST_TOLD])


def find_extensions(repo: Path, own: Path | None) -> Extensions:
    """Read the commands and skills of ``own`` (the user's folder, if any) and of the repository.

    The user's come before the repository's of the same name; commands before skills.
    """
    all_of = Extensions()
    commands, skills = (repo, COMMAND_FOLDERS), (repo, SKILL_FOLDERS)
    for top, folders in (commands,) if own is None else ((own, ("commands",)), commands):
        for path in _entries(top, folders, all_of.troubles):
            if path.suffix == ".md":
                _add(all_of, top, path, path.stem, "command")
    for top, folders in (skills,) if own is None else ((own, ("skills",)), skills):
        _add_skills(all_of, top, folders)
    return all_of


def _add_skills(all_of: Extensions, top: Path, folders: tuple[str, ...]) -> None:
    for path in _entries(top, folders, all_of.troubles):
        if path.is_dir() and not path.is_symlink():
            _add(all_of, top, path / "SKILL.md", path.name, "skill")


def _entries(top: Path, folders: tuple[str, ...], troubles: list[str]) -> Iterator[Path]:
    for folder in folders:
        place = top / folder
        try:
            if place.resolve().is_relative_to(top.resolve()):
                yield from sorted(place.iterdir())[:MAX_FILES]
            else:
                troubles.append(f"{place} leads out of {top}; left out")
        except OSError:
            continue


def _add(
    all_of: Extensions, top: Path, path: Path, name: str, kind: Literal["command", "skill"]
) -> None:
    name = name.lower()
    if not _NAME.fullmatch(name):
        all_of.troubles.append(f"{path}: {name!r} is no name for a {kind}; left out")
        return
    try:
        text = _read(top, path)
        meta, body = split_front_matter(text)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        all_of.troubles.append(f"{path}: {error}; left out")
        return
    description = " ".join(str(meta.get("description") or "").split())
    first = next((line.strip("# ") for line in body.splitlines() if line.strip()), "")
    known = all_of.found.setdefault(
        name, Extension(name, kind, (description or first)[:200], body.strip(), path)
    )
    if known.source != path:
        all_of.troubles.append(f"{path}: {name!r} is {known.source} already; left out")


def _read(top: Path, path: Path) -> str:
    """Read a regular file that lies under ``top``. Raises ``OSError``, ``ValueError``."""
    if not path.parent.resolve().is_relative_to(top.resolve()):
        raise ValueError("leads out of its folder")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("is no regular file")
        if facts.st_size > MAX_BYTES:
            raise ValueError(f"has more than {MAX_BYTES:,} bytes")
        return file.read(MAX_BYTES + 1).decode("utf-8-sig", "replace")


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """Return the front matter and the rest. Raises ``ValueError`` if it is no mapping in YAML."""
    lines = text.splitlines(keepends=True)
    if not lines or lines[0].rstrip() != "---":
        return {}, text
    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        raise ValueError("the front matter has no closing ---")
    import yaml

    try:
        meta = yaml.safe_load("".join(lines[1:end]))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = getattr(getattr(error, "problem_mark", None), "line", None)
        line = f" in line {where + 2}" if where is not None else ""
        raise ValueError(f"the front matter is no YAML{line}") from error
    if meta is None:
        meta = {}
    if not isinstance(meta, dict):
        raise ValueError("the front matter is no mapping of keys to values")
    return meta, "".join(lines[end + 1 :])
