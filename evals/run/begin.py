"""``agent eval run`` once its flags are read."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

from agent import version
from agent.cli.interrupts import SIGNALS
from agent.cli.output import write_err
from agent.errors import ConfigError
from agent.loading import LoadedModel, load_for
from agent.run.build import with_image
from agent.sessions.store import SessionStore
from agent.settings.load import load_settings
from agent.settings.table import Settings
from agent.settings.variables import old_variable_lines
from agent.text import visible
from evals.errors import DatasetError, RunNotFound
from evals.instance import UNSETTLED, Instance, Result
from evals.judge import open_judge
from evals.run.attempt import AGENTS, AgentName, AttemptWorker
from evals.run.board import Board
from evals.run.folder import RunFolder
from evals.run.runner import Execute, Interruptions, Runner, missing
from evals.scratch import clear_scratch
from evals.suites import find_suite
from evals.suites.dataset import Selection
from evals.suites.images import Images, read_map
from evals.suites.suite import Machine, Suite, needs_image
from sandboxes.prune import prune

NEUTRAL = frozenset(
    ("kv_memory", "check", "check_timeout", "n", "approve", "keep_state", "warm_cache_mb")
)
"""The settings that change nothing of what comes out of a run. All others make its identity."""
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class RunOptions:
    """The flags of ``agent eval run`` that are not settings."""

    suite: str
    dataset: str | None = None
    folder: Path | None = None
    ids: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    filter: str | None = None
    shuffle: int | None = None
    slice: str | None = None
    workers: int = 4
    attempts: int = 1
    engine: str = "local"
    engines: int | None = None
    redo: bool = False
    image_map: Path | None = None
    pull: bool = True
    agent: AgentName = "tenuto"
    judge: str | None = None
    time_factor: float = 1.0

    @property
    def place(self) -> Path:
        """The run's folder."""
        if self.folder is not None:
            return self.folder
        name = Path(self.suite).stem
        name = f"{name}-{Path(self.dataset).stem}" if self.dataset else name
        return Path("runs") / (name if self.agent == "tenuto" else f"{name}-{self.agent}")


def model_label(name: str) -> str:
    """Return the model's name in predictions: the last part of its name, as ours."""
    return f"tenuto/{name.rstrip('/').rpartition('/')[2]}"


def begin(
    options: RunOptions, flags: Mapping[str, Any], *, model: LoadedModel | None = None
) -> int:
    """Run or go on with a run; returns the exit code. Without ``model`` it loads one."""
    if options.engine not in ("local", "ray"):
        raise ConfigError(f"--engine {options.engine!r}: use local or ray")
    if options.agent not in AGENTS:
        raise ConfigError(f"--agent {options.agent!r}: use {', '.join(AGENTS)}")
    if options.agent != "tenuto" and options.engine != "local":
        raise ConfigError(f"--agent {options.agent} runs with --engine local only")
    if options.engine != "local" and options.judge and "://" not in options.judge:
        raise ConfigError("with --engine ray the judge is an address, not a checkpoint")
    settings = load_settings(flags)
    for line in old_variable_lines():
        _tell(line)
    suite = find_suite(options.suite)
    every = suite.load(options.dataset)
    selection = Selection(
        options.ids, options.without, options.filter, options.shuffle, options.slice
    )
    chosen = _leave_refused_out(selection.of(every), options)
    images = Images(read_map(options.image_map), options.pull)
    folder = RunFolder(options.place)
    with folder.claim():
        if options.redo:
            _clear(folder)
        _find_moved_data(folder, options)
        folder.begin(identity(options, settings), about(options, settings, every))
        jobs = missing(folder, chosen, options.attempts, redo=options.redo)
        total = len(chosen) * options.attempts
        _tell(f"{folder.path}: {total - len(jobs)} of {total} attempts are done")
        interruptions = Interruptions()
        if jobs:
            for line in dict.fromkeys([*prune(), *clear_scratch()]):
                _tell(f"removed {line}, left by a run that was killed")
            if needs_image(suite, [job.instance for job in jobs]):
                settings = with_image(settings, lambda event: _tell(getattr(event, "text", "")))
            judge = open_judge(options.judge, settings)
            factor = options.time_factor
            machine = Machine(settings, images, _tell, judge, time_factor=factor)
            board = Board(total, total - len(jobs))
            with (
                heard_signals(interruptions),
                executor(options, suite, machine, folder, model) as execute,
                board,
            ):
                runner = Runner(
                    folder,
                    model_label(settings.model),
                    execute,
                    options.workers,
                    board,
                    interruptions,
                )
                runner.run(jobs)
        return _end(folder, chosen, options, interruptions)


@contextmanager
def executor(
    options: RunOptions,
    suite: Suite,
    machine: Machine,
    folder: RunFolder,
    model: LoadedModel | None = None,
) -> Iterator[Execute]:
    """Open an engine in this process, or several by Ray, and yield how to make an attempt."""
    if options.engine == "ray":
        from evals.run.cluster import Cluster

        with Cluster.start(
            options.suite, machine, workers=options.workers, engines=options.engines
        ) as cluster:
            yield cluster.execute
        return
    settings = machine.settings
    if options.agent == "tenuto":
        model = model or load_for(settings)
    store = SessionStore(folder.sessions)
    worker = AttemptWorker(suite, machine, model, store, options.agent)
    yield lambda job, listen, stop: worker.run(job.instance, job.attempt, listen=listen, stop=stop)


def identity(options: RunOptions, settings: Settings) -> dict[str, Any]:
    """Return everything that changes what comes out of a run.

    Of variables with values only the names and a hash are kept: a value may be a password.
    """
    dataset = options.dataset
    if dataset is not None and Path(dataset).exists():
        dataset = str(Path(dataset).resolve())
    values = {k: v for k, v in settings.model_dump(mode="json").items() if k not in NEUTRAL}
    entries = values["pass_env"]
    values["pass_env"] = [entry.partition("=")[0] for entry in entries]
    values["pass_env_hash"] = sha256("\0".join(entries).encode()).hexdigest()[:16]
    if options.time_factor != 1.0:  # a run of before knows no other
        values["time_factor"] = options.time_factor
    own = {"suite": options.suite, "dataset": dataset, "agent": options.agent}
    return own | ({"judge": options.judge} if options.judge else {}) | values


def about(options: RunOptions, settings: Settings, every: list[Instance]) -> dict[str, Any]:
    """Return the rest of ``run.json``, for later readers."""
    return {
        "version": version(),
        "label": model_label(settings.model),
        "attempts": options.attempts,
        "workers": options.workers,
        "engine": options.engine,
        "instances": len(every),
        "refused": {instance.id: instance.refused for instance in every if instance.refused},
        "check_timeout": settings.check_timeout,
    }


@contextmanager
def heard_signals(interruptions: Interruptions) -> Iterator[None]:
    """Count ^C and its kin. The third one raises ``KeyboardInterrupt``."""

    def handle(number: int, frame: FrameType | None) -> None:
        interruptions.add()
        if interruptions.count == 1:
            _tell("stopping: what is under way is finished; once more stops that too")
        elif interruptions.count > 2:
            raise KeyboardInterrupt

    previous = {}
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave_refused_out(chosen: list[Instance], options: RunOptions) -> list[Instance]:
    """Tell which tasks cannot be run here, and return the others.

    Raises ``DatasetError`` if one was asked for by its name, or none is left.
    """
    refused = [instance for instance in chosen if instance.refused]
    if refused and (options.ids or len(refused) == len(chosen)):
        raise DatasetError(refused[0].refused)
    for instance in refused:
        _tell(f"left out: {instance.refused}")
    return [instance for instance in chosen if not instance.refused]


def _find_moved_data(folder: RunFolder, options: RunOptions) -> None:
    """Let a run go on whose data set lies elsewhere now; each instance is compared anyway."""
    known = folder.about().get("identity", {})
    before = known.get("dataset")
    if options.dataset and before and not Path(before).exists() and Path(options.dataset).exists():
        known["dataset"] = str(Path(options.dataset).resolve())
        folder.write("run.json", folder.about() | {"identity": known})


def _clear(folder: RunFolder) -> None:
    for pattern in ("run.json", "grades*.json", "preds*.json"):
        for path in folder.path.glob(pattern):
            path.unlink()


def _end(
    folder: RunFolder, chosen: list[Instance], options: RunOptions, interruptions: Interruptions
) -> int:
    """Say what the run came to."""
    results = folder.results()
    wanted = {(i.id, n) for i in chosen for n in range(1, options.attempts + 1)}
    there = [result for key, result in results.items() if key in wanted]
    counts: dict[str, int] = {}
    for result in there:
        counts[result.exit_status] = counts.get(result.exit_status, 0) + 1
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "nothing"
    _tell(f"{len(there)} of {len(wanted)} attempts are done: {told}")
    _tell(_tokens(there))
    if interruptions.count:
        _tell(f"interrupted; go on with the same command, --run {folder.path}")
        return EXIT_INTERRUPTED
    if unsettled := [r for r in there if r.exit_status in UNSETTLED]:
        first = unsettled[0]
        _tell(f"{first.instance_id}: {first.summary}; the same command tries these again")
        return 1
    return 0


def _tokens(results: list[Result]) -> str:
    """Describe prefilled tokens against new ones: above 1 something ran twice."""

    def total(name: str) -> int:
        return round(sum(result.usage.get(name, 0) for result in results))

    new = total("context_tokens") + total("compacted_tokens") - total("generated_tokens")
    shared, prefilled = total("shared_tokens"), total("prefilled_tokens")
    ratio = (prefilled + shared) / new if new > 0 else 0.0
    return (
        f"{new:,} new tokens, {prefilled:,} prefilled ({ratio:.2f} for each new one), "
        f"{shared:,} shared, {total('generated_tokens'):,} generated"
    )


def _tell(line: str) -> None:
    write_err(visible(line.replace("\n", " ")) + "\n")


def load_again(
    folder: RunFolder, dataset: str | None = None
) -> tuple[Suite, list[Instance], Settings]:
    """Load the suite, instances and settings of an existing run. Raises ``EvalError``.

    ``dataset`` says where the data set lies now, if it was moved.
    """
    about = folder.about()
    known = about.get("identity")
    if not isinstance(known, dict):
        raise RunNotFound(f"{folder.path} is no folder of a run: it has no run.json")
    suite = find_suite(str(known["suite"]))
    flags = {key: known.get(key) for key in Settings.model_fields if key not in NEUTRAL}
    settings = load_settings(flags | {"check_timeout": about.get("check_timeout")})
    instances = suite.load(dataset or known.get("dataset"))
    return suite, [i for i in instances if not i.refused], settings
