"""A run that begins in a folder below the repository's top works on the whole repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.client import Client
from agent.control.policy import Hook, HookLists
from agent.run.resume import resume
from agent.run.solve import solve
from agent.run.standing import folder_of_check, stand, standing_text
from agent.settings.table import Settings
from agent.types import Task
from sandboxes.errors import NotARepository

SETTINGS = Settings(sandbox="local", map_tokens=0)
ALONE = Settings(sandbox="local", folder_alone=True)
FILES = {
    "top.txt": "top\n",
    "AGENTS.md": "Said at the top.\n",
    "pkg/sub/AGENTS.md": "Said below.\n",
    "pkg/sub/calc.py": "def add(a, b):\n    return a - b\n",
    "pkg/sub/test_calc.py": "from calc import add\n\nassert add(2, 3) == 5\n",
}
CHECK = "python3 -B test_calc.py && test -e ../../top.txt"


@pytest.fixture
def repo(git_repo) -> Path:
    return git_repo(FILES)


def test_the_repository_around_the_folder_is_worked_on(repo: Path, tmp_path: Path) -> None:
    below = repo / "pkg" / "sub"
    assert stand(below, SETTINGS) == (repo, "pkg/sub")
    assert stand(repo, SETTINGS) == (repo, "")
    assert stand(below, ALONE) == (below, "")
    with pytest.raises(NotARepository):
        stand(tmp_path, SETTINGS)


def test_a_check_runs_where_the_user_stands_unless_the_top_names_it(repo: Path) -> None:
    assert folder_of_check(repo, "pkg/sub", CHECK) == "pkg/sub"
    assert folder_of_check(repo, "", CHECK) == ""
    (repo / ".agent.toml").write_text(f"check = {json.dumps(CHECK)}\n")
    assert folder_of_check(repo, "pkg/sub", CHECK) == ""
    assert folder_of_check(repo, "pkg/sub", "true") == "pkg/sub"
    (repo / ".agent.toml").write_text("= broken")
    assert folder_of_check(repo, "pkg/sub", CHECK) == "pkg/sub"


def test_the_model_is_told_where_the_user_stands_and_at_the_top_nothing(repo: Path) -> None:
    assert standing_text(repo, "", CHECK) == ""
    told = standing_text(repo, "pkg/sub", CHECK)
    assert told.startswith("The user stands in pkg/sub/")
    assert told.endswith("The check is run in pkg/sub/.")
    assert "check" not in standing_text(repo, "pkg/sub", None)


def test_a_run_from_below_has_it_all_and_resumes_so(
    repo: Path, scripted_model, script, store, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(repo / "pkg" / "sub")
    told = tmp_path / "told.json"
    old, new = "    return a - b", "    return a + b"
    edit = script.call("edit", file_path="pkg/sub/calc.py", old_string=old, new_string=new)
    model = scripted_model(
        script.turn(script.call("run_shell_command", command="cat top.txt"), edit),
        script.turn(script.call("submit", summary="it adds")),
        script.turn(script.call("submit", summary="again")),
    )
    top, folder = stand(Path(), SETTINGS)
    client = Client(hooks=HookLists(end=(Hook(command=f"cat > {told}"),)))
    report = solve(Task("repair add", top, CHECK, folder=folder), SETTINGS, model, client)
    assert report.check is not None
    assert (report.check.before.passed, report.check.after.passed) == (False, True)  # type: ignore[union-attr]
    assert "+++ b/pkg/sub/calc.py" in report.patch
    assert report.result.steps[0].observations[0].text.startswith("top\n")
    hooked = json.loads(told.read_text())["repo"]
    assert hooked == str(repo.resolve())
    saved = store.find(report.session)
    assert (saved.info.repo, saved.info.place) == (repo, repo / "pkg" / "sub")
    record = saved.trajectory.read_text()
    for words in ("The user stands in pkg/sub/", "Said at the top.", "Said below."):
        assert words in record
    again = resume(saved, "look again", SETTINGS, model)
    assert again.check is not None and again.check.passed
