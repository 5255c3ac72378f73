"""The cache: several users at once, damage, and no place to write."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tools.index.extract import Extractor
from tools.index.languages import BY_NAME
from tools.index.parsing import ParseWorkers
from tools.index.repository_index import RepositoryIndex
from tools.index.tag_store import TagStore, cache_path
from tools.index.tags import Packed, pack, unpack

PACKED = pack(Extractor().tags("python", b"class A:\n    def f(self): return g()\n"))


def test_what_was_put_is_there_for_the_next(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tags.sqlite"
    one = TagStore(path)
    one.put([(b"k1", PACKED), (b"k2", None)])
    other = TagStore(path)
    assert other.known([b"k1", b"k2", b"k3"]) == {b"k1": True, b"k2": False}
    assert other.get(b"k1") == PACKED
    assert other.outline(b"k1") == PACKED.outline
    assert [tuple(row) for row in other.names([b"k1"])] == [
        (b"k1", PACKED.defined, PACKED.names, PACKED.weights)
    ]
    assert other.get(b"k3") is None
    one.close()
    other.close()


def test_the_key_depends_on_content_language_and_query() -> None:
    store = TagStore()
    python, go = BY_NAME["python"], BY_NAME["go"]
    keys = {
        store.key(python, "q", b"x"),
        store.key(python, "q", b"y"),
        store.key(go, "q", b"x"),
        TagStore().key(python, "other", b"x"),
    }
    assert len(keys) == 4
    assert store.key(python, "q", b"x") == TagStore().key(python, "q", b"x")


def test_more_keys_than_sqlite_takes_at_once() -> None:
    store = TagStore()
    keys = [number.to_bytes(20, "big") for number in range(2_500)]
    store.put([(key, PACKED) for key in keys])
    assert set(store.known(keys)) == set(keys)
    assert len(list(store.names(keys))) == 2_500


@pytest.mark.parametrize(
    "content", [b"not a database" * 1000, b"", b"SQLite format 3\0" + b"\1" * 5000]
)
def test_a_damaged_file_is_made_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tags.sqlite"
    path.write_bytes(content)
    store = TagStore(path)
    store.put([(b"k", PACKED)])
    assert store.get(b"k") == PACKED
    store.close()
    assert TagStore(path).get(b"k") == PACKED


def test_another_schema_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "tags.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE tags (key BLOB PRIMARY KEY, day INTEGER)")
    connection.commit()
    connection.close()
    store = TagStore(path)
    store.put([(b"k", PACKED)])
    assert store.get(b"k") == PACKED


def test_without_a_place_to_write_it_works_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = TagStore(tmp_path / "file" / "tags.sqlite")
    store.put([(b"k", PACKED)])
    assert store.get(b"k") == PACKED


def test_a_full_disk_costs_the_cache_only(tmp_path: Path) -> None:
    store = TagStore(tmp_path / "tags.sqlite")
    store._connection.execute("PRAGMA max_page_count = 8")
    big = Packed(PACKED.outline, PACKED.defined, b"n" * 200_000, b"", b"", b"")
    store.put([(b"k1", big)])
    store.put([(b"k2", PACKED)])
    assert store.get(b"k1") == big
    assert store.get(b"k2") == PACKED


def test_threads_and_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "tags.sqlite"
    script = (
        "import sys; from pathlib import Path; from tools.index.tag_store import TagStore; "
        "from tools.index.tags import Packed; n = int(sys.argv[2]); "
        "s = TagStore(Path(sys.argv[1])); "
        "[s.put([(b'%d-%d' % (n, i), Packed(b'[]', b'', b'', b'', b'', b''))]) for i in range(60)]"
    )
    root = str(Path(__file__).parents[4])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path), str(n)], cwd=root, stderr=subprocess.PIPE
        )
        for n in range(3)
    ]

    def write() -> None:
        store = TagStore(path)
        for number in range(60):
            store.put([(b"t-%d" % number, PACKED)])

    thread = threading.Thread(target=write)
    thread.start()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    thread.join()
    keys = [b"%d-%d" % (n, i) for n in range(3) for i in range(60)]
    keys += [b"t-%d" % number for number in range(60)]
    assert set(TagStore(path).known(keys)) == set(keys)


def test_what_nobody_used_for_long_goes(tmp_path: Path) -> None:
    store = TagStore(tmp_path / "tags.sqlite")
    store.put([(b"old", PACKED), (b"new", PACKED)])
    with store._connection as connection:
        connection.execute("UPDATE tags SET day = 1")
    store.touch([b"new"])
    assert set(store.known([b"old", b"new"])) == {b"new"}


def test_the_place_is_the_cache_of_the_user(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_path().parent == tmp_path / "tenuto"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_path().parent == Path.home() / ".cache" / "tenuto"


@pytest.mark.parametrize(
    "packed",
    [
        Packed(b"[]", b"", b"a\nb", b"\0" * 4, b"\0" * 8, b""),
        Packed(b"[]", b"", b"a", b"\0" * 4, b"\1\0\0\0", b""),
        Packed(b"[[1]]", b"", b"", b"", b"", b""),
        Packed(b"{}", b"", b"", b"", b"", b""),
        Packed(b"[", b"", b"", b"", b"", b""),
        Packed(b"[]", b"", b"\xff", b"\0" * 4, b"\0" * 4, b""),
        Packed(b"[]", b"", b"a", b"\0" * 3, b"\0" * 4, b""),
    ],
)
def test_records_that_do_not_fit_are_refused(packed: Packed) -> None:
    with pytest.raises(ValueError):
        unpack(packed)


MUTATIONS = int(os.environ.get("TENUTO_FUZZ", "60"))


def make_sources(top: Path) -> None:
    chance = random.Random(7)
    names = [f"name_{number}" for number in range(40)]
    for number in range(12):
        lines = [
            f"def {chance.choice(names)}(a):\n    return {chance.choice(names)}(a)\n"
            for _ in range(chance.randint(1, 12))
        ]
        (top / f"m{number}.py").write_text("\n".join(lines))


def answers(top: Path, cache: Path | None, workers: ParseWorkers) -> list[object]:
    """All that an index over ``top`` says, as it is asked for by the tools."""
    store = TagStore(cache)
    index = RepositoryIndex(top, store, workers)
    tables = index.refresh()
    names = sorted(index.all_names())
    said: list[object] = [tables.files, names, str(index.left_out)]
    said += [(name, index.files_defining(name)) for name in names]
    said += [(path, index.outline(path)) for path in tables.files]
    for name in names[:8]:
        said += [(path, index.lines_with(path, name)) for path in tables.files]
    store.close()
    return said


def mutate(data: bytearray, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    kind = chance.choice(["flip", "flip", "block", "swap", "cut", "text"])
    if kind == "flip":
        data[at] ^= 1 << chance.randrange(8)
    elif kind == "block":
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    elif kind == "swap":
        other = chance.randrange(len(data))
        data[at : at + 32], data[other : other + 32] = data[other : other + 32], data[at : at + 32]
    elif kind == "cut":
        del data[at:]
    else:
        place = max(data.find(b"name_", at), 0) + 5
        data[place : place + 1] = b"9"
    return bytes(data)


def test_a_mutated_cache_gives_no_other_answer(tmp_path: Path) -> None:
    """``TENUTO_FUZZ`` says how many mutations are tried."""
    top, cache = tmp_path / "top", tmp_path / "tags.sqlite"
    top.mkdir()
    make_sources(top)
    workers = ParseWorkers()
    expected = answers(top, None, workers)
    assert answers(top, cache, workers) == expected
    whole = cache.read_bytes()
    chance = random.Random(11)
    for number in range(MUTATIONS):
        for end in ("-wal", "-shm"):
            Path(f"{cache}{end}").unlink(missing_ok=True)
        cache.write_bytes(mutate(bytearray(whole), chance))
        assert answers(top, cache, workers) == expected, f"mutation {number}"
    workers.close()


def test_a_row_that_is_damaged_in_the_meantime_is_made_anew(tmp_path: Path) -> None:
    top, cache = tmp_path / "top", tmp_path / "tags.sqlite"
    top.mkdir()
    make_sources(top)
    workers = ParseWorkers()
    index = RepositoryIndex(top, TagStore(cache), workers)
    index.refresh()
    whole = RepositoryIndex(top, TagStore(), workers)
    whole.refresh()
    connection = sqlite3.connect(cache)
    with connection:
        connection.execute("UPDATE tags SET outline = x'5b5d', lines = x'01000000'")
    connection.close()
    for path in index.tables.files:
        assert index.outline(path) == whole.outline(path) != ()
    workers.close()
