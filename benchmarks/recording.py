"""Writing results down, with the machine and the versions they were measured on."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).resolve().parent / "results"


def machine(*packages: str) -> dict[str, Any]:
    """Return the processor, and the versions of torch and ``packages``."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "date": date.today().isoformat(),
        "machine": f"{len(names)} x {names[0] if names else platform.processor()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", *packages)},
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def record(name: str, result: Mapping[str, Any]) -> None:
    """Write ``benchmarks/results/NAME.json``."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
