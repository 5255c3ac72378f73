"""Rank definitions by personalised PageRank over who mentions whose names.

A file passes its rank on to the files that define what it mentions, in proportion to how often it
mentions it and how few files define that name (Page, Brin, Motwani, Winograd 1999, with the
personalised start of Haveliwala 2002). What the task names and what has been read weighs more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tools.index.repository_index import Ids, Tables

DAMPING = 0.85
_ITERATIONS = 40
_CLOSE_ENOUGH = 1e-7
_MAX_DEFINERS = 15
_UNASKED_SHARE = 0.3
_UNMENTIONED = 1e-3
_TASK_CHARACTERS = 50_000

_NAMED_CODE, _NAMED_WORD = 10.0, 3.0
_READ_BOOST, _PATH_BOOST, _STEM_BOOST, _DEFINES_BOOST = 10.0, 10.0, 3.0, 5.0
_WORD = re.compile(r"[^\W\d][\w$]*")
_PATH = re.compile(r"[\w./\\+-]+")
_LOOKS_LIKE_CODE = re.compile(r"_|[a-z\d][A-Z]|\d")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interest:
    """The subject of a question: the task's words, and the files that were read."""

    task: str = ""
    read: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Ranked:
    """Definitions by their weight: ``file[i]`` (an index into the table's files), ``name[i]``."""

    file: Ids
    name: Ids
    score: Floats


@dataclass
class _Edges:
    """The mentions of definitions. ``pair`` is an index into the definitions sorted by name."""

    name: Ids
    file: Ids
    definers: Ids
    source: Ids
    pair: Ids
    weight: Floats
    link_source: Ids
    link_target: Ids
    link_of: Ids


@dataclass
class Ranker:
    """A ranking of one index's definitions; keeps the graph until the index changes."""

    _tables: Tables | None = None
    _edges: _Edges | None = None
    _name_weights: list[float] = field(default_factory=list)

    def rank(
        self,
        tables: Tables,
        names: list[str],
        name_id: Callable[[str], int | None],
        interest: Interest,
    ) -> Ranked:
        """Rank every definition, the weightiest first. ``names`` has each name at its id."""
        if self._tables is not tables or self._edges is None:
            self._edges = _join_edges(tables, self._weights(names))
            self._tables = tables
        edges = self._edges
        count = len(tables.files)
        if not count or not len(edges.name):
            none = np.zeros(0, dtype=np.int64)
            return Ranked(none, none, np.zeros(0))
        named = np.ones(len(names))
        for word, factor in _find_words(interest.task).items():
            if (number := name_id(word)) is not None:
                named[number] = factor
        paths = _boost_paths(tables.files, interest.task[:_TASK_CHARACTERS])
        start = _make_start(tables, edges, interest, named, paths)
        weight = edges.weight * named[edges.name[edges.pair]]
        links = _sum_by_index(edges.link_of, weight, len(edges.link_source))
        out = _sum_by_index(edges.link_source, links, count)
        ranks = _iterate(edges.link_source, edges.link_target, links, out, start)
        flow = ranks[edges.source] * weight / np.maximum(out[edges.source], 1e-300)
        score = _sum_by_index(edges.pair, flow, len(edges.name))
        # What nobody mentions still ranks by its file, below the rest, private names last.
        own = np.asarray(self._weights(names))[edges.name] * named[edges.name]
        score += _UNMENTIONED * ranks[edges.file] * own
        # A definition that the task names is where the reader begins.
        asked = (named[edges.name] >= _NAMED_CODE) & (edges.definers <= _MAX_DEFINERS)
        score += np.where(asked, start[edges.file], 0.0)
        # So are the definitions of a file that it names, all of them together.
        own_count = np.maximum(_sum_by_index(edges.file, np.ones(len(edges.file)), count), 1)
        score += (start * (paths > 0) / own_count)[edges.file] * own
        order = np.lexsort((edges.name, edges.file, -score))
        return Ranked(edges.file[order], edges.name[order], score[order])

    def _weights(self, names: list[str]) -> list[float]:
        """Return each name's weight. Names are only ever added."""
        self._name_weights += [_weigh_looks(name) for name in names[len(self._name_weights) :]]
        return self._name_weights


def _weigh_looks(name: str) -> float:
    """Weigh a name by its looks: private, very short and everyday names (get, append) say less."""
    if name.startswith("__") and name.endswith("__"):
        return 0.02
    if len(name) < 4:
        weight = 0.2
    elif name.islower() and name.isalpha():
        weight = 0.4
    else:
        weight = 1.0
    return weight * (0.2 if name.startswith(("_", "#")) else 1.0)


def _join_edges(tables: Tables, looks: list[float]) -> _Edges:
    """Join mentions with definitions by name, all in columns."""
    order = np.argsort(tables.defined_name, kind="stable")
    name, file = tables.defined_name[order], tables.defined_in[order]
    size = len(looks)
    definers = np.bincount(name, minlength=size)
    # A name that a file defines itself is its own; one that many define says nothing.
    width = np.int64(max(len(tables.files), 1))
    own = np.isin(tables.mentioned_name * width + tables.mentioned_in, name * width + file)
    counts = definers[tables.mentioned_name]
    kept = (tables.weight > 0) & (counts > 0) & (counts <= _MAX_DEFINERS) & ~own
    mentioned, source = tables.mentioned_name[kept], tables.mentioned_in[kept]
    counts = counts[kept]
    weight = np.sqrt(tables.weight[kept]) * np.asarray(looks)[mentioned] / np.maximum(counts, 1)
    first = np.searchsorted(name, mentioned)
    at = np.repeat(np.arange(len(mentioned)), counts)
    within = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
    pair = first[at] + within
    source = source[at]
    links, link_of = np.unique(source * width + file[pair], return_inverse=True)
    return _Edges(
        name=name,
        file=file,
        definers=definers[name],
        source=source,
        pair=pair,
        weight=weight[at],
        link_source=links // width,
        link_target=links % width,
        link_of=link_of.reshape(-1),
    )


def _iterate(source: Ids, target: Ids, weight: Floats, out: Floats, start: Floats) -> Floats:
    """Rank files by power iteration; files without links go back to ``start``."""
    share = weight / np.maximum(out[source], 1e-300)
    stuck = out <= 0
    ranks = start
    for _ in range(_ITERATIONS):
        passed = _sum_by_index(target, ranks[source] * share, len(start))
        following: Floats = DAMPING * (passed + ranks[stuck].sum() * start) + (1 - DAMPING) * start
        if np.abs(following - ranks).sum() < _CLOSE_ENOUGH:
            return following
        ranks = following
    return ranks


def _sum_by_index(index: Ids, weight: Floats, size: int) -> Floats:
    """Sum the weights of each of ``size`` indices."""
    return np.asarray(np.bincount(index, weights=weight, minlength=size), dtype=np.float64)


def _find_words(task: str) -> dict[str, float]:
    """Return the task's words that may be names, and how much each looks like one."""
    text = task[:_TASK_CHARACTERS]
    words = {word: _NAMED_WORD for word in _WORD.findall(text) if len(word) >= 3}
    quoted = {word for part in re.findall(r"`([^`\n]+)`", text) for word in _WORD.findall(part)}
    for word in words:
        if word in quoted or _LOOKS_LIKE_CODE.search(word) or f"{word}(" in text:
            words[word] = _NAMED_CODE
    return words


def _make_start(
    tables: Tables, edges: _Edges, interest: Interest, named: Floats, paths: Floats
) -> Floats:
    """Return where a reader begins: anywhere, but mostly at what the task names or was read."""
    count = len(tables.files)
    boost = paths.copy()
    for index, path in enumerate(tables.files):
        if path in interest.read:
            boost[index] += _READ_BOOST
    if interest.task:
        asked = named[edges.name] >= _NAMED_CODE
        boost += _DEFINES_BOOST * np.minimum(np.bincount(edges.file[asked], minlength=count), 3)
    total = boost.sum()
    if total <= 0:
        return np.full(count, 1.0 / count)
    start: Floats = _UNASKED_SHARE / count + (1 - _UNASKED_SHARE) * boost / total
    return start


def _boost_paths(files: Sequence[str], task: str) -> Floats:
    """Weigh files more whose path or module name stands in the task."""
    if not task:
        return np.zeros(len(files))
    tokens = {token.strip("./\\-").replace("\\", "/") for token in _PATH.findall(task)}
    tokens |= {token.replace(".", "/") for token in tokens}
    tails = {token.rsplit("/", 1)[-1] for token in tokens}
    boosts = []
    for path in files:
        name = path.rsplit("/", 1)[-1]
        stem = name.partition(".")[0]
        if path in tokens or name in tails:
            boosts.append(_PATH_BOOST)
        elif len(stem) > 3 and (stem in tails or path.rpartition(".")[0] in tokens):
            boosts.append(_STEM_BOOST)
        else:
            boosts.append(0.0)
    return np.asarray(boosts)
