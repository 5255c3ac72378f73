"""The repository's notes and map, as the first prompt tells them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.control.toolbox import Toolbox
from agent.loading import LoadedModel
from agent.loop.overview import INTRODUCTION, OWN_SKILLS, overview
from agent.run.offered import offered
from agent.settings.extensions import own_skills
from agent.settings.table import Settings
from sandboxes.backends.local import LocalSandbox
from sandboxes.base import Sandbox
from sandboxes.workspace.workspace import Workspace
from tests.conftest import GitRepo, ScriptedModel
from tools.registry import Registry
from tools.types import ToolContext

FILES = {
    "AGENTS.md": "Use tabs.",
    "shapes.py": "class Square:\n    def area(self):\n        return self.side ** 2\n",
    "use.py": "from shapes import Square\n\nSquare().area()\n",
}


@pytest.fixture
def opened(
    git_repo: GitRepo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[dict[str, str]], tuple[Path, Sandbox]]]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    boxes: list[Sandbox] = []

    def make(files: dict[str, str]) -> tuple[Path, Sandbox]:
        repo = git_repo(files)
        boxes.append(LocalSandbox(Workspace.create(repo)))
        return repo, boxes[-1]

    yield make
    for box in boxes:
        box.close()


@pytest.fixture
def model(scripted_model: ScriptedModel) -> LoadedModel:
    return scripted_model("x")


def test_notes_and_map_are_the_same_each_time(
    opened: Callable[[dict[str, str]], tuple[Path, Sandbox]], model: LoadedModel
) -> None:
    repo, box = opened(FILES)
    settings = Settings(map_tokens=300)
    told = overview(repo, box, settings, model)
    notes, drawn = told.split(f"\n\n{INTRODUCTION}\n\n")
    assert notes.endswith("Use tabs.")
    assert "class Square" in drawn
    assert model.chat.count_tokens(drawn) <= 300
    assert overview(repo, box, settings, model) == told


@pytest.mark.parametrize("files", [{}, {"notes.txt": "x"}, {"broken.py": "def (:\n"}])
def test_what_cannot_be_mapped_gets_no_map(
    opened: Callable[[dict[str, str]], tuple[Path, Sandbox]],
    model: LoadedModel,
    files: dict[str, str],
) -> None:
    repo, box = opened(files)
    assert overview(repo, box, Settings(map_tokens=300), model) == ""


def test_it_can_be_left_out_and_is_for_a_small_context(
    opened: Callable[[dict[str, str]], tuple[Path, Sandbox]], model: LoadedModel
) -> None:
    repo, box = opened(FILES)
    assert INTRODUCTION not in overview(repo, box, Settings(map_tokens=0), model)
    assert INTRODUCTION in overview(repo, box, Settings(), model)
    model.engine.network.__dict__["context_length"] = 8192
    assert INTRODUCTION not in overview(repo, box, Settings(), model)


def test_the_users_own_skills_are_a_line_each_and_read_by_a_tool(
    opened: Callable[[dict[str, str]], tuple[Path, Sandbox]], model: LoadedModel, tmp_path: Path
) -> None:
    for name, text in {
        "release": "---\ndescription: Make a release\n---\nTag it.",
        "odd": "---\ndescription: [\n---\n",
        "plain": "# Write plainly\n\nShort words.",
    }.items():
        place = tmp_path / "own/skills" / name
        place.mkdir(parents=True)
        (place / "SKILL.md").write_text(text)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/SKILL.md").write_text("Secret.")
    (tmp_path / "own/skills/link").symlink_to(tmp_path / "elsewhere")
    own = own_skills(tmp_path / "own")
    repo, box = opened({"notes.txt": "x"})
    told = overview(repo, box, Settings(map_tokens=0), model, own=own)
    assert told == f"{OWN_SKILLS}\n- plain: Write plainly\n- release: Make a release"

    (tool,) = offered(model, own)
    registry = Registry(ToolContext(box), Toolbox(skills=own).tools(also=[tool]))
    assert registry.run("skill", {"name": "release"}).text == "Tag it."
    unknown = registry.run("skill", {"name": "link"})
    assert unknown.text == "There is no skill 'link'. The skills are: plain, release."
    assert registry.kind("skill") == "session"

    model.engine.network.__dict__["context_length"] = 8192
    assert overview(repo, box, Settings(map_tokens=0), model, own=own) == ""
    assert offered(model, own) == ()
