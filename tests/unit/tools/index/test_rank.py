"""PageRank against plain linear algebra, and what weighs a definition."""

from __future__ import annotations

import numpy as np
import pytest

from tools.index.rank import DAMPING, Interest, Ranker, _iterate
from tools.index.repository_index import Tables


class Graph:
    """Tables built from words: file -> (defined names, mentioned names with weights)."""

    def __init__(self, files: dict[str, tuple[list[str], dict[str, int]]]) -> None:
        self.names: list[str] = []
        paths = tuple(sorted(files))
        rows = [(self.id(n), i) for i, p in enumerate(paths) for n in files[p][0]]
        mentions = [(self.id(n), i, w) for i, p in enumerate(paths) for n, w in files[p][1].items()]
        columns = np.array(rows, dtype=np.int64).reshape(-1, 2).T
        other = np.array(mentions, dtype=np.int64).reshape(-1, 3).T
        self.tables = Tables(
            paths,
            *columns,
            *np.zeros((2, 0), dtype=np.int64),
            *other[:2],
            other[2].astype(np.float64),
        )

    def id(self, name: str) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def find(self, name: str) -> int | None:
        return self.names.index(name) if name in self.names else None

    def rank(self, task: str = "", read: tuple[str, ...] = ()) -> list[tuple[str, str]]:
        ranked = Ranker().rank(self.tables, self.names, self.find, Interest(task, frozenset(read)))
        assert list(ranked.score) == sorted(ranked.score, reverse=True)
        return [
            (self.tables.files[file], self.names[name])
            for file, name in zip(ranked.file, ranked.name, strict=True)
        ]


GRAPH = {
    "a.py": (["used_often", "used_once", "never_used"], {}),
    "b.py": (["other_thing"], {"used_often": 4}),
    "c.py": (["more_things"], {"used_often": 4, "used_once": 1}),
    "d.py": ([], {"other_thing": 1}),
}


def test_what_is_mentioned_most_comes_first() -> None:
    order = [name for _, name in Graph(GRAPH).rank()]
    assert order[0] == "used_often"
    assert order.index("used_once") < order.index("never_used")
    assert set(order) == {"used_often", "used_once", "never_used", "other_thing", "more_things"}


def test_the_task_moves_names_and_files_up() -> None:
    graph = Graph(GRAPH)
    assert graph.rank("`never_used` is broken")[0] == ("a.py", "never_used")
    for file, name in (("b.py", "other_thing"), ("c.py", "more_things")):
        others = [item for item in graph.rank(f"look at {file}") if item[0] in ("b.py", "c.py")]
        assert others[0] == (file, name)


def test_what_was_read_moves_what_it_mentions_up() -> None:
    files: dict[str, tuple[list[str], dict[str, int]]] = {
        "a.py": (["one_thing"], {}),
        "b.py": (["other_thing"], {}),
        "c.py": ([], {"one_thing": 1}),
        "d.py": ([], {"other_thing": 1}),
    }
    assert Graph(files).rank(read=("c.py",))[0] == ("a.py", "one_thing")
    assert Graph(files).rank(read=("d.py",))[0] == ("b.py", "other_thing")


def test_a_name_that_the_file_defines_itself_is_its_own() -> None:
    graph = Graph(
        {"a.py": (["shared_name"], {}), "b.py": (["shared_name", "main_thing"], {"shared_name": 9})}
    )
    ranked = Ranker().rank(graph.tables, graph.names, graph.find, Interest())
    assert ranked.score.max() < 0.01  # no reference reaches another file


def test_private_and_everyday_names_weigh_less() -> None:
    files: dict[str, tuple[list[str], dict[str, int]]] = {
        "a.py": (["get", "_hidden_name", "clear_name"], {}),
        "b.py": ([], {"get": 1, "_hidden_name": 1, "clear_name": 1}),
    }
    assert [name for _, name in Graph(files).rank()] == ["clear_name", "get", "_hidden_name"]


@pytest.mark.parametrize("seed", range(5))
def test_pagerank_is_the_fixed_point(seed: int) -> None:
    generator = np.random.default_rng(seed)
    size = 12
    source = generator.integers(0, size - 2, 40)  # the last two have no way out
    target = generator.integers(0, size, 40)
    weight = generator.random(40)
    start = generator.random(size)
    start /= start.sum()
    out = np.bincount(source, weights=weight, minlength=size)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (target, source), weight / out[source])
    matrix[:, out == 0] = start[:, None]
    expected = np.linalg.solve(np.eye(size) - DAMPING * matrix, (1 - DAMPING) * start)
    ranks = _iterate(source, target, weight, out, start)
    assert ranks.sum() == pytest.approx(1.0, abs=1e-6)
    # Forty steps leave at most 0.85 ** 40 of the first error.
    assert ranks == pytest.approx(expected, abs=2 * DAMPING**40)


def test_an_empty_index_has_no_rank() -> None:
    assert Graph({}).rank("anything") == []
    assert Graph({"a.py": ([], {"x": 1})}).rank() == []
