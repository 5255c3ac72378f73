"""A repository's own files give the keys of ``.agent.toml`` that they ask for."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sandboxes.images.proposal import PIP, as_toml, propose

PYPROJECT = """\
[project]
name = "own"
requires-python = ">=3.9"
dependencies = ["click>=8; python_version>'3.8'", "-e ."]
[project.optional-dependencies]
docs = ["sphinx"]
test = ["pytest>=7", "a b'; touch x"]
[dependency-groups]
dev = ["ruff", {include-group = "test"}]
"""


@pytest.mark.parametrize(
    ("files", "keys"),
    [
        (
            {"pyproject.toml": PYPROJECT},
            {
                "setup": [
                    f"{PIP} 'click>=8; python_version>'\"'\"'3.8'\"'\"'' 'pytest>=7' "
                    "'a b'\"'\"'; touch x' ruff"
                ]
            },
        ),
        (
            {"requirements.txt": "click\n", "setup.py": ""},
            {
                "setup": [f"{PIP} -r requirements.txt", f"{PIP} pytest"],
                "setup_files": ["requirements.txt"],
            },
        ),
        (
            {"pyproject.toml": "[project]\nrequires-python = '>=3.13'\n"},
            {"image": "python:3.13", "setup": [f"{PIP} pytest"]},
        ),
        (
            {"package.json": '{"scripts": {"test": "mocha"}, "engines": {"node": ">=20"}}'},
            {
                "image": "node:20",
                "setup": ["cp package.json / && cd / && npm install"],
                "setup_files": ["package.json"],
                "check": "npm test",
            },
        ),
        (
            {"go.mod": "module x\n\ngo 1.22.1\n", "go.sum": ""},
            {
                "image": "golang:1.22",
                "setup": ["go mod download"],
                "setup_files": ["go.mod", "go.sum"],
                "check": "go test ./...",
            },
        ),
        (
            {".devcontainer/devcontainer.json": "{}", "package.json": "{}"},
            {"devcontainer": ".devcontainer/devcontainer.json"},
        ),
        ({"README.md": "x"}, {}),
    ],
)
def test_manifests_become_keys(files: dict[str, str], keys: dict[str, Any], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    proposal = propose(tmp_path)
    assert proposal.keys == keys
    assert tomllib.loads(as_toml(proposal.keys)) == keys


def test_a_rust_crate_and_what_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "Cargo.toml").write_text('[workspace]\nmembers = ["a"]\n')
    (tmp_path / "go.mod").write_text("module x\n")
    proposal = propose(tmp_path)
    assert proposal.keys["image"] == "golang:1"
    assert any("Rust" in reason for reason in proposal.reasons)
    (tmp_path / "go.mod").unlink()
    assert propose(tmp_path).keys["check"] == "cargo test --offline"


@pytest.mark.parametrize(
    "content", [b"\xff\xfe" * 10, b"[" * 100_000, b"{" * 100_000, b"x" * 2_000_000, b"[]", b"1"]
)
def test_broken_and_hostile_manifests_are_read_without_harm(content: bytes, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "package.json", "go.mod", "Cargo.toml", "requirements.txt"):
        (tmp_path / name).write_bytes(content)
    propose(tmp_path)
    for name in ("pyproject.toml", "package.json"):
        (tmp_path / name).unlink()
    (tmp_path / "pyproject.toml").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "package.json")
    propose(tmp_path)
