"""Records of measurements: figures, with the machine and the versions they were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).resolve().parents[1] / "results"
NEEDED = ("date", "machine", "versions")


def machine(*packages: str, **other_versions: str) -> dict[str, Any]:
    """Describe this machine: processor, load, and the versions of torch and ``packages``.

    ``other_versions`` are those of programs that are no Python packages.
    """
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "date": date.today().isoformat(),
        "machine": f"{len(names)} x {names[0] if names else platform.processor()}",
        "kernel": platform.release(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", *packages)} | other_versions,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def read(name: str) -> dict[str, Any]:
    """Return the record ``NAME.json``; empty if there is none."""
    path = RESULTS / f"{name}.json"
    data: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return data


def record(name: str, result: Mapping[str, Any], *, under: str | None = None) -> Path:
    """Write ``benchmarks/results/NAME.json``, or one entry of it; return its path.

    Raises ``ValueError`` for a result without its date, machine and versions (``machine()``).
    """
    missing = [key for key in NEEDED if not result.get(key)]
    if missing:
        raise ValueError(f"the record {name} lacks {', '.join(missing)}; add machine() to it")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    data = dict(result) if under is None else {**read(name), under: dict(result)}
    path.write_text(json.dumps(data, indent=1) + "\n")
    return path
