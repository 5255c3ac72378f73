"""A repository in each language, found its way in and changed through the tools of a session."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandboxes.images.base_image import ensure_base_image
from sandboxes.open import open_sandbox
from sandboxes.workspace.workspace import Workspace
from tools.registry import Registry
from tools.text.token_estimate import estimate_tokens
from tools.types import Observation, ToolContext

GOLDEN = Path(__file__).parents[1] / "golden" / "navigation"
LANGUAGES = sorted(path.name for path in GOLDEN.iterdir())

# The file and line of a definition, a file that uses it, and a line that stays or breaks.
CASES = {
    "bash": ("make_cart", "cart.sh:9-11", "main.sh", '    total "$@"', 'total "$@'),
    "c": ("make_cart", "cart.c:15-19", "main.c", "    return a + b;", "    return (a + b;"),
    "c_sharp": ("MakeCart", "Cart.cs:19", "Program.cs", "{ Size = size; }", "{ Size = size; "),
    "cpp": ("make_cart", "cart.cpp:22-26", "main.cpp", "return cart.total();", "return cart.(;"),
    "go": ("MakeCart", "cart.go:27-29", "main.go", "\tsum := 0", "\tsum := := 0"),
    "java": ("makeCart", "Cart.java:16-18", "Main.java", "return items.length;", "return items.;"),
    "javascript": (
        "makeCart",
        "cart.js:15-17",
        "main.js",
        "return new Cart(items);",
        "return new (;",
    ),
    "php": (
        "make_cart",
        "cart.php:26-29",
        "main.php",
        "return count($this->items);",
        "return count(;",
    ),
    "python": (
        "make_cart",
        "cart.py:29-30",
        "main.py",
        "return Cart(list(items))",
        "return Cart((",
    ),
    "ruby": ("make_cart", "cart.rb:13-15", "main.rb", "      @items.sum", "      @items.sum)("),
    "rust": ("make_cart", "cart.rs:30-32", "main.rs", "    Cart { items }", "    Cart { items "),
    "tsx": ("Cart", "cart.tsx:3-5", "main.tsx", "<li>{item}</li>", "<li>{item</li>"),
    "typescript": (
        "makeCart",
        "cart.ts:16-18",
        "main.ts",
        "return new Cart(items);",
        "return new (;",
    ),
}


class Tools:
    """The tools of one session: ``tools("edit", file_path=...)`` runs a call that must succeed."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def __call__(self, name: str, /, **arguments: object) -> Observation:
        observation = self.registry.run(name, arguments)
        assert observation.ok, observation.text
        return observation


@pytest.fixture
def open_repo(
    git_repo: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Tools]]:
    """``open_repo(language, kind)``: the tools over the golden repository of a language."""
    opened = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(languages: list[str], kind: str) -> Tools:
        files = {
            (f"{language}/{file.name}" if len(languages) > 1 else file.name): file.read_bytes()
            for language in languages
            for file in (GOLDEN / language / "repo").iterdir()
        }
        workspace = Workspace.create(git_repo(files), parent=tmp_path / "workspaces")
        image = ensure_base_image() if kind == "docker" else None
        opened.append(open_sandbox(kind, workspace, image=image))
        return Tools(Registry(ToolContext(opened[-1], task="make_cart loses items")))

    yield make
    for sandbox in opened:
        sandbox.close()


def navigate_and_edit(tools: Tools, language: str, folder: str) -> None:
    """Map, find, read, break, repair and patch."""
    name, place, user, good, bad = CASES[language]
    file = folder + place.partition(":")[0]
    drawn = tools("repo_map", path=folder or ".", max_tokens=600)
    assert file in drawn.text and name in drawn.text
    assert estimate_tokens(drawn.text) <= 600
    assert folder + place + ": " in tools("find_symbol", name=name).text
    references = tools("find_references", name=name).text
    assert f"\n{folder}{user}\n" in references

    before = tools("read_file", file_path=file).text
    assert good in before
    broken = tools("edit", file_path=file, old_string=good, new_string=bad)
    assert broken.text.startswith(
        f"Edited {file}: 1 replacement.\nThe change is made, but {file} does"
    )
    line = broken.text.split("\n")[2]
    assert line.startswith("line ")
    repaired = tools("edit", file_path=file, old_string=bad, new_string=good)
    assert repaired.text == f"Edited {file}: 1 replacement."

    lines = before.split("\n")
    row = next(number for number, text in enumerate(lines) if good.strip() in text)
    indent = lines[row]
    patch = f"*** Begin Patch\n*** Update File: {file}\n@@\n-{indent}\n+{indent}\n+\n*** End Patch"
    assert tools("apply_patch", patch=patch).text == f"Edited {file}: +2 -1 lines."
    assert tools("read_file", file_path=file).text.split("\n")[row + 1] == ""
    searched = tools("grep_search", pattern=name, path=folder or ".").text
    assert f"{folder}{user}\n" in searched


def test_every_language_has_a_case() -> None:
    assert sorted(CASES) == LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_repository_in_a_language(language: str, open_repo: Callable[..., Tools]) -> None:
    kind = "bubblewrap" if shutil.which("bwrap") and language in ("python", "go") else "local"
    tools = open_repo([language], kind)
    navigate_and_edit(tools, language, "")
    diff = tools.registry.context.sandbox.workspace.diff()
    assert diff.count("diff --git") == 1


@pytest.mark.docker
def test_a_repository_in_all_languages_in_docker(
    open_repo: Callable[..., Tools], docker_engine: object
) -> None:
    tools = open_repo(LANGUAGES, "docker")
    for language in LANGUAGES:
        navigate_and_edit(tools, language, f"{language}/")
    # What the tools wrote belongs to the user of the commands inside.
    owned = tools("run_shell_command", command="stat -c %u */cart.* | sort -u; id -u").text
    assert len(set(owned.split("\n")[:2])) == 1


def test_what_the_session_does_is_in_no_index_of_the_user(
    open_repo: Callable[..., Tools], tmp_path: Path
) -> None:
    tools = open_repo(["python"], "local")
    tools("run_shell_command", command="ln -s / root; ln -s /etc/passwd p.py; mkfifo pipe.py")
    assert "root" not in tools("repo_map").text
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["tenuto"]
