"""Engines on the GPUs or nodes of a Ray cluster, and attempts spread over them.

One actor holds one engine and makes several attempts at once, which its engine joins; the threads
of ``runner`` wait for them here, so whatever is written is still written by one process. An actor
that dies is started again, and what it was at is begun again: an attempt depends on its instance
and seed alone, so that changes nothing.

The nodes need this project installed, the model under the same name, and a Docker engine.
"""

from __future__ import annotations

import importlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from agent.events import Listener
from agent.loading import load_for
from agent.sessions.store import SessionStore
from agent.settings.table import Settings
from evals.errors import EvalError
from evals.instance import Done, Instance, Result
from evals.run.attempt import AttemptWorker, Stopped
from evals.run.runner import LOOK_S, Job
from evals.scratch import clear_scratch, scratch_folder
from evals.suites import find_suite
from evals.suites.dataset import EXTRA
from evals.suites.images import Images
from evals.suites.suite import Machine
from sandboxes.stop import Stop

DEATHS = 5
"""Actors that may die at one attempt before it is given up."""


class EngineActor:
    """One engine in a process of its own. Its methods run in several threads at once."""

    def __init__(
        self,
        suite: str,
        settings: Settings,
        images: Mapping[str, str],
        pull: bool,
        time_factor: float = 1.0,
    ) -> None:
        clear_scratch()
        self._scratch = scratch_folder("engine")
        store = SessionStore(self._scratch.__enter__())
        machine = Machine(settings, Images(images, pull), time_factor=time_factor)
        model = load_for(settings)
        self._worker = AttemptWorker(find_suite(suite), machine, model, store)
        self._stop = Stop()

    def run(self, instance: Instance, attempt: int) -> Done | None:
        """Make the attempt; None if it was stopped."""
        try:
            return self._worker.run(instance, attempt, stop=self._stop)
        except Stopped:
            return None

    def stop(self) -> None:
        """Stop whatever is under way."""
        self._stop.cancel()

    def process(self) -> int:
        """Return the number of its process."""
        return os.getpid()


class Cluster:
    """The actors. ``execute`` is a ``runner.Execute``."""

    def __init__(self, start: Callable[[], Any], actors: int) -> None:
        self._start = start
        self._lock = threading.Lock()
        self.actors = [start() for _ in range(actors)]
        self._turn = itertools.count()

    @classmethod
    @contextmanager
    def start(
        cls, suite: str, machine: Machine, *, workers: int, engines: int | None = None
    ) -> Iterator[Cluster]:
        """Connect to the cluster that runs (``RAY_ADDRESS``, or one on this machine), or begin one.

        There is one actor for each GPU, or for each node where there are none, unless ``--engines``
        says otherwise (``engines``). Raises ``EvalError``.
        """
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise EvalError(f"--engine ray needs Ray; {EXTRA}") from error
        ours = _connect(ray)
        try:
            gpus = int(ray.cluster_resources().get("GPU", 0))
            nodes = sum(bool(node["Alive"]) for node in ray.nodes())
            count = engines or gpus or nodes
            together = -(-workers // count)
            remote: Any = ray.remote(EngineActor)
            configured = remote.options(
                num_cpus=1,
                num_gpus=1 if gpus else 0,
                # One more, so that a busy actor still hears that it is to stop.
                max_concurrency=together + 1,
                scheduling_strategy="SPREAD",
            )
            names, pull = dict(machine.images.names), machine.images.pull
            parts = (suite, machine.settings, names, pull, machine.time_factor)
            cluster = cls(lambda: configured.remote(*parts), count)
            yield cluster
        finally:
            with suppress(NameError):
                for actor in cluster.actors:
                    ray.kill(actor)
            clear_scratch()
            if ours:
                ray.shutdown()

    def execute(self, job: Job, listen: Listener, stop: Stop) -> Done:
        """Let an actor make the attempt. Raises ``Stopped``."""
        import ray

        deaths = 0
        while True:
            place = next(self._turn) % len(self.actors)
            actor = self.actors[place]
            try:
                waiting = actor.run.remote(job.instance, job.attempt)
                told = False
                while not ray.wait([waiting], timeout=LOOK_S)[0]:
                    if stop.is_set() and not told:
                        actor.stop.remote()
                        told = True
                done: Done | None = ray.get(waiting)
            except ray.exceptions.ActorDiedError as error:
                if stop.is_set():
                    raise Stopped from error
                self._replace(place, actor)
                deaths += 1
                if deaths >= DEATHS:
                    return _given_up(job, error)
                continue
            except ray.exceptions.ActorUnavailableError:
                continue
            if done is None:
                raise Stopped
            return done

    def _replace(self, place: int, dead: Any) -> None:
        """Start another actor in place of ``dead``, unless somebody did."""
        with self._lock:
            if self.actors[place] is dead:
                self.actors[place] = self._start()


def _connect(ray: Any) -> bool:
    """Connect; return whether a cluster was begun, which is then ours to end."""
    with suppress(ConnectionError):
        ray.init(address="auto", log_to_driver=False, configure_logging=False)
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Only a node that thinks it is alone keeps to the loopback: whoever reaches Ray runs code.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    constants: Any = importlib.import_module("ray._private.ray_constants")
    constants.ENABLE_RAY_CLUSTER = False
    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=200 * 1024**2,
    )
    return True


def _given_up(job: Job, error: Exception) -> Done:
    told = " ".join(str(error).split())[:200]
    return Done(
        Result(
            job.instance.id,
            job.attempt,
            "error",
            "error",
            summary=f"{DEATHS} engines died at it: {told}",
            tries=DEATHS,
            digest=job.instance.digest,
        )
    )
