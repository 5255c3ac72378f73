"""The source code of a workspace: its index, outlines of files, syntax errors."""

from __future__ import annotations

import json
from contextlib import suppress

from sandboxes.base import Sandbox
from sandboxes.stop import Stop
from tools.errors import ToolFailure
from tools.files.places import NOISE
from tools.files.strict_json import find_json_problem
from tools.index.languages import Language, detect_language
from tools.index.parsing import ParseFailed, ParseWorkers
from tools.index.rank import Interest, Ranked, Ranker
from tools.index.repository_index import MAX_FILE_BYTES, RepositoryIndex, Tables
from tools.index.tag_store import TagStore, cache_path
from tools.index.tags import Definition, SyntaxProblem, unpack_outline

_HEAD_CHARACTERS = 16_384


class CodeReader:
    """A reader of source code that parses in another process and indexes at the first question."""

    def __init__(self, workers: ParseWorkers | None = None) -> None:
        self._workers = workers or ParseWorkers()
        self._ranker = Ranker()
        self._index: RepositoryIndex | None = None

    def index(self, sandbox: Sandbox, stop: Stop | None = None) -> RepositoryIndex:
        """Return the index of the workspace as it is now. Raises ``ToolFailure``."""
        if self._index is None:
            top = sandbox.resolve(".")
            self._index = RepositoryIndex(top, TagStore(cache_path()), self._workers, skip=NOISE)
        try:
            self._index.refresh(stop)
        except OSError as error:
            raise ToolFailure(
                f"The index cannot be made: {error.strerror or error}. Use grep_search."
            ) from None
        return self._index

    def rank(self, index: RepositoryIndex, tables: Tables, interest: Interest) -> Ranked:
        """Rank the definitions of the index, the weightiest first."""
        return self._ranker.rank(tables, index.all_names(), index.name_id, interest)

    def outline(self, path: str, text: str) -> tuple[Definition, ...]:
        """Return the definitions in ``text``; none if its language is unknown or it fails."""
        language = self._detect(path, text)
        if language is None or not language.indexed:
            return ()
        with suppress(ParseFailed, OSError, ValueError):
            source = text.encode("utf-8", "replace")
            return unpack_outline(self._workers.first.tags(language.name, source).outline)
        return ()

    def new_problems(self, path: str, before: str, after: str) -> list[SyntaxProblem]:
        """Return where ``after`` does not parse and ``before`` did; none if that cannot be told.

        A place counts as old if a line of the same text was broken before.
        """
        language = self._detect(path, after)
        if language is None:
            return []
        try:
            found = self._find_problems(language, after)
            old = self._find_problems(language, before) if found and before else []
        except (ParseFailed, OSError, ValueError):
            return []
        if not found and before.strip():
            return find_json_problem(path, before, after)
        lines_before = before.split("\n")
        known = [lines_before[problem.line - 1] for problem in old]
        lines_after = after.split("\n")
        new = []
        for problem in found:
            line = lines_after[min(problem.line, len(lines_after)) - 1]
            if line in known:
                known.remove(line)
            else:
                new.append(problem)
        # Errors move as the parser recovers elsewhere: no more of them than before is not worse.
        return new if len(found) > len(old) else []

    def close(self) -> None:
        """End the process that parses; it starts again when needed."""
        self._workers.close()

    def _find_problems(self, language: Language, text: str) -> list[SyntaxProblem]:
        source = text.encode("utf-8", "replace")
        return [
            SyntaxProblem(*row)
            for row in json.loads(self._workers.first.problems(language.name, source))
        ]

    def _detect(self, path: str, text: str) -> Language | None:
        if len(text) > MAX_FILE_BYTES:
            return None
        return detect_language(path, text[:_HEAD_CHARACTERS].encode("utf-8", "replace"))
