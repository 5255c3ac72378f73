"""A repository's own image: built once and only when asked, then found by its content."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from sandboxes.base import Limits
from sandboxes.errors import ImageMissing
from sandboxes.images.repository_image import LAYER_LABEL, ImageRecipe, image_of, layers
from sandboxes.open import open_sandbox
from sandboxes.prune import prune
from sandboxes.workspace.workspace import Workspace

pytestmark = pytest.mark.docker
LIMITS = Limits(memory_mb=512, pids=64, disk_mb=64)
SETUP = (
    "cp tool.sh /usr/local/bin/tool && chmod 755 /usr/local/bin/tool",
    "id -u >/who; ls -A /setup | tr '\\n' ' ' >>/who; env >/env; tail -n +3 /proc/net/dev >/net",
)


@pytest.fixture
def repo(git_repo: Callable[..., Path], base_image: str) -> Path:
    return git_repo(
        {
            "tool.sh": "#!/bin/sh\necho tool one\n",
            "secret.txt": "not named",
            "Dockerfile": "FROM tenuto/base:1\nCOPY tool.sh /usr/local/bin/tool\n"
            "RUN chmod 755 /usr/local/bin/tool && tail -n +3 /proc/net/dev >/net\n",
        }
    )


@pytest.fixture(autouse=True)
def leaves_no_images(docker_engine: docker.DockerClient) -> Iterator[None]:
    before = {tag for tag, _ in layers()}
    yield
    for tag in {tag for tag, _ in layers()} - before:
        docker_engine.images.remove(tag, force=True)


def run_in(image: str, repo: Path, places: Path, command: str) -> str:
    workspace = Workspace.create(repo, parent=places)
    with open_sandbox("docker", workspace, image=image, name="test") as sandbox:
        return sandbox.shell().run(command, timeout_s=30).output


def test_set_up_runs_once_and_only_when_asked(
    repo: Path, places: Path, monkeypatch: pytest.MonkeyPatch, docker_engine: docker.DockerClient
) -> None:
    monkeypatch.setenv("MY_API_TOKEN", "secret")
    recipe = ImageRecipe(repo, setup=SETUP, files=("tool.sh",))
    with pytest.raises(ImageMissing, match=r"agent sandbox build --repo .*, or --build"):
        image_of(recipe, build=False, limits=LIMITS)
    told: list[str] = []
    tag = image_of(recipe, build=True, limits=LIMITS, on_progress=told.append)
    assert any("running the set-up" in line for line in told)
    said = run_in(tag, repo, places, "tool; cat /who /net; grep -c TOKEN /env; touch /x")
    assert said.startswith("tool one\n0\ntool.sh ")
    assert "lo:" in said and "eth0" not in said and "\n0\n" in said
    assert "Read-only file system" in said

    told.clear()
    began = time.monotonic()
    assert image_of(recipe, build=False, limits=LIMITS, on_progress=told.append) == tag
    assert told == [] and time.monotonic() - began < 30
    # What killed runs left is found by the owner's label, which the image must not hand on.
    labels = docker_engine.images.get(tag).labels
    assert labels["tenuto.owner"] == "" and labels[LAYER_LABEL]
    left = docker_engine.containers.list(all=True, filters={"ancestor": "tenuto/base:1"})
    assert [c for c in left if c.attrs["Config"]["WorkingDir"] == "/setup"] == []


def test_the_cache_is_by_content(repo: Path) -> None:
    recipe = ImageRecipe(repo, setup=("cp tool.sh /",), files=("tool.sh",))
    first = image_of(recipe, build=True, limits=LIMITS)
    (repo / "secret.txt").write_text("changed, but not named")
    assert image_of(recipe, build=False, limits=LIMITS) == first
    for changed in (replace(recipe, setup=("cp tool.sh /x",)), replace(recipe, files=())):
        with pytest.raises(ImageMissing, match="is not built"):
            image_of(changed, build=False, limits=LIMITS)
    (repo / "tool.sh").write_text("#!/bin/sh\necho tool two\n")
    with pytest.raises(ImageMissing, match="is not built"):
        image_of(recipe, build=False, limits=LIMITS)


@pytest.mark.parametrize(
    ("setup", "limits", "said"),
    [
        (("echo before; exit 3",), LIMITS, "the set-up failed with exit code 3: .*before"),
        (("false", "echo not here"), LIMITS, "the set-up failed with exit code 1"),
        (("head -c 300M /dev/zero >/big; sleep 60",), LIMITS, "wrote more than 64 MB"),
        (("mount -t tmpfs none /mnt",), LIMITS, "the set-up failed"),
        (("for i in {1..100}; do sleep 2 & done",), replace(LIMITS, pids=16), "set-up failed"),
    ],
)
def test_a_set_up_that_fails_leaves_nothing(
    setup: tuple[str, ...], limits: Limits, said: str, repo: Path
) -> None:
    with pytest.raises(ImageMissing, match=said) as caught:
        image_of(ImageRecipe(repo, setup=setup), build=True, limits=limits)
    assert "\n" not in str(caught.value)
    log = Path(re.search(r"the whole log: (\S+)\)", str(caught.value))[1])  # type: ignore[index]
    assert re.search("^[+] ", log.read_text(), re.MULTILINE)
    assert log.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("how", ["dockerfile", "devcontainer"])
def test_a_dockerfile_sees_only_the_files_that_are_named(
    how: str, repo: Path, places: Path
) -> None:
    recipe = ImageRecipe(repo, dockerfile="Dockerfile", files=("tool.sh",))
    if how == "devcontainer":
        folder = repo / ".devcontainer"
        folder.mkdir()
        (folder / "devcontainer.json").write_text(
            '// a "comment"\n{ "name": "a // b", /* c */\n'
            '  "build": { "dockerfile": "Dockerfile", },\n'
            '  "postCreateCommand": "evil", }\n'
        )
        (folder / "Dockerfile").write_text((repo / "Dockerfile").read_text())
        recipe = ImageRecipe(
            repo, devcontainer=".devcontainer/devcontainer.json", files=("tool.sh",)
        )
    with pytest.raises(ImageMissing, match="is not built"):
        image_of(recipe, build=False, limits=LIMITS)
    tag = image_of(recipe, build=True, limits=LIMITS)
    said = run_in(tag, repo, places, "tool; cat /net")
    assert said.startswith("tool one\n") and "eth0" not in said
    assert image_of(recipe, build=False, limits=LIMITS) == tag
    (repo / "Dockerfile").write_text("FROM tenuto/base:1\nCOPY secret.txt /\n")
    if how == "dockerfile":
        with pytest.raises(ImageMissing, match="building Dockerfile failed"):
            image_of(recipe, build=True, limits=LIMITS)


def test_a_devcontainer_names_an_image(repo: Path) -> None:
    file = repo / ".devcontainer.json"
    recipe = ImageRecipe(repo, devcontainer=".devcontainer.json")
    file.write_text('{"image": "tenuto/base:1"}')
    assert image_of(recipe, build=False, limits=LIMITS) == "tenuto/base:1"
    file.write_text('{"image": "nobody/nothing:9"}')
    with pytest.raises(ImageMissing, match="docker pull nobody/nothing:9"):
        image_of(recipe, build=True, limits=LIMITS)
    for wrong in ("{", "[]", '{"image": 5}', "{}"):
        file.write_text(wrong)
        with pytest.raises(ImageMissing):
            image_of(recipe, build=True, limits=LIMITS)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "link", "folder/link", "nothing", ""]
)
def test_files_for_the_image_lie_in_the_repository(name: str, repo: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    (repo / "link").symlink_to(tmp_path / "outside")
    (repo / "folder").symlink_to(tmp_path)
    with pytest.raises(ImageMissing):
        image_of(ImageRecipe(repo, setup=("true",), files=(name,)), build=True, limits=LIMITS)


def test_pruning_spares_a_container_of_such_an_image(
    repo: Path, docker_engine: docker.DockerClient
) -> None:
    tag = image_of(ImageRecipe(repo, setup=("true",)), build=True, limits=LIMITS)
    container = docker_engine.containers.create(tag, ["true"])
    try:
        prune(parent=repo.parent / "none")
        assert docker_engine.containers.get(container.id)
    finally:
        container.remove()
