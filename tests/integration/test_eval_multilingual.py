"""A row of another language: its tools' caches in the image are there, and can be written."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from agent.loading import LoadedModel
from evals.run.begin import RunOptions, begin
from evals.run.folder import RunFolder
from evals.suites.harness import FIELDS
from sandboxes.images.base_image import ensure_base_image
from tests.support.evaluation import call

TAG = "tenuto/multilingual-test:1"
CACHES = (".cargo/registry", ".m2/repository", ".gradle/caches", ".npm", ".cache/go-build")
pytestmark = pytest.mark.docker


@pytest.mark.parametrize(("parser", "writable"), [("cargo", True), ("pytest", False)])
def test_compilers_find_and_write_their_caches(
    parser: str,
    writable: bool,
    docker_engine: docker.DockerClient,
    scripted_model: Callable[..., LoadedModel],
    tmp_path: Path,
) -> None:
    folders = " ".join(f"/root/{cache}" for cache in CACHES)
    text = (
        f"FROM {ensure_base_image()}\nRUN mkdir -p {folders} /testbed && chmod 700 /root "
        f"&& for f in {folders}; do touch $f/there; done && cd /testbed && git init -q && "
        "echo x > a && git add a && git -c user.name=u -c user.email=u@u commit -qm a\n"
    )
    docker_engine.images.build(fileobj=io.BytesIO(text.encode()), tag=TAG, rm=True, forcerm=True)
    row = dict.fromkeys(FIELDS, "x") | {
        "instance_id": "x__x-1",
        "image": TAG,
        "repo": "x/x",
        "problem_statement": "Do it.",
        "log_parser": f"parse_log_{parser}",
        "FAIL_TO_PASS": ["x"],
        "PASS_TO_PASS": ["x"],
    }
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps(row) + "\n")
    look = " && ".join(f"test -e ~/{c}/there && touch ~/{c}/new" for c in CACHES)
    online = "python3 -c 'import socket; socket.create_connection((\"1.1.1.1\", 53), 3)'"
    model = scripted_model(
        f"a\n</think>\n\n{call('run_shell_command', command=f'({look}) && echo yes > found')}",
        f"b\n</think>\n\n{call('run_shell_command', command=f'{online} || echo no > online')}",
        f"c\n</think>\n\n{call('submit', summary='done')}",
    )
    options = RunOptions("swebench", str(data), tmp_path / "run", workers=1, pull=False)
    assert begin(options, {}, model=model) == 0
    (result,) = RunFolder(options.place).results().values()
    assert ("+yes" in result.patch) is writable, result.patch
    assert "+no" in result.patch
