"""The user's files and the copy: alike in the end, and nothing of the user's is ever lost."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.run.mirror import Mirror
from sandboxes.workspace.workspace import Workspace

NAMES = ("a.txt", "b.txt", "d/c.txt")
START = {"a.txt": "one\ntwo\nthree\nfour\nfive\n", "b.txt": "x\n"}
EDIT = st.tuples(st.integers(0, 4), st.sampled_from(("change", "change", "change", "remove")))
ROUND = st.tuples(st.sampled_from(NAMES), st.none() | EDIT, st.none() | EDIT)
"""A file, and what the user and the model do to it between two looks."""


def edit(folder: Path, name: str, line: int, how: str, mark: str) -> None:
    """Change line ``line``, or add one, or remove the file."""
    path = folder / name
    if how == "remove":
        path.unlink(missing_ok=True)
        return
    lines = path.read_text().splitlines() if path.exists() else []
    lines[line:line] = [] if line < len(lines) else [""] * (line - len(lines))
    lines[line : line + 1] = [mark]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{text}\n" for text in lines))


def files(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in NAMES if (folder / name).exists()}


@settings(
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rounds=st.lists(ROUND, max_size=5))
def test_both_sides_agree_and_the_users_words_stand(git_repo: Callable[..., Path], rounds) -> None:
    with tempfile.TemporaryDirectory() as folder:
        repo = git_repo(START, name=Path(folder).name)
        with Workspace.create(repo, parent=Path(folder) / "work") as workspace:
            mirror = Mirror(workspace)
            mirror.look()
            for number, (name, users, models) in enumerate(rounds):
                before = files(repo)
                if users is not None:
                    edit(repo, name, *users, f"user {number}")
                if models is not None:
                    edit(workspace.path, name, *models, f"model {number}")
                wanted = files(repo).get(name)
                pulled = mirror.look()
                now = files(repo)
                assert now == files(workspace.path)
                if wanted != before.get(name):  # the user changed something
                    assert models is not None or pulled == [name]
                    if wanted is None:
                        assert name not in now
                    else:
                        assert users is None or f"user {number}" in now[name]
                assert {k: v for k, v in now.items() if k != name} == {
                    k: v for k, v in before.items() if k != name
                }
