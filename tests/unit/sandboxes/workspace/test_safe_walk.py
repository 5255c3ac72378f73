"""The walk through an untrusted tree: order, links, pruning, depth, what vanishes meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sandboxes.workspace.safe_folders import Folders
from sandboxes.workspace.safe_walk import walk_folders


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    for path in ("b/inner/deep/x", "a/y", "z"):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (top / "a" / "link").symlink_to(outside)
    return top


def test_a_folder_comes_before_those_inside_it_in_the_order_of_names(tree: Path) -> None:
    with Folders(tree) as folders:
        seen = [(here.path, [e.name for e in here.entries]) for here in walk_folders(folders)]
    assert seen == [
        ("", ["a", "b", "z"]),
        ("a/", ["link", "y"]),
        ("b/", ["inner"]),
        ("b/inner/", ["deep"]),
        ("b/inner/deep/", ["x"]),
    ]


def test_the_walk_begins_where_it_is_told_to_and_skips_what_the_caller_takes_out(
    tree: Path,
) -> None:
    paths = []
    with Folders(tree) as folders:
        for here in walk_folders(folders, "b/"):
            paths.append(here.path)
            here.inner[:] = [name for name in here.inner if name != "deep"]
    assert paths == ["b/", "b/inner/"]


def test_a_folder_swapped_for_a_link_during_the_walk_is_passed_over(tree: Path) -> None:
    names: list[str] = []
    with Folders(tree) as folders:
        for here in walk_folders(folders):
            names += [entry.name for entry in here.entries]
            if not here.path:
                shutil.rmtree(tree / "b")
                (tree / "b").symlink_to(tree.parent / "outside")
    assert "secret" not in names
    assert names == ["a", "b", "z", "link", "y"]


def test_folders_deeper_than_the_bound_are_passed_over(tree: Path) -> None:
    with Folders(tree) as folders:
        paths = [here.path for here in walk_folders(folders, max_depth=1)]
    assert paths == ["", "a/", "b/"]
