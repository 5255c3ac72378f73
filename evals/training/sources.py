"""The sources of functions: pinned distributions from the package index, and this Python."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from evals.training.corpus import Function, functions_of, walk_sources

PINS = Path(__file__).with_name("sources.txt")
SKIPPED = frozenset(
    ["site-packages", "test", "idlelib", "lib2to3", "ensurepip", "__pycache__", "turtledemo"]
)


def fetch(work: Path, report: Callable[[str], None], pins: Path = PINS) -> None:
    """Download and unpack the wheels of ``pins`` into ``work/sources``; what is there stays."""
    wheels, sources = work / "wheels", work / "sources"
    wheels.mkdir(parents=True, exist_ok=True)
    for pin in pins.read_text().split():
        name = pin.split("==")[0].lower()
        if (sources / name).exists():
            continue
        report(f"downloading {pin}")
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
        command += ["--only-binary=:all:", "-d", str(wheels), pin]
        subprocess.run(command, check=True)
    for wheel in sorted(wheels.glob("*.whl")):
        target = sources / wheel.name.split("-")[0].lower()
        if not target.exists():
            _unpack(wheel, target)


def _unpack(wheel: Path, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".py"):
                archive.extract(name, part)
    part.rename(target)


def functions(work: Path, *, library: bool = True) -> list[Function]:
    """Return the usable functions of the distributions and the standard library, once each.

    Without ``library`` those of the distributions alone.
    """
    roots = [(path.name, path) for path in sorted((work / "sources").iterdir())]
    files = list(walk_sources(roots))
    standard = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(standard.iterdir()) if library else []:
        if path.name in SKIPPED:
            continue
        if path.is_dir():
            files += walk_sources([(f"python-{path.name}", path)])
        elif path.suffix == ".py":
            files.append((f"python-{path.stem}", path))
    found: dict[str, Function] = {}
    for source, path in files:
        with suppress(RecursionError):
            for function in functions_of(source, path):
                found.setdefault(function.text, function)
    return list(found.values())
