"""Checks of everything ``agent solve`` needs of this machine, tried out rather than guessed."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from agent.loading import describe_model
from agent.sessions.caches import caches
from agent.settings.table import Settings
from agent.settings.variables import old_variable_lines, unread_variables
from agent.text import one_line
from kernels.native import native
from model.errors import ModelError
from sandboxes.errors import SandboxError
from sandboxes.images.base_image import has_image
from sandboxes.images.engine import connect
from sandboxes.images.image_tags import BASE_TAG
from sandboxes.paths import private_dir, state_dir

Status = Literal["ok", "warn", "fail"]
NEEDED_PYTHON = (3, 11)
DISK_WARN_BYTES = 5 * 1024**3
DISK_FAIL_BYTES = 512 * 1024**2
CACHES_WARN_BYTES = 50 * 1024**3
PROGRAM_TIMEOUT_S = 20


@dataclass(frozen=True)
class HealthCheck:
    """One line: what was looked at, whether it works, what was seen, what to do."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> list[HealthCheck]:
    """Try everything that a run with ``settings`` needs, and what it might. Never raises."""
    checks: list[tuple[str, Callable[[], HealthCheck]]] = [
        ("python", _python),
        ("torch", _torch),
        ("cpu path", _cpu_path),
        ("model", lambda: _model(settings)),
        ("git", lambda: _program("git", ["git", "--version"], needed=True)),
        ("ripgrep", lambda: _program("ripgrep", ["rg", "--version"], needed=False)),
        ("docker", lambda: check_docker(settings)),
        ("bubblewrap", lambda: check_bubblewrap(settings)),
        ("disk", _disk),
        ("state", _state),
        ("caches", lambda: _caches(settings)),
    ]
    findings = [_guarded(name, check) for name, check in checks]
    return findings + _environment()


def healthy(findings: list[HealthCheck]) -> bool:
    """Tell whether nothing that is needed is broken."""
    return all(found.status != "fail" for found in findings)


def _guarded(name: str, check: Callable[[], HealthCheck]) -> HealthCheck:
    try:
        return check()
    except Exception as error:  # a doctor that falls over tells nothing
        return HealthCheck(name, "fail", f"{type(error).__name__}: {one_line(error)}")


def _python() -> HealthCheck:
    seen = platform.python_version()
    if tuple(map(int, platform.python_version_tuple()[:2])) < NEEDED_PYTHON:
        return HealthCheck("python", "fail", seen, "install Python 3.11 or newer")
    return HealthCheck("python", "ok", f"{seen} on {platform.machine()}, {os.cpu_count()} CPUs")


def _torch() -> HealthCheck:
    if torch.cuda.is_available():
        device = f"CUDA {torch.version.cuda}: {torch.cuda.get_device_name(0)}"
    elif torch.version.cuda:
        device = f"built for CUDA {torch.version.cuda}, but no usable GPU; runs on the CPU"
    else:
        device = "CPU only"
    # A product that can be checked: a torch that imports may still be built for another CPU.
    works = torch.ones(8, 8).matmul(torch.ones(8, 8)).sum().item() == 512.0
    if not works:
        return HealthCheck(
            "torch", "fail", f"{torch.__version__} computes wrongly", "install it again"
        )
    return HealthCheck("torch", "ok", f"{torch.__version__}, {device}")


def _cpu_path() -> HealthCheck:
    library = native()
    if library is None:
        seen = "not built: torch serves, several times slower"
        remedy = "install a C++ compiler (g++), then agent setup --native"
        return HealthCheck("cpu path", "warn", seen, remedy)
    return HealthCheck("cpu path", "ok", f"compiled for {library.level}, {library.path.parent}")


def _model(settings: Settings) -> HealthCheck:
    name, start = settings.model, time.perf_counter()
    try:
        facts = describe_model(name, settings.quantize, settings.device)
    except ModelError as error:
        return HealthCheck("model", "fail", *_what_and_remedy(error))
    seconds = time.perf_counter() - start
    return HealthCheck(
        "model",
        "ok",
        f"{name}: {facts['size_bytes'] / 1e6:,.1f} MB, {facts['layers']} layers, "
        f"fingerprint {facts['fingerprint'][:12]}, loads in {seconds:.1f} s; "
        f"runs on {facts['device']} in {facts['weight_bytes'] / 1e6:,.1f} MB, a session takes "
        f"{facts['state_bytes_per_session'] / 1e6:,.1f} MB and for each 1,000 tokens "
        f"{facts['kv_bytes_per_1000_tokens'] / 1e6:,.1f} MB; {facts['longest_context']:,} fit",
    )


def _program(name: str, command: list[str], *, needed: bool) -> HealthCheck:
    bad: Status = "fail" if needed else "warn"
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROGRAM_TIMEOUT_S, check=False)
    except FileNotFoundError:
        return HealthCheck(name, bad, "not installed", f"apt-get install {name}")
    except (OSError, subprocess.TimeoutExpired) as error:
        return HealthCheck(name, bad, one_line(error), f"apt-get install --reinstall {name}")
    first = done.stdout.decode("utf-8", "replace").split("\n")[0].strip()
    if done.returncode != 0:
        return HealthCheck(name, bad, f"exit code {done.returncode}", f"apt-get install {name}")
    return HealthCheck(name, "ok", first)


def check_docker(settings: Settings) -> HealthCheck:
    """Ask the Docker engine for its version and the image of ``settings``."""
    bad: Status = "fail" if settings.sandbox == "docker" else "warn"
    try:
        client = connect(timeout=PROGRAM_TIMEOUT_S)
    except SandboxError as error:
        return HealthCheck("docker", bad, *_what_and_remedy(error))
    try:
        version = client.version().get("Version", "unknown")
        root = Path(client.info().get("DockerRootDir", "/"))
        image = settings.image or BASE_TAG
        there = has_image(client, image)
    except SandboxError as error:
        return HealthCheck("docker", bad, *_what_and_remedy(error))
    finally:
        client.close()
    # With a remote engine the folder is not on this machine and cannot be judged.
    if root.is_dir() and shutil.disk_usage(root).free < DISK_FAIL_BYTES:
        return HealthCheck("docker", bad, f"no disk space left in {root}", "docker system prune")
    seen = f"engine {version}, image {image}"
    if there:
        return HealthCheck("docker", "ok", seen)
    if settings.image is not None:
        return HealthCheck("docker", bad, f"{seen} is missing", f"docker pull {image}")
    return HealthCheck("docker", "warn", f"{seen} is not built yet", "agent sandbox build")


def check_bubblewrap(settings: Settings) -> HealthCheck:
    """Start a bubblewrap sandbox that does nothing."""
    needed = settings.sandbox == "bubblewrap"
    found = _program("bubblewrap", ["bwrap", "--version"], needed=needed)
    if found.status != "ok":
        return found
    options = ["--ro-bind", "/", "/", "--dev", "/dev", "--unshare-net", "--unshare-pid"]
    trial = ["bwrap", *options, "true"]
    done = subprocess.run(trial, capture_output=True, timeout=PROGRAM_TIMEOUT_S, check=False)
    if done.returncode == 0:
        return found
    reason = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
    return HealthCheck(
        "bubblewrap",
        "fail" if needed else "warn",
        f"cannot start a sandbox: {reason}",
        "allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1)",
    )


def _disk() -> HealthCheck:
    place = _nearest_existing(state_dir())
    free = shutil.disk_usage(place).free
    seen = f"{free / 1e9:,.1f} GB free at {place}"
    if free < DISK_FAIL_BYTES:
        return HealthCheck("disk", "fail", seen, "free some space or set XDG_STATE_HOME elsewhere")
    if free < DISK_WARN_BYTES:
        return HealthCheck("disk", "warn", seen, "images and working copies need some gigabytes")
    return HealthCheck("disk", "ok", seen)


def _state() -> HealthCheck:
    folder = state_dir()
    try:
        private_dir(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        reason = f"cannot write {folder}: {error.strerror or error}"
        return HealthCheck("state", "fail", reason, "make it writable or set XDG_STATE_HOME")
    return HealthCheck("state", "ok", f"{folder} is writable")


def _caches(settings: Settings) -> HealthCheck:
    found = caches()
    parts = [f"{kind.name} {kind.size / 1e6:,.1f} MB" for kind in found]
    most = settings.warm_cache_mb
    limit = f"prefixes at most {most:,} MiB" if most else "no prefixes are stored"
    seen = f"{', '.join(parts)} in {found[0].paths[0].parent} ({limit})"
    total = sum(kind.size for kind in found)
    if total > CACHES_WARN_BYTES:
        return HealthCheck("caches", "warn", seen, "agent cache clear, if you need the space")
    return HealthCheck("caches", "ok", seen)


def _environment() -> list[HealthCheck]:
    """Name the variables that look like settings and are not read, or have an old name."""
    lines = old_variable_lines()
    if unread := unread_variables():
        lines.append(f"not settings, so not read: {', '.join(unread)}")
    return [HealthCheck("variables", "warn", line) for line in lines]


def _what_and_remedy(error: Exception) -> tuple[str, str]:
    """Split an error's line into its two halves: what is wrong; what to do."""
    what, _, remedy = one_line(error).partition("; ")
    return what, remedy


def _nearest_existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
