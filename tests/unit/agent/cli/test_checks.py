"""The doctor tells the truth: a working part is ok, a broken one is named with its remedy."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.cli import app
from agent.cli.checks import HealthCheck, examine, healthy
from agent.settings.table import Settings
from tests.support.native import library


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in [name for name in os.environ if name.startswith("AGENT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def found(tiny_checkpoint: Path) -> Callable[..., dict[str, HealthCheck]]:
    def run(**fields: object) -> dict[str, HealthCheck]:
        settings = {"model": str(tiny_checkpoint), "sandbox": "local"} | fields
        return {finding.name: finding for finding in examine(Settings(**settings))}

    return run


def test_what_works_is_ok(found: Callable[..., dict[str, HealthCheck]]) -> None:
    findings = found()
    for name in ("python", "torch", "model", "git", "state"):
        assert findings[name].status == "ok", findings[name]
    assert "4 layers" in findings["model"].detail


def test_a_missing_model(found: Callable[..., dict[str, HealthCheck]]) -> None:
    findings = found(model="/nowhere/at/all")
    assert findings["model"].status == "fail"
    assert "there is no model directory /nowhere/at/all" in findings["model"].detail
    assert not healthy(list(findings.values()))


def test_a_broken_model(
    found: Callable[..., dict[str, HealthCheck]], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in tiny_checkpoint.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "truncated or damaged" in found(model=str(broken))["model"].detail


def test_docker_matters_only_to_those_who_use_it(
    found: Callable[..., dict[str, HealthCheck]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    assert found(sandbox="local")["docker"].status == "warn"
    docker = found(sandbox="docker")["docker"]
    assert docker.status == "fail"
    assert "bubblewrap" in docker.remedy


def test_programs_that_are_not_there(
    found: Callable[..., dict[str, HealthCheck]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = found(sandbox="bubblewrap")
    assert (findings["git"].status, findings["git"].detail) == ("fail", "not installed")
    assert findings["git"].remedy == "apt-get install git"
    assert findings["ripgrep"].status == "warn"
    assert findings["bubblewrap"].status == "fail"


def test_the_cpu_path_in_use_is_named(
    found: Callable[..., dict[str, HealthCheck]], monkeypatch: pytest.MonkeyPatch
) -> None:
    level = library("plain").level
    monkeypatch.setenv("TENUTO_NATIVE", level)
    assert found()["cpu path"].detail.startswith("compiled for plain, ")
    monkeypatch.setenv("TENUTO_NATIVE", "off")
    missing = found()["cpu path"]
    assert missing.status == "warn"
    assert "g++" in missing.remedy


def test_a_state_folder_that_cannot_be_made(
    found: Callable[..., dict[str, HealthCheck]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    state = found()["state"]
    assert state.status == "fail"
    assert "XDG_STATE_HOME" in state.remedy


def test_variables_that_are_not_read_are_named(
    found: Callable[..., dict[str, HealthCheck]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("TENUTO_")]:
        monkeypatch.delenv(name)  # of the test run itself
    assert "variables" not in found()
    monkeypatch.setenv("AGENT_BUILDDIRECTORY", "x")
    assert "AGENT_BUILDDIRECTORY" in found()["variables"].detail


def test_the_command_prints_lines_or_json_and_its_code(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = ["doctor", "--sandbox=local", "--model", str(tiny_checkpoint)]
    assert app.call(good) == 0
    assert capsys.readouterr().out.startswith("ok   python ")
    bad = ["doctor", "--sandbox=local", "--model", "/nowhere", "--output=json"]
    assert app.call(bad) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["healthy"] is False
    assert {item["name"] for item in data["findings"] if item["status"] == "fail"} == {"model"}


def test_the_caches_are_sized_and_cleared(
    tmp_path: Path, monkeypatch, capfd, found: Callable[..., dict[str, HealthCheck]]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = tmp_path / "cache" / "tenuto"
    for name in ("prefixes/a/state", "quantized/b", "tags-1.sqlite", "tags-1.sqlite-wal"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(bytes(1_500_000))
    (place / "native").mkdir()
    detail = found()["caches"].detail
    assert f"prefixes 1.5 MB, quantized 1.5 MB, tags 3.0 MB in {place}" in detail
    assert app.call(["cache", "clear", "quantised"]) == 2
    assert "there are prefixes, quantized, tags" in capfd.readouterr().err
    assert app.call(["cache", "clear", "tags"]) == 0
    assert capfd.readouterr().out == "3.0 MB removed\n"
    assert sorted(p.name for p in place.iterdir()) == ["native", "prefixes", "quantized"]
    assert app.call(["cache", "clear"]) == 0
    assert [p.name for p in place.iterdir()] == ["native"]
    assert app.call(["cache", "list", "--output=json"]) == 0
    data = json.loads(capfd.readouterr().out.splitlines()[-1])["caches"]
    assert [(c["name"], c["size"]) for c in data] == [
        ("prefixes", 0),
        ("quantized", 0),
        ("tags", 0),
    ]
    assert app.call(["cache", "clear"]) == 0
