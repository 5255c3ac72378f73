"""Engines by Ray, with the real package: the same predictions, also when one of them is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
from pathlib import Path

import pytest

from agent.loading import load_model
from agent.settings.load import load_settings
from evals.run.begin import RunOptions, begin
from evals.run.cluster import Cluster
from evals.run.folder import RunFolder
from evals.run.runner import Job, Nobody, Runner
from evals.suites import find_suite
from evals.suites.images import Images
from evals.suites.suite import Machine

ROOT = Path(__file__).resolve().parents[2]
SUITE = str(ROOT / "tests" / "support" / "small_suite.py")
FLAGS = {"sandbox": "bubblewrap", "seed": 11, "max_steps": 2, "max_turn_tokens": 40}
NAMES = ("anagrams", "clamp", "parity")


class Kills(Nobody):
    """Kills an engine's process once every engine is at work."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.begins = 0
        self.killed: list[int] = []
        self.lock = threading.Lock()

    def begun(self, job: Job) -> None:
        import ray

        with self.lock:
            self.begins += 1
            if self.begins == 2:
                number = ray.get(self.cluster.actors[0].process.remote())
                os.kill(number, signal.SIGKILL)
                self.killed.append(number)


def open_addresses() -> set[str]:
    """The addresses on which the processes of our cluster listen."""
    import ray

    session = Path(ray._private.worker._global_node.get_session_dir_path()).name
    inodes = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if session in (place / "cmdline").read_text():
                links = [str(link.readlink()) for link in (place / "fd").iterdir()]
                inodes |= {name[8:-1] for name in links if name.startswith("socket:[")}
        except OSError:
            continue
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                words = bytes.fromhex(fields[1].partition(":")[0])
                packed = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                found.add(socket.inet_ntop(family, packed))
    assert found
    return found


@pytest.mark.slow
def test_ray_gives_the_predictions_of_a_local_run_though_an_engine_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    local = RunOptions(SUITE, None, tmp_path / "local", ids=NAMES, workers=1)
    assert begin(local, FLAGS, model=load_model("embedded")) == 0

    settings = load_settings(FLAGS)
    folder = RunFolder(tmp_path / "spread")
    instances = [i for i in find_suite(SUITE).load(None) if i.id in NAMES]
    with folder.claim():
        folder.begin({}, {})
        machine = Machine(settings, Images())
        with Cluster.start(SUITE, machine, workers=2, engines=2) as cluster:
            assert open_addresses() <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
            watcher = Kills(cluster)
            jobs = [Job(instance, 1) for instance in instances]
            Runner(folder, "tenuto/embedded", cluster.execute, 2, watcher).run(jobs)
    assert len(watcher.killed) == 1
    spread, alone = folder.results(), RunFolder(tmp_path / "local").results()
    assert set(spread) == set(alone)
    for key, result in spread.items():
        assert result.exit_status == alone[key].exit_status, result.summary
        assert result.patch == alone[key].patch
        assert result.usage["context_tokens"] == alone[key].usage["context_tokens"]
    first, second = (
        json.loads((path / "preds.json").read_text()) for path in (folder.path, tmp_path / "local")
    )
    assert first == second
