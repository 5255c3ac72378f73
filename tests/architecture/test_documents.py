"""The documents: every command, flag, key and example is in them, and their links lead on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from agent.cli.app import app
from agent.settings.table import REPOSITORY_KEYS, Settings
from agent.settings.variables import PREFIX
from tests.architecture.sources import ROOT, tracked

USAGE = (ROOT / "docs" / "usage.md").read_text("utf-8")
DOCUMENTS = tuple(path for path in tracked() if path.suffix == ".md" and "golden" not in path.parts)


def commands(command: Any, path: tuple[str, ...] = ("agent",)) -> Iterator[tuple[str, Any]]:
    """Every command that does something, as typed, with its click object."""
    children = getattr(command, "commands", {})
    for name, child in children.items():
        yield from commands(child, (*path, name))
    if not children:
        yield " ".join(path), command


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_the_commands_were_found() -> None:
    assert {"agent solve", "agent doctor", "agent sandbox build"} <= set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_usage_page_has_the_command_and_its_flags(name: str) -> None:
    assert f"`{name}" in USAGE
    flags = {flag for option in COMMANDS[name].params for flag in option.opts}
    flags |= {flag for option in COMMANDS[name].params for flag in option.secondary_opts}
    missing = {flag for flag in flags if flag.startswith("--") and f"`{flag}" not in USAGE}
    assert missing == set()


def test_the_usage_page_has_no_command_that_does_not_exist() -> None:
    written = re.findall(r"`(agent (?:[a-z]+(?: [a-z]+)?))(?=[ `])", USAGE)
    known = set(COMMANDS) | {name.rpartition(" ")[0] for name in COMMANDS}
    assert [name for name in written if name not in known] == []


def test_the_usage_page_has_every_setting_and_who_may_set_it() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.* \| (yes|no) \|$", USAGE, re.MULTILINE))
    assert set(rows) == set(Settings.model_fields)
    assert {key for key, answer in rows.items() if answer == "yes"} == REPOSITORY_KEYS
    assert f"`{PREFIX}MAX_STEPS=60`" in USAGE


def typed_commands(text: str) -> Iterator[list[str]]:
    """Yield each command line that begins with ``agent`` in a code block, as words."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("agent "):
                yield shlex.split(line.partition(" <")[0], comments=True)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_code_blocks_exist_with_their_flags(path: Path) -> None:
    for words in typed_commands(path.read_text("utf-8")):
        names = [name for name in COMMANDS if words[: len(name.split())] == name.split()]
        plain = len(words) > 1 and (words[1].startswith("-") or " " in words[1])
        name = max(names, key=len) if names else "agent chat" if plain else ""
        assert name, words
        known = {flag for option in COMMANDS[name].params for flag in option.opts}
        known |= {flag for option in COMMANDS[name].params for flag in option.secondary_opts}
        given = {word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
        assert given <= known, words


def test_links_between_the_documents_lead_somewhere() -> None:
    dead = []
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
            if "://" not in target and not (path.parent / target).exists():
                dead.append(f"{path.relative_to(ROOT)} -> {target}")
    assert dead == []


def test_every_example_and_decision_is_listed() -> None:
    examples = (ROOT / "examples" / "README.md").read_text("utf-8")
    for issue in (ROOT / "examples").glob("*/ISSUE.md"):
        assert f"| `{issue.parent.name}` |" in examples
    numbers = [path.name[:4] for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == [f"{index:04}" for index in range(1, len(numbers) + 1)]
