"""Fold long output of test runners so that the failures come first.

Recognised are pytest, unittest, jest, go test and cargo test. What a runner printed is not told
from what a test printed: a test can imitate its runner, and then its text is folded in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_BLOCK_SHARE = 0.75
MAX_LINES = 50_000
"""Of longer output only so many last lines are read: runners end with what counts."""
MAX_LINE = 2_000
"""Longer lines are no runner's headings."""


@dataclass(frozen=True)
class Folded:
    """The failures and the summary of a test run."""

    runner: str
    summary: str
    failures: tuple[str, ...]


def fold(text: str, limit: int) -> str | None:
    """Fold ``text`` to about ``limit`` characters, failures first; None if no runner is known.

    First the summary, then as many failures as fit, each cut in its middle if it is long, then the
    end of the output. Says how many failures are left out.
    """
    lines = text.rsplit("\n", MAX_LINES)[-MAX_LINES:]
    lines = [line if len(line) <= MAX_LINE else _shorten(line, MAX_LINE) for line in lines]
    found = next((folded for read in _READERS if (folded := read(lines)) is not None), None)
    if found is None:
        return None
    parts = [f"[{found.runner}: failures first; the rest is cut]"]
    if found.summary:
        parts.append(_shorten(found.summary, limit // 4))
    room = int((limit - sum(map(len, parts))) * _BLOCK_SHARE)
    each = max(1500, room // max(1, len(found.failures)))
    shown = 0
    for failure in found.failures:
        block = _shorten(failure, each)
        if len(block) > room:
            break
        room -= len(block) + 1
        parts.append(block)
        shown += 1
    if shown < len(found.failures):
        parts.append(f"[... {len(found.failures) - shown} more failures left out ...]")
    left = limit - sum(len(part) + 1 for part in parts)
    if left > 400:
        end = text[-left:]
        end = end[end.find("\n") + 1 :]
        parts += ["[... the end of the output: ...]", end.rstrip("\n")]
    return "\n".join(parts)


def _read_pytest(lines: Sequence[str]) -> Folded | None:
    if not any(_PYTEST_END.fullmatch(line) for line in lines[-40:]):
        return None
    sections = _split_sections(lines, _PYTEST_SECTION)
    summary: list[str] = []
    failures: list[str] = []
    for title, body in sections:
        if title in ("FAILURES", "ERRORS"):
            failures += _split(body, re.compile(r"_{3,} .+ _{3,}"))
        elif title == "short test summary info":
            summary += body
    summary += [line for line in lines[-40:] if _PYTEST_END.fullmatch(line)]
    return Folded("pytest", "\n".join(summary), tuple(failures))


def _read_unittest(lines: Sequence[str]) -> Folded | None:
    ran = [at for at, line in enumerate(lines) if re.fullmatch(r"Ran \d+ tests? in [\d.]+s", line)]
    if not ran:
        return None
    blocks = _split(lines[: ran[-1]], re.compile(r"={70}"))
    failures = [block for block in blocks if re.match(r"={70}\n(FAIL|ERROR): ", block)]
    summary = [line for line in lines[ran[-1] :] if line.strip()][:3]
    return Folded("unittest", "\n".join(summary), tuple(failures))


def _read_jest(lines: Sequence[str]) -> Folded | None:
    summary = [line for line in lines if re.match(r"(Tests|Test Suites|Snapshots|Time): +\d", line)]
    if not any(line.startswith("Tests:") for line in summary):
        return None
    blocks: list[list[str]] = []
    inside = False
    for line in lines:
        if line.startswith("  \u25cf "):
            blocks.append([line])
            inside = True
        elif inside and (line == "" or line.startswith("    ")):
            blocks[-1].append(line)
        else:
            inside = False
    # Jest prints all failures once more at its end.
    return Folded("jest", "\n".join(summary), tuple(dict.fromkeys(_join(blocks))))


def _read_go(lines: Sequence[str]) -> Folded | None:
    packages = [line for line in lines if re.match(r"(ok  |FAIL|---? FAIL:|\?   )\t?\S", line)]
    if not any(re.match(r"(ok  |FAIL)\t\S", line) for line in packages):
        return None
    blocks: list[list[str]] = []
    inside = False
    for line in lines:
        if re.match(r" *--- FAIL: ", line) or re.match(r"(panic: |# )", line):
            blocks.append([line])
            inside = True
        elif inside and _goes_on(blocks[-1][0], line):
            blocks[-1].append(line)
        else:
            inside = False
    summary = [line for line in packages if line.startswith("FAIL\t")]
    passed = sum(line.startswith("ok  ") for line in packages)
    summary.append(f"{passed} packages ok, {len(summary)} failed")
    return Folded("go test", "\n".join(summary), tuple(map("\n".join, blocks)))


def _goes_on(first: str, line: str) -> bool:
    """Return whether ``line`` still belongs to go's block that begins with ``first``."""
    if first.startswith("panic: "):
        return not line.startswith("FAIL")
    return re.match(r"(\s|\.|[\w/.-]+\.go:\d+)", line) is not None


def _read_cargo(lines: Sequence[str]) -> Folded | None:
    results = [line for line in lines if re.match(r"test result: (ok|FAILED)\. ", line)]
    errors = _split(lines, re.compile(r"error(\[E\d+\])?: .+"))
    errors = [block for block in errors if block.startswith("error[") or "\n  --> " in block]
    if not results and not (errors and any(line.startswith("error: ") for line in lines)):
        return None
    blocks: list[list[str]] = []
    inside = False
    for line in lines:
        if re.fullmatch(r"---- .+ (stdout|stderr) ----", line):
            blocks.append([line])
            inside = True
        elif inside and line == "failures:":
            inside = False
        elif inside:
            blocks[-1].append(line)
    summary = [line for line in results if "FAILED" in line]
    passed = len(results) - len(summary)
    summary.append(f"{passed} test binaries ok, {len(summary)} failed")
    return Folded("cargo", "\n".join(summary), (*errors, *_join(blocks)))


_PYTEST_END = re.compile(
    r"(={3,} )?(\d+ (failed|passed|errors?|skipped|xfailed|xpassed|deselected|warnings?)(, )?)+"
    r" in [\d.]+s( \([\d:]+\))?( ={3,})?"
)
_PYTEST_SECTION = re.compile(r"={3,} (FAILURES|ERRORS|short test summary info|[\w ]+) ={3,}")
_READERS: tuple[Callable[[Sequence[str]], Folded | None], ...] = (
    _read_pytest,
    _read_unittest,
    _read_jest,
    _read_go,
    _read_cargo,
)


def _split_sections(lines: Sequence[str], heading: re.Pattern[str]) -> list[tuple[str, list[str]]]:
    """Return the sections that begin at ``heading``, whose first group is the title."""
    sections: list[tuple[str, list[str]]] = []
    for line in lines:
        if (found := heading.fullmatch(line)) is not None:
            sections.append((found[1], []))
        elif sections:
            sections[-1][1].append(line)
    return sections


def _split(lines: Sequence[str], heading: re.Pattern[str]) -> list[str]:
    """Split ``lines`` at ``heading``, without what is before the first."""
    parts: list[list[str]] = []
    for line in lines:
        if heading.fullmatch(line):
            parts.append([line])
        elif parts:
            parts[-1].append(line)
    return ["\n".join(part).strip("\n") for part in parts]


def _join(blocks: Sequence[Sequence[str]]) -> list[str]:
    return ["\n".join(block).rstrip("\n") for block in blocks]


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    head, tail = text[:half], text[len(text) - half :]
    return f"{head}\n[... {len(text) - 2 * half:,} characters left out ...]\n{tail}"
