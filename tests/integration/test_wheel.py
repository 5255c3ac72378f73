"""The wheel, built and installed outside the checkout: its commands run there."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

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
