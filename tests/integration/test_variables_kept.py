"""Values of ``--env NAME=VALUE`` stand in no record; a session that goes on is given them again."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli import resume as resume_command
from agent.cli import solve as solve_command
from agent.errors import ConfigError
from agent.settings.load import load_settings

SECRET = "s3cret-value-of-a-token"
COUNT = "printenv TOKEN | wc -c"


def test_the_value_reaches_commands_and_no_file(
    buggy_repo, scripted_model, script, own_places: Path, store, capsys, monkeypatch
) -> None:
    model = scripted_model(
        script.turn(script.call("run_shell_command", command=COUNT)),
        script.turn(script.call("submit", summary="looked")),
        script.turn(script.call("run_shell_command", command=COUNT)),
        script.turn(script.call("submit", summary="looked")),
    )
    flags = {"sandbox": "local", "pass_env": f"TOKEN={SECRET}"}
    solve_command.run("look", buggy_repo, flags, model=model)
    saved = store.newest(buggy_repo)
    assert f"{len(SECRET) + 1}" in saved.trajectory.read_text()
    assert saved.info.settings["pass_env"] == ["TOKEN"]
    resume_command.run(saved.id, "again", {}, model=model)
    said = capsys.readouterr()
    assert "TOKEN of --env has no value here" in said.err
    files = [path for path in own_places.rglob("*") if path.is_file()]
    assert files and not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert SECRET not in said.out + said.err


def test_a_bad_entry_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({"pass_env": (f"TOKEN={SECRET}", f"1BAD={SECRET}")})
    assert "1BAD" in str(caught.value) and SECRET not in str(caught.value)
