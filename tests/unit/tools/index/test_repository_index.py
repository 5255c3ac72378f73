"""The index of a tree: what is in it, what brings it up to date, and what a hostile tree can do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandboxes.stop import Stop
from tools.index.parsing import ParseWorkers
from tools.index.repository_index import MAX_FILE_BYTES, RepositoryIndex, to_utf8
from tools.index.tag_store import TagStore


class CountingWorkers(ParseWorkers):
    """Real workers that count what they were asked to parse."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def tags_of(self, sources, stop):
        self.asked += len(sources)
        return super().tags_of(sources, stop)


class Tree:
    """A folder and its index."""

    def __init__(self, top: Path, store: TagStore) -> None:
        self.top = top
        self.workers = CountingWorkers()
        self.store = store
        self.index = self.fresh()

    def fresh(self) -> RepositoryIndex:
        return RepositoryIndex(self.top, self.store, self.workers, skip=frozenset({"node_modules"}))

    def write(self, path: str, content: str | bytes) -> Path:
        target = self.top / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def files(self) -> list[str]:
        return list(self.index.refresh().files)

    def defines(self, name: str) -> list[str]:
        tables = self.index.refresh()
        number = self.index.name_id(name)
        return [tables.files[file] for file in tables.defined_in[tables.defined_name == number]]

    def mentions(self, name: str) -> list[str]:
        tables = self.index.refresh()
        number = self.index.name_id(name)
        return [tables.files[file] for file in tables.mentioned_in[tables.mentioned_name == number]]


@pytest.fixture
def tree(tmp_path: Path):
    top = tmp_path / "tree"
    top.mkdir()
    made = Tree(top, TagStore(tmp_path / "cache" / "tags.sqlite"))
    yield made
    made.workers.close()
    made.store.close()


def test_definitions_and_mentions(tree: Tree) -> None:
    tree.write("src/cart.py", "class Cart:\n    def total(self): return 1\n")
    tree.write("main.py", "from src.cart import Cart\n\nCart().total()\n")
    tree.write("README.md", "Cart\n")
    assert tree.files() == ["main.py", "src/cart.py"]
    assert tree.defines("Cart") == ["src/cart.py"]
    assert tree.mentions("Cart") == ["main.py"]
    assert tree.index.lines_with("main.py", "Cart") == [1, 3]
    assert [item.name for item in tree.index.outline("src/cart.py")] == ["Cart", "total"]


def test_only_what_changed_is_parsed_again(tree: Tree) -> None:
    for number in range(30):
        tree.write(f"f{number}.py", f"def f{number}(): pass\n")
    tree.index.refresh()
    assert tree.workers.asked == 30
    tree.index.refresh()
    assert tree.workers.asked == 30
    tree.write("f3.py", "def changed(): pass\n")
    assert tree.defines("changed") == ["f3.py"]
    assert tree.defines("f3") == []
    assert tree.workers.asked == 31
    (tree.top / "f4.py").unlink()
    assert tree.defines("f4") == []
    assert tree.workers.asked == 31


def test_another_session_and_another_copy_parse_nothing(tree: Tree, tmp_path: Path) -> None:
    tree.write("a.py", "def one(): pass\n")
    tree.write("sub/b.go", "package b\nfunc Two() {}\n")
    tree.index.refresh()
    asked = tree.workers.asked
    tree.top.rename(tmp_path / "moved")
    other = Tree(tmp_path / "moved", tree.store)
    assert other.defines("one") == ["a.py"]
    assert other.workers.asked == 0
    assert tree.workers.asked == asked


def test_a_file_that_moves_is_not_parsed_again(tree: Tree) -> None:
    tree.write("a.py", "def one(): pass\n")
    tree.index.refresh()
    (tree.top / "a.py").rename(tree.top / "b.py")
    assert tree.defines("one") == ["b.py"]
    assert tree.workers.asked == 1


def test_what_is_written_in_the_same_moment_is_seen(tree: Tree) -> None:
    file = tree.write("a.py", "def one(): pass\n")
    tree.index.refresh()
    stamp = file.stat().st_mtime_ns
    file.write_text("def two(): pass\n")  # the same length
    os.utime(file, ns=(stamp, stamp))
    assert tree.defines("two") == ["a.py"]


def test_ignored_files_and_named_folders_stay_out(tree: Tree) -> None:
    tree.write(".gitignore", "build/\n*.gen.py\n!keep.gen.py\n")
    tree.write("sub/.gitignore", "/own.py\n")
    tree.write(".git/info/exclude", "private.py\n")
    for path in (
        *("build/a.py", "x.gen.py", "keep.gen.py", "sub/own.py", "sub/deep/own.py", "private.py"),
        *("node_modules/a.js", ".git/hooks/a.py"),
    ):
        tree.write(path, "def f(): pass\n")
    assert tree.files() == ["keep.gen.py", "sub/deep/own.py"]


def test_links_are_never_followed(tree: Tree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.py").write_text("def secret(): pass\n")
    (outside / ".gitignore").write_text("*.py\n")
    tree.write("a.py", "def one(): pass\n")
    (tree.top / "link.py").symlink_to(outside / "secret.py")
    (tree.top / "folder").symlink_to(outside)
    (tree.top / "loop").symlink_to(".")
    (tree.top / ".gitignore").symlink_to(outside / ".gitignore")
    assert tree.files() == ["a.py"]
    assert tree.defines("secret") == []


def test_a_folder_swapped_for_a_link_is_not_entered(tree: Tree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.py").write_text("def secret(): pass\n")
    tree.write("sub/a.py", "def one(): pass\n")
    tree.index.refresh()
    (tree.top / "sub").rename(tmp_path / "away")
    (tree.top / "sub").symlink_to(outside)
    assert tree.index.text_lines("sub/a.py") == []
    assert tree.files() == []


@pytest.mark.parametrize(
    "content",
    [b"\0\1\2" * 500, b"\x7fELF" + b"\0" * 100, b"", b"(" * 3_000, b"\xff\xfe" + b"\0d" * 10],
)
def test_what_is_no_source_does_no_harm(tree: Tree, content: bytes) -> None:
    tree.write("odd.py", content)
    tree.write("a.py", "def one(): pass\n")
    assert tree.defines("one") == ["a.py"]


def test_odd_names(tree: Tree) -> None:
    names = ["a\nb.py", "ü ☃.py", " .py", "-x.py", "'\"$(x).py", os.fsdecode(b"\xff.py")]
    for name in names:
        tree.write(name, "def one(): pass\n")
    assert sorted(tree.defines("one")) == sorted(names)


def test_pipes_and_sockets_are_passed_over(tree: Tree) -> None:
    os.mkfifo(tree.top / "pipe.py")
    tree.write("a.py", "def one(): pass\n")
    assert tree.files() == ["a.py"]


def test_too_large_files_are_left_out_and_said(tree: Tree) -> None:
    tree.write("big.py", b"x = 1\n" * (MAX_FILE_BYTES // 6 + 1))
    tree.write("a.py", "def one(): pass\n")
    assert tree.files() == ["a.py"]
    assert str(tree.index.left_out) == "1 too large"


def test_a_source_that_cannot_be_parsed_is_left_out_and_not_tried_again(tree: Tree) -> None:
    tree.workers.first._cpu_seconds = 0.1
    tree.write("slow.py", b"x = [" + b"a.b(c)," * 140_000 + b"]")
    assert tree.files() == []
    assert str(tree.index.left_out) == "1 that could not be parsed"
    tree.index.refresh()
    assert tree.workers.asked == 1
    tree.index = tree.fresh()
    tree.workers.first._cpu_seconds = 2.0
    assert tree.files() == []
    assert tree.workers.asked == 1
    tree.write("slow.py", "def fast(): pass\n")
    assert tree.defines("fast") == ["slow.py"]
    assert str(tree.index.left_out) == ""


def test_deep_folders_end_somewhere(tree: Tree) -> None:
    tree.write("/".join(["d"] * 200) + "/a.py", "def deep(): pass\n")
    tree.write("a.py", "def one(): pass\n")
    assert tree.files() == ["a.py"]


def test_a_stop_leaves_the_rest_for_later(tree: Tree) -> None:
    for number in range(120):
        tree.write(f"f{number}.py", f"def f{number}(): pass\n")
    assert len(tree.index.refresh(Stop(after_s=0)).files) < 120
    assert "not reached" in str(tree.index.left_out)
    assert len(tree.index.refresh().files) == 120
    assert str(tree.index.left_out) == ""


def test_a_damaged_record_is_made_anew(tree: Tree) -> None:
    tree.write("a.py", "def one(): pass\ndef two(): one()\n")
    tree.index.refresh()
    with tree.store._connection as connection:
        connection.execute("UPDATE tags SET outline = x'5b', weights = x'00', lines = x'00'")
    tree.index = tree.fresh()
    assert tree.files() == ["a.py"]
    assert [item.name for item in tree.index.outline("a.py")] == ["one", "two"]
    assert tree.index.lines_with("a.py", "one") == [2]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"x\n", b"x\n"),
        ("é".encode(), "é".encode()),
        ("é = 1".encode("latin-1"), "é = 1".encode()),
        (b"\xef\xbb\xbfx", b"x"),
        (b"\xff\xfe" + "é".encode("utf-16-le"), "é".encode()),
        (b"a\0b", None),
    ],
)
def test_any_encoding_becomes_utf_8(data: bytes, text: bytes | None) -> None:
    assert to_utf8(data) == text
