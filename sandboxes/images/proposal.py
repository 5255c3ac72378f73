"""Propose an image and set-up commands for a repository, read from its own files.

Nothing is run and nothing is fetched: what comes out are keys for ``.agent.toml``, which a person
reads first. Manifests are untrusted: links are not followed, sizes are bounded, words are quoted.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandboxes.workspace.safe_folders import Folders

MAX_BYTES = 1_000_000
MAX_PACKAGES = 200
PIP = "python3 -m pip install --break-system-packages"
BASE_PYTHON = (3, 11)
"""The Python of our base image, Debian 12."""

_TEST_GROUPS = ("test", "tests", "testing", "dev")
_REQUIREMENTS = (
    *("requirements.txt", "requirements-dev.txt", "requirements-test.txt"),
    *("requirements-tests.txt", "dev-requirements.txt", "test-requirements.txt"),
    *("requirements/dev.txt", "requirements/test.txt", "requirements/tests.txt"),
)
_DEVCONTAINERS = (".devcontainer/devcontainer.json", ".devcontainer.json")


@dataclass(frozen=True)
class Proposal:
    """Keys of ``.agent.toml`` with their values, and where each came from, in lines."""

    keys: Mapping[str, str | list[str]] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()


def propose(repo: Path) -> Proposal:
    """Return what the manifests at the top of ``repo`` ask for; nothing where there are none."""
    with Folders(repo.resolve()) as folders:

        def read(name: str) -> str | None:
            return _text(folders, name)

        makers = (_devcontainer, _python, _node, _go, _rust)
        found = [proposal for make in makers if (proposal := make(read)) is not None]
    if not found:
        return Proposal()
    others = [reason for later in found[1:] for reason in later.reasons[:1]]
    reasons = found[0].reasons + tuple(f"left out, for an image of your own: {o}" for o in others)
    return Proposal(found[0].keys, reasons)


Read = Callable[[str], "str | None"]


def _text(folders: Folders, name: str) -> str | None:
    try:
        with folders.open(name) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError:
        return None
    return data.decode("utf-8-sig", "replace") if len(data) <= MAX_BYTES else None


def _toml(text: str | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text or "")
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}


def _table(data: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def _words(value: Any) -> list[str]:
    """Return the texts of a list of packages, without what spans lines or is a path or option."""
    plain = value if isinstance(value, list) else []
    return [
        word.strip()
        for word in plain
        if isinstance(word, str) and re.fullmatch(r"[A-Za-z0-9][^\n\r]*", word.strip())
    ]


def _devcontainer(read: Read) -> Proposal | None:
    for name in _DEVCONTAINERS:
        if read(name) is not None:
            return Proposal({"devcontainer": name}, (f"{name} names the image",))
    return None


def _python(read: Read) -> Proposal | None:
    pyproject, names = read("pyproject.toml"), [n for n in _REQUIREMENTS if read(n) is not None]
    old = [name for name in ("setup.py", "setup.cfg", "tox.ini") if read(name) is not None]
    if pyproject is None and not names and not old:
        return None
    data = _toml(pyproject)
    packages = _python_packages(data)
    reasons = []
    if packages:
        reasons.append(f"pyproject.toml names {len(packages)} packages")
    if names:
        reasons.append(f"{', '.join(names)} name packages")
    if not any(re.match(r"pytest\b(?!-)", package) for package in packages):
        packages.append("pytest")
    keys: dict[str, str | list[str]] = {}
    asked = str(_table(data, "project").get("requires-python", ""))
    if (version := _python_above(asked)) is not None:
        keys["image"] = f"python:{version}"
        reasons.append(f"requires-python is {asked}: docker pull python:{version}")
    commands = [f"{PIP} -r {shlex.quote(name)}" for name in names]
    commands.append(f"{PIP} {' '.join(map(shlex.quote, packages[:MAX_PACKAGES]))}")
    keys["setup"] = commands
    if names:
        keys["setup_files"] = names
    reasons += [f"{old[0]} is a Python project: add what it needs"] if not reasons else []
    return Proposal(keys, tuple(reasons))


def _python_packages(data: dict[str, Any]) -> list[str]:
    project = _table(data, "project")
    packages = _words(project.get("dependencies"))
    for table in (_table(project, "optional-dependencies"), _table(data, "dependency-groups")):
        for name in _TEST_GROUPS:
            packages += _words(table.get(name))
    poetry = _table(data, "tool", "poetry")
    tables = [_table(poetry, "dependencies"), _table(poetry, "dev-dependencies")]
    tables += [_table(poetry, "group", name, "dependencies") for name in _TEST_GROUPS]
    for table in tables:
        packages += [name for name in _words(list(table)) if name != "python"]
    return list(dict.fromkeys(packages))


def _python_above(asked: str) -> str | None:
    """Return the Python that is asked for if it is newer than that of our base image."""
    found = re.search(r">=?\s*3\.(\d+)", asked)
    newer = found is not None and (3, int(found[1][:4])) > BASE_PYTHON
    return f"3.{found[1]}" if found is not None and newer else None


def _node(read: Read) -> Proposal | None:
    text = read("package.json")
    if text is None:
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = {}
    asked = re.search(r"\d+", str(_table(data, "engines").get("node", "")))
    version = asked[0][:3] if asked else "22"
    lock = read("package-lock.json") is not None
    files = ["package.json", *(["package-lock.json"] if lock else [])]
    # Node looks for packages in every folder above a file, so also in that of /.
    install = f"cp {' '.join(files)} / && cd / && npm {'ci' if lock else 'install'}"
    keys: dict[str, str | list[str]] = {"image": f"node:{version}", "setup": [install]}
    reasons = [f"package.json is a Node project: docker pull node:{version}"]
    keys["setup_files"] = files
    if _table(data, "scripts").get("test"):
        keys["check"] = "npm test"
        reasons.append("package.json has a script test")
    return Proposal(keys, tuple(reasons))


def _go(read: Read) -> Proposal | None:
    text = read("go.mod")
    if text is None:
        return None
    found = re.search(r"^go (\d+\.\d+)", text, re.MULTILINE)
    image = f"golang:{found[1] if found else '1'}"
    files = ["go.mod", *(["go.sum"] if read("go.sum") is not None else [])]
    keys: dict[str, str | list[str]] = {
        "image": image,
        "setup": ["go mod download"],
        "setup_files": files,
        "check": "go test ./...",
    }
    return Proposal(keys, (f"go.mod is a Go module: docker pull {image}",))


def _rust(read: Read) -> Proposal | None:
    text = read("Cargo.toml")
    if text is None:
        return None
    files = ["Cargo.toml", *(["Cargo.lock"] if read("Cargo.lock") is not None else [])]
    members = _table(_toml(text), "workspace").get("members")
    reasons = ["Cargo.toml is a Rust crate: docker pull rust:1"]
    if members:
        reasons.append("the manifests of its workspace's members have to stand in setup_files too")
    keys: dict[str, str | list[str]] = {
        "image": "rust:1",
        "setup": [
            "mkdir -p src && touch src/lib.rs src/main.rs && cargo fetch",
            'chmod -R a+rwX "${CARGO_HOME:-/usr/local/cargo}"',
        ],
        "setup_files": files,
        "check": "cargo test --offline",
    }
    return Proposal(keys, tuple(reasons))


def as_toml(keys: Mapping[str, Any]) -> str:
    """Return ``keys`` as lines of TOML; JSON's texts and lists of texts are TOML's too."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
