"""Build the compiled CPU path with this machine's C++ compiler.

    python -m kernels.native.build

One library a level of instructions (``library.LEVELS``), all from the same sources: the machine
that runs them picks the best it can. They depend on nothing but OpenMP, which torch brings along,
and lie where ``library.places`` looks, under a name that carries a hash of the sources, so that a
changed source is built anew and an old library is never loaded for it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kernels.native.library import LEVELS, SOURCES, file_name, places
from kernels.storage import cache_dir, make_private, write_whole

_COMMON = ("-O3", "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-math-errno", "-w")
_FLAGS = {
    "plain": ("-O1",),
    "avx2": ("-march=x86-64-v3",),
    "avx512": ("-march=x86-64-v4", "-mavx512vnni"),
    "avx512-bf16": ("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16"),
}
_TIMEOUT_S = 1800


class BuildError(Exception):
    """The compiled path cannot be built; the message is one line that says why."""


def build(folder: Path | None = None, levels: Sequence[str] = LEVELS) -> list[Path]:
    """Build what is missing of ``levels`` and return the libraries. Raises ``BuildError``.

    ``folder`` is where they go: by default the first of ``library.places`` that can be written.
    """
    target = folder or _writable()
    possible = LEVELS if platform.machine() in ("x86_64", "AMD64") else LEVELS[:1]
    wanted = [(level, target / file_name(level)) for level in levels if level in possible]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(lambda item: _compile(*item), [w for w in wanted if not w[1].is_file()]))
    return [path for _, path in wanted]


def _compile(level: str, target: Path) -> None:
    compiler = os.environ.get("CXX", "c++")
    with write_whole(target) as out:
        command = [compiler, *_COMMON, *_FLAGS[level], str(SOURCES / "native.cpp"), "-o", str(out)]
        try:
            done = _run([*command, "-fopenmp"])
            if done.returncode:  # a compiler without OpenMP: one thread is better than none
                done = _run(command)
        except FileNotFoundError as error:
            raise BuildError(f"there is no C++ compiler {compiler!r}; install g++") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"{compiler} cannot run: {error}") from error
        if done.returncode:
            first = next((x for x in done.stderr.splitlines() if "error" in x), done.stderr[:200])
            raise BuildError(f"{compiler} failed for level {level}: {first}")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)


def _writable() -> Path:
    for place in places():
        try:
            if place.is_relative_to(cache_dir()):
                make_private(place)
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                return place
        except OSError:
            continue
    raise BuildError(f"none of {', '.join(map(str, places()))} can be written")


def main() -> int:
    """Build and say so in one line; 0 also if there is no compiler, since torch then serves."""
    try:
        paths = build()
    except BuildError as error:
        print(f"setup: the compiled CPU path is not built: {error}; torch serves", file=sys.stderr)  # noqa: T201
        return 0
    print(f"setup: the compiled CPU path is in {paths[0].parent}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
