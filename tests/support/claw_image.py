"""The image in which services and graders of claw-eval run, for tests without a package index."""

from __future__ import annotations

import subprocess
from pathlib import Path

import docker
import pytest

from evals.suites.claw.box import IMAGE, PACKAGES
from sandboxes.images.base_image import ensure_base_image, has_image


def ensure_claw_image(client: docker.DockerClient, folder: Path) -> str:
    """Return the image's tag; skip the test if its packages cannot be had here.

    They are fetched on this machine, whose package index a container may not reach.
    """
    if has_image(client, IMAGE):
        return IMAGE
    wheels = folder / "wheels"
    platforms = [f"--platform=manylinux{name}_x86_64" for name in ("2014", "_2_17", "_2_28")]
    command = ["python3", "-m", "pip", "download", "-q", "-d", str(wheels), "--only-binary=:all:"]
    command += ["--python-version=3.11", *platforms, *PACKAGES]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("the packages of claw-eval cannot be fetched")
    (folder / "Dockerfile").write_text(
        f"FROM {ensure_base_image()}\nCOPY wheels /wheels\n"
        "RUN pip install --no-index --find-links /wheels /wheels/*.whl && rm -r /wheels\n"
    )
    client.images.build(path=str(folder), tag=IMAGE, rm=True, forcerm=True)
    return IMAGE
