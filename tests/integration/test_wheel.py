"""The wheel, built and installed outside the checkout: its commands run there."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.support.terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys, hatchling.build\nprint(hatchling.build.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ``bin`` of an environment with the wheel, which finds what it needs beside it."""
    top = tmp_path_factory.mktemp("wheel")
    built = _run([sys.executable, "-c", BUILD, str(top)], ROOT)
    wheel = top / built.stdout.split()[-1]
    home = top / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    install = ["-m", "pip", "--disable-pip-version-check", "--python", str(python), "install"]
    _run([sys.executable, *install, "--no-deps", "--no-index", "-q", str(wheel)], top)
    # Only folders of packages: the checkout, which is on the path too, stays out.
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (own,) = (home / "lib").glob("python*/site-packages")
    (own / "shared.pth").write_text("\n".join([*shared, *site.getsitepackages()]) + "\n")
    return home / "bin"


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    kept = {key: os.environ[key] for key in ("PATH", "TMPDIR") if key in os.environ}
    places = {f"XDG_{kind}_HOME": str(folder / kind) for kind in ("STATE", "CONFIG", "CACHE")}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**kept, **places, "HOME": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_packages_are_those_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = "import agent, evals, kernels\nprint(agent.__file__, evals.__file__, kernels.__file__)"
    found = _run([str(installed / "python"), "-c", code], tmp_path).stdout.split()
    assert {Path(file).is_relative_to(installed.parent) for file in found} == {True}
    assert _run([str(installed / "agent"), "--version"], tmp_path).stdout.startswith("tenuto ")


def test_doctor_names_a_remedy_that_works_there(installed: Path, tmp_path: Path) -> None:
    doctor = [str(installed / "agent"), "doctor", "--sandbox", "local", "--output", "json"]
    findings = {f["name"]: f for f in json.loads(_run(doctor, tmp_path).stdout)["findings"]}
    assert findings["model"]["status"] == "ok"
    assert "make " not in json.dumps(findings)
    if findings["cpu path"]["status"] == "warn":
        assert findings["cpu path"]["remedy"].endswith("agent setup --native")


def test_an_evaluation_has_its_examples_there(installed: Path, tmp_path: Path) -> None:
    what = ["eval", "run", "repair", "--instance", "parity", "--sandbox", "local"]
    short = ["--max-steps", "1", "--max-turn-tokens", "8", "--run", str(tmp_path / "run")]
    done = _run([str(installed / "agent"), *what, *short], tmp_path)
    assert "1 of 1 attempts are done" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)  # five minutes are what the whole of it may take
def test_from_nothing_to_a_repaired_repository(installed: Path, tmp_path: Path) -> None:
    agent = str(installed / "agent")
    setup = _run([agent, "setup", "--yes", "--model", "embedded", "--skip", "proof"], tmp_path)
    assert "embedded: 9.7 MB of weights" in setup.stdout
    assert 'model = "embedded"' in (tmp_path / "CONFIG/tenuto/config.toml").read_text()
    proof = json.loads(_run([agent, "prove", "--output", "json"], tmp_path).stdout)
    assert [row["name"] for row in proof["proofs"]] == ["repair", "replay", "resume"]
    assert proof["proven"], proof
    replay = proof["proofs"][1]["figures"]
    assert replay["resent_tokens"] == replay["kept_tokens"] * (replay["steps"] + 1) / 2

    repo = tmp_path / "repo"
    (example,) = (installed.parent / "lib").glob("python*/site-packages/evals/examples/anagrams")
    shutil.copytree(example, repo)
    _run(["git", "init", "-q", str(repo)], tmp_path)
    wrong = (repo / "anagrams.py").read_text()
    places = {f"XDG_{kind}_HOME": str(tmp_path / kind) for kind in ("STATE", "CONFIG", "CACHE")}
    chat = Terminal(
        [agent, "--mode", "auto", "--temperature", "0", "--max-turn-tokens", "512"],
        cwd=repo,
        env={**places, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    try:
        chat.wait("context 0 of")
        chat.type((repo / "ISSUE.md").read_text().strip().replace("\n", " ") + "\r")
        chat.wait(lambda text: (repo / "anagrams.py").read_text() != wrong)
        chat.wait("submit")
        chat.type("\x04")
        assert "agent --resume" in chat.wait("agent --resume")
        assert chat.end() == 0
    finally:
        chat.close()
    test = "import test_anagrams as t; [f() for n, f in vars(t).items() if n.startswith('test_')]"
    _run([sys.executable, "-c", test], repo)
