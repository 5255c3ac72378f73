"""Measure how long the index and the repository map take on 5,000 files with a million lines.

    python -m benchmarks.navigation [--files N] [--lines N]

The repository is put together from the source files of installed packages (those that pass through
a real grammar: Python, C, C++, JavaScript, TypeScript). Everything is measured through the tools,
over a private clone in a local sandbox, with an empty cache at first. Answers are checked before
their times count. Writes benchmarks/results/navigation.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.support.recording import machine, record
from sandboxes.base import Sandbox
from sandboxes.open import open_sandbox
from sandboxes.workspace.workspace import Workspace
from tools.index.languages import detect_language
from tools.registry import Registry
from tools.text.token_estimate import estimate_tokens
from tools.types import Observation, ToolContext

TASK = "The learning rate scheduler OneCycleLR in torch/optim/lr_scheduler.py forgets its momentum."
SYMBOL = "OneCycleLR"
TOKENS = 4096
REPEATS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--lines", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder, "cache"))
        repo = Path(folder, "repo")
        made = assemble(repo, arguments.files, arguments.lines)
        workspace = Workspace.create(repo, parent=Path(folder, "copies"))
        with open_sandbox("local", workspace) as sandbox:
            figures = measure(sandbox)
        cache = sum(path.stat().st_size for path in Path(folder, "cache").rglob("*.sqlite"))
    report = {
        **machine("tree-sitter"),
        "question": "seconds until a question about a large repository is answered",
        "repository": made,
        "cache_mb": round(cache / 1e6, 1),
        "figures": figures,
    }
    record("navigation", report)
    print(json.dumps(report, indent=2))


def assemble(repo: Path, files: int, lines: int) -> dict[str, Any]:
    """Copy ``files`` sources with about ``lines`` lines together; makes it a git repository.

    Those of torch come first, then whatever brings the mean length to what is wanted.
    """
    packages = Path(sysconfig.get_paths()["purelib"])
    found: list[tuple[str, int, str]] = []
    for path in sorted(packages.rglob("*")):
        name = path.relative_to(packages).as_posix()
        if not path.is_file() or path.is_symlink() or path.stat().st_size > 900_000:
            continue
        data = path.read_bytes() if detect_language(name, b"") else b""
        language = detect_language(name, data[:16_384])
        if language is not None and language.indexed and data and b"\0" not in data:
            found.append((name, data.count(b"\n"), language.name))
    found.sort(key=lambda item: (not item[0].startswith("torch/optim/"), item[0]))
    chosen, total = found[:20], sum(item[1] for item in found[:20])
    others = found[20:]
    random.Random(0).shuffle(others)
    others.sort(key=lambda item: item[2] in ("python", "c", "cpp"))  # the rare languages first
    for item in others:
        rest = files - len(chosen)
        if not rest:
            break
        # Take what keeps the mean of those still to come near what is wanted.
        if 0.4 <= item[1] * rest / max(lines - total, 1) <= 4:
            chosen.append(item)
            total += item[1]
    languages: dict[str, int] = {}
    for name, _, language_name in chosen:
        target = repo / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(packages / name, target)
        languages[language_name] = languages.get(language_name, 0) + 1
    subprocess.run(["git", "init", "--quiet"], cwd=repo, check=True)
    size = sum((repo / name).stat().st_size for name, _, _ in chosen)
    return {
        "files": len(set(chosen)),
        "lines": total,
        "mb": round(size / 1e6, 1),
        "languages": languages,
    }


def measure(sandbox: Sandbox) -> dict[str, Any]:
    """Measure every figure, in seconds."""
    figures: dict[str, Any] = {}
    tools = Tools(sandbox)
    figures["cold_find_symbol_s"], answer = timed(lambda: tools("find_symbol", name=SYMBOL))
    assert f"class {SYMBOL}" in answer.text, answer.text
    figures["first_repo_map_s"], _ = timed(tools.map)
    times = []
    for _ in range(REPEATS):
        seconds, answer = timed(tools.map)
        assert f"class {SYMBOL}" in answer.text
        assert estimate_tokens(answer.text) <= TOKENS
        times.append(seconds)
    figures["warm_repo_map_s"] = spread(times)
    times = [timed(lambda: tools("find_references", name="forward"))[0] for _ in range(REPEATS)]
    figures["warm_find_references_s"] = spread(times)
    times = []
    for number in range(REPEATS):
        sandbox.write_bytes("torch/optim/added.py", f"def added_{number}(): pass\n".encode())
        seconds, answer = timed(partial(tools, "find_symbol", name=f"added_{number}"))
        assert f"def added_{number}()" in answer.text, answer.text
        times.append(seconds)
    figures["one_changed_file_find_symbol_s"] = spread(times)
    times = []
    for number in range(REPEATS):
        sandbox.write_bytes("torch/optim/added.py", f"def other_{number}(): pass\n".encode())
        seconds, answer = timed(tools.map)
        assert f"class {SYMBOL}" in answer.text
        times.append(seconds)
    figures["one_changed_file_repo_map_s"] = spread(times)
    times = []
    for number in range(3):
        sandbox.write_bytes("torch/optim/added.py", f"def later_{number}(): pass\n".encode())
        fresh = Tools(sandbox)
        seconds, answer = timed(partial(fresh, "find_symbol", name=f"later_{number}"))
        assert f"def later_{number}()" in answer.text, answer.text
        times.append(seconds)
    figures["new_session_one_changed_file_s"] = spread(times)
    return figures


class Tools:
    """The tools of a new session over one sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._registry = Registry(ToolContext(sandbox, task=TASK))

    def __call__(self, name: str, /, **arguments: Any) -> Observation:
        observation = self._registry.run(name, arguments)
        assert observation.ok, observation.text
        return observation

    def map(self) -> Observation:
        """Return the repository map."""
        return self("repo_map", max_tokens=TOKENS)


def timed(work: Callable[[], Observation]) -> tuple[float, Observation]:
    """Time ``work``; return the seconds and its result."""
    began = time.perf_counter()
    result = work()
    return round(time.perf_counter() - began, 4), result


def spread(times: list[float]) -> dict[str, float]:
    """Return the median and the worst."""
    return {"median": round(statistics.median(times), 4), "worst": max(times)}


if __name__ == "__main__":
    main()
