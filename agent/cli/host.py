"""Facts of this machine that decide which checkpoint fits and where commands run."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import constants

from agent.cli.checks import check_bubblewrap, check_docker
from agent.settings.table import Settings
from kernels.native import native
from model.measuring import read_bandwidth
from model.state.memory import free_memory


@dataclass(frozen=True)
class Host:
    """This machine: sizes in bytes, the bandwidth in bytes a second.

    ``memory`` is what is free on ``device``, ``disk`` what is free where checkpoints go.
    ``docker`` and ``bubblewrap`` are "" where they work, else a line that says why not.
    """

    device: str
    memory: int
    disk: int
    bandwidth: float
    compiled: bool
    docker: str
    bubblewrap: str

    def lines(self) -> list[str]:
        """Return what a person is told of it."""
        path = "compiled" if self.compiled else "not compiled: torch serves, slower"
        rows = [
            ("device", self.device),
            ("memory", f"{self.memory / 1e9:,.1f} GB free"),
            ("disk", f"{self.disk / 1e9:,.1f} GB free for checkpoints"),
            ("bandwidth", f"{self.bandwidth / 1e9:,.1f} GB/s read"),
            *([("cpu path", path)] if self.device == "cpu" else []),
            ("docker", self.docker or "works"),
            ("bubblewrap", self.bubblewrap or "works"),
        ]
        return [f"{name:<12}{text}" for name, text in rows]


def look(settings: Settings) -> Host:
    """Look at this machine; takes a second or two. Never raises for what is missing."""
    where = settings.device
    if where == "auto":
        where = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(where)
    return Host(
        device=where if where == "cpu" else f"{where} ({torch.cuda.get_device_name(device)})",
        memory=free_memory(device),
        disk=_free(Path(constants.HF_HUB_CACHE)),
        bandwidth=read_bandwidth(device),
        compiled=native() is not None,
        docker=_trouble(check_docker(settings)),
        bubblewrap=_trouble(check_bubblewrap(settings)),
    )


def _trouble(found: object) -> str:
    """Return why a program cannot be used; a Docker engine without our image can."""
    status, detail = getattr(found, "status", ""), str(getattr(found, "detail", ""))
    works = status == "ok" or detail.startswith("engine ")
    return "" if works else detail


def _free(place: Path) -> int:
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
