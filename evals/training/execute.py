"""Running small functions: find inputs they accept, record results, tell which mutants differ.

The code comes from installed packages and is run as it is, so each function gets a forked child
that may not write files, has little processor time, and hands back JSON only. Root may still start
processes there: make tasks in a container if the packages are not trusted.
"""

from __future__ import annotations

import ast
import json
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any

from evals.training.corpus import Function

CALL_S = 0.2
CHILD_S = 8
ATTEMPTS = 220
LONGEST = 44
"""Longest argument list or result, in characters, that goes into a test."""

POOLS: dict[str, list[str]] = {
    "int": ["0", "1", "2", "3", "5", "7", "10", "12", "-1", "-4", "100"],
    "float": ["0.5", "1.0", "2.5", "-1.5", "3.25"],
    "str": ["''", "'a'", "'abc'", "'Hello World'", "'a,b,c'", "'12'", "'x=1'", "'  pad '",
            "'Foo_bar'"],
    "list": ["[]", "[1]", "[3, 1, 2]", "[1, 2, 2, 5]", "[4, -2, 0, 9]", "[0, 1, 0]"],
    "words": ["[]", "['a']", "['b', 'a', 'c']", "['one', 'two', 'two']", "['', 'x']"],
    "pairs": ["[(1, 2), (3, 4)]", "[[1, 2], [3, 4]]", "[('a', 1), ('b', 2)]", "[[0, 1], [1, 0]]"],
    "dict": ["{}", "{'a': 1}", "{'a': 1, 'b': 2}", "{'x': 'y', 'z': 'w'}", "{1: 2, 3: 4}"],
    "other": ["None", "True", "False", "(1, 2)", "(3, 4, 5)", "{1, 2, 3}", "b'ab'"],
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One call and its result, both as source text."""

    arguments: str
    result: str


@dataclass(frozen=True)
class Probed:
    """A function with the cases it passes and, per mutant text, the first case that differs.

    ``killed`` maps a mutant's text to what its first differing case gave: a result as source text,
    or ``!Name`` for an exception, or ``?`` for something that has no short source text.
    """

    cases: tuple[Case, ...]
    killed: dict[str, tuple[int, str]]


class _TooLong(Exception):
    """A call took longer than ``CALL_S``."""


def probe(
    function: Function, mutants: Sequence[str], seed: int, modules: Callable[[str], str]
) -> Probed | None:
    """Find cases for ``function`` and run its mutants on them; None if it has no usable cases.

    ``modules`` turns a function text into the module text that holds it.
    """
    answer = _in_child(lambda: _probe(function, mutants, seed, modules))
    if answer is None:
        return None
    cases = tuple(Case(arguments, result) for arguments, result in answer["cases"])
    return Probed(cases, {text: (i, got) for text, i, got in answer["killed"]})


@dataclass(frozen=True)
class CaseFailure:
    """The first red assertion: how many test functions passed before, where, and pytest's words."""

    passed: int
    test: str
    crash_file: str
    crash_line: int
    message: str


def run_tests(
    modules: Sequence[str], path: str, test: str, beside: Mapping[str, str] | None = None
) -> list[CaseFailure | None] | None:
    """Run the test file on each module text: the first failure, or None where all pass.

    ``beside`` are other files that the module may import from. Returns None if the child did not
    finish, for example because a module never returns.
    """

    def run_all() -> dict[str, Any]:
        _import_files(beside or {})
        return {"failures": [_run_test_file(m, path, test) for m in modules]}

    answer = _in_child(run_all)
    if answer is None:
        return None
    return [None if found is None else CaseFailure(*found) for found in answer["failures"]]


def _import_files(files: Mapping[str, str]) -> None:
    """Make modules of ``files``, so that what runs in this process can import them."""
    for path, text in files.items():
        name = path.removesuffix(".py")
        module = ModuleType(name)
        exec(compile(text, path, "exec"), module.__dict__)
        sys.modules[name] = module


def _in_child(work: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    """Run ``work`` in a forked child with limits and return its JSON answer."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read_end)
            _confine()
            payload = json.dumps(work()).encode()
            with os.fdopen(write_end, "wb") as pipe:
                pipe.write(payload)
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    with suppress(ValueError):
        answer: dict[str, Any] | None = json.loads(data)
        return answer
    return None


def _confine() -> None:
    os.chdir(tempfile.gettempdir())
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    resource.setrlimit(resource.RLIMIT_CPU, (CHILD_S, CHILD_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))

    def too_long(_signal: int, _frame: FrameType | None) -> None:
        raise _TooLong

    signal.signal(signal.SIGALRM, too_long)


def _probe(
    function: Function, mutants: Sequence[str], seed: int, modules: Callable[[str], str]
) -> dict[str, Any] | None:
    random_ = random.Random(seed)
    call = _loaded(function.module_text, function.name)
    if call is None:
        return None
    count = len(function.parameters)
    found: dict[tuple[str, ...], dict[str, str]] = {}
    kinds = list(POOLS)
    likely: list[tuple[str, ...]] = []
    for attempt in range(ATTEMPTS):
        if likely and attempt % 2:
            signature = random_.choice(likely)
        else:
            signature = tuple(random_.choice(kinds) for _ in range(count))
        arguments = ", ".join(random_.choice(POOLS[kind]) for kind in signature)
        result = _call(call, arguments)
        if result is None or result == "None" or result.startswith("!"):
            continue
        if signature not in found:
            likely.append(signature)
        found.setdefault(signature, {})[arguments] = result
    if not found:
        return None
    best = max(found.values(), key=lambda cases: (len(set(cases.values())), len(cases)))
    if len(set(best.values())) < 2 or len(best) < 3:
        return None
    cases = _varied(random_, best)
    again = [_call(call, case.arguments) for case in cases]
    if again != [case.result for case in cases]:
        return None
    killed = []
    for text in mutants:
        difference = _first_difference(modules(text), function.name, cases)
        if difference is not None:
            killed.append((text, *difference))
    return {"cases": [(case.arguments, case.result) for case in cases], "killed": killed}


def _varied(random_: random.Random, results: dict[str, str]) -> list[Case]:
    """Up to six cases, different results first."""
    items = list(results.items())
    random_.shuffle(items)
    chosen: list[tuple[str, str]] = []
    seen: set[str] = set()
    for arguments, result in items:
        if result not in seen:
            chosen.append((arguments, result))
            seen.add(result)
    chosen += [item for item in items if item not in chosen]
    return [Case(*item) for item in chosen[: random_.randint(4, 6)]]


def _first_difference(text: str, name: str, cases: Sequence[Case]) -> tuple[int, str] | None:
    call = _loaded(text, name)
    for index, case in enumerate(cases):
        got = "!ImportError" if call is None else _call(call, case.arguments)
        if got != case.result:
            return index, got or "?"
    return None


def _loaded(text: str, name: str) -> Callable[..., object] | None:
    namespace: dict[str, Any] = {"__name__": "module"}
    try:
        signal.setitimer(signal.ITIMER_REAL, CALL_S)
        exec(compile(text, "module", "exec"), namespace)
        call = namespace[name]
    except BaseException:
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return call if callable(call) else None


def _call(call: Callable[..., object], arguments: str) -> str | None:
    """Return the result as source text, ``!Name`` for an exception, None if neither."""
    values = ast.literal_eval(f"({arguments},)")
    try:
        signal.setitimer(signal.ITIMER_REAL, CALL_S)
        result = call(*values)
        text = repr(result)
    except BaseException as error:
        return f"!{type(error).__name__}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if len(text) > LONGEST or len(arguments) > LONGEST or not text.isascii():
        return None
    try:
        if ast.literal_eval(text) != result:
            return None
    except (ValueError, SyntaxError, TypeError, MemoryError):
        return None
    return text


def _run_test_file(module: str, path: str, test: str) -> tuple[int, str, str, int, str] | None:
    """Return the first failure of a test file of plain ``assert f(...) == value`` lines."""
    namespace: dict[str, Any] = {"__name__": "module"}
    exec(compile(module, path, "exec"), namespace)
    tests = [item for item in ast.parse(test).body if isinstance(item, ast.FunctionDef)]
    for passed, function in enumerate(tests):
        for statement in function.body:
            assert isinstance(statement, ast.Assert) and isinstance(statement.test, ast.Compare)
            failure = _failure(statement.test, namespace, path)
            if failure is not None:
                file, line, message = failure
                line = line or statement.lineno
                return passed, function.name, file or f"test_{path}", line, message
    return None


def _failure(
    comparison: ast.Compare, namespace: dict[str, Any], path: str
) -> tuple[str, int, str] | None:
    """Locate one assertion's failure, in pytest's words; the file is "" for the test itself."""
    call, wanted = comparison.left, comparison.comparators[0]
    want = ast.literal_eval(wanted)
    signal.setitimer(signal.ITIMER_REAL, CALL_S)
    try:
        got = eval(compile(ast.Expression(call), "test", "eval"), namespace)
        same = bool(got == want)
    except _TooLong:
        raise
    except BaseException as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
        words = f"{type(error).__name__}: {error}".rstrip(": ").split("\n")[0]
        return (path if lines else ""), (lines[-1] or 0) if lines else 0, words
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if same:
        return None
    text = f"assert {got!r} == {ast.unparse(wanted)}"
    where = f"{text}\n +  where {got!r} = {ast.unparse(call)}"
    # pytest drops the exception's name only if its repr begins with a single quote.
    bare = repr(where).startswith("'")
    return "", 0, text if bare else f"AssertionError: {text}"
