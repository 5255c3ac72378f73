"""Commands and skills from files: used where they are sound, named where they are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.settings.extensions import MAX_BYTES, find_extensions, split_front_matter


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    repo, own = tmp_path / "repo", tmp_path / "own"
    (repo / ".agents/commands").mkdir(parents=True)
    (repo / ".claude/skills/release").mkdir(parents=True)
    (own / "commands").mkdir(parents=True)
    return repo, own


def test_commands_and_skills_are_found_and_spelt_out(places: tuple[Path, Path]) -> None:
    repo, own = places
    (repo / ".agents/commands/review.md").write_text(
        "---\ndescription: Review a file\n---\nReview $ARGUMENTS with care.\n"
    )
    (own / "commands/review.md").write_text("My own review.")
    (repo / ".claude/skills/release/SKILL.md").write_text(
        "---\nname: release\ndescription: Make a release\n---\nTag it."
    )
    found = find_extensions(repo, own)
    assert found.found["review"].message("a.py") == "My own review.\n\na.py"
    skill = found.found["release"]
    assert (skill.kind, skill.description) == ("skill", "Make a release")
    assert skill.message("1.2").endswith("Tag it.\n\n1.2")
    assert len(found.troubles) == 1
    assert "'review'" in found.troubles[0]


def test_arguments_take_their_place(places: tuple[Path, Path]) -> None:
    repo, own = places
    (repo / ".agents/commands/fix.md").write_text("Fix $ARGUMENTS now.")
    assert find_extensions(repo, own).found["fix"].message("a b") == "Fix a b now."


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("---\ndescription: x\n", "no closing ---"),
        ("---\n[a: b\n---\n", "no YAML"),
        ("---\n- a\n---\n", "no mapping"),
        ("---\n" + "[" * 3000 + "\n---\n", "no YAML"),
    ],
)
def test_broken_front_matter_is_one_line(places: tuple[Path, Path], text: str, says: str) -> None:
    repo, own = places
    (repo / ".agents/commands/bad.md").write_text(text)
    found = find_extensions(repo, own)
    assert not found.found
    assert says in found.troubles[0]
    assert "\n" not in found.troubles[0]


def test_what_leads_out_or_is_no_file_is_left_out(places: tuple[Path, Path]) -> None:
    repo, own = places
    outside = repo.parent / "secret"
    outside.mkdir()
    (outside / "SKILL.md").write_text("secret")
    (repo / ".claude/skills/out").symlink_to(outside)
    (repo / ".claude/skills/link").mkdir()
    (repo / ".claude/skills/link/SKILL.md").symlink_to(outside / "SKILL.md")
    os.mkfifo(repo / ".agents/commands/pipe.md")
    (repo / ".agents/commands/huge.md").write_text("x" * (MAX_BYTES + 1))
    (repo / ".agents/commands/..evil.md").write_text("x")
    (repo / ".agents/skills").symlink_to(outside.parent)
    found = find_extensions(repo, own)
    assert found.found == {}
    assert len(found.troubles) == 5


def test_front_matter_is_cut_off() -> None:
    assert split_front_matter("---\na: 1\n---\nrest\n") == ({"a": 1}, "rest\n")
    assert split_front_matter("no front matter") == ({}, "no front matter")
