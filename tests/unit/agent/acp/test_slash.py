"""The commands that an editor offers, run against an open session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.acp.slash import available, command_in, run_command
from agent.client import Client, OnDisk
from agent.errors import ConfigError
from agent.loading import LoadedModel
from agent.run.open_session import OpenSession
from agent.sessions.store import SessionStore
from agent.settings.extensions import find_extensions
from agent.settings.load import load_settings
from agent.types import Task
from tests.integration.conftest import Script, placed_model

__all__ = ["placed_model"]
TURNS = ("It adds.", "Aside: yes.", "Again.")


def test_the_repositorys_own_are_offered_beside_ours(tmp_path: Path) -> None:
    skill = tmp_path / ".agents/skills/release/SKILL.md"
    skill.parent.mkdir(parents=True)
    skill.write_text("---\ndescription: Make a release\n---\nTag it.")
    own = find_extensions(tmp_path, None)
    offered = {command.name: command.description for command in available(own).available_commands}
    assert offered["release"] == "Make a release"
    assert {"btw", "tree", "try", "rewind"} <= offered.keys()
    assert own.spelt_out("/release 1.2").endswith("Tag it.\n\n1.2")
    assert own.spelt_out("/nothing") == "/nothing"


def test_an_editor_asks_aside_sees_the_tree_and_tries(
    git_repo: Callable[..., Path],
    placed_model: Callable[..., LoadedModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    repo, store = git_repo({"a.py": "x = 1\n"}), SessionStore()
    settings = load_settings({"sandbox": "local"}, repo)
    model = placed_model(*(Script.turn(content=text) for text in TURNS))
    client = Client(files=OnDisk, talks=True)

    def say(text: str) -> str:
        command = command_in(text)
        assert command is not None
        return run_command(command, session, store)

    with OpenSession.new(Task("", repo), settings, model, client, store=store) as session:
        with pytest.raises(ConfigError, match="nothing to ask about yet"):
            say("/btw why?")
        session.turn("look")
        used = session.used
        assert f"Aside: yes.\n\n({used:,} tokens not computed again)" in say("/btw why?")
        said = say("/try 2 go on")
        assert said.count("answered, nothing changed") == 2
        assert f"{2 * used:,} tokens not computed again" in said
        assert session.used == used
        tree = say("/tree")
        assert f"/tree {session.id}:0" in tree
        assert tree.count("  fork ") == 2
        with pytest.raises(ConfigError, match="a number and a message"):
            say("/try")
