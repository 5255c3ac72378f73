"""``agent eval`` and ``agent trace``: the commands that the evaluations add to ``agent``.

``agent`` finds them by the entry points of this distribution (docs/decisions), so that it need not
import what stands above it. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from agent.cli.flags import Given, takes
from agent.cli.help import Commands
from agent.settings.option import Group

evaluations = Commands(help="Evaluation runs.")

SuiteName = Annotated[
    str,
    typer.Argument(
        metavar="SUITE",
        help="swebench, swebench-pro, terminal-bench, skillsbench, nl2repo, claw-eval, repair, "
        "tasks or FILE.py",
    ),
]
DataSet = Annotated[str | None, typer.Option(help="File or folder, or for swebench a name.")]
RunFolderPath = Annotated[
    Path | None, typer.Option(help="The run's folder; default: runs/SUITE-DATASET.")
]
Instances = Annotated[
    list[str] | None, typer.Option(help="Only this instance; may be given several times.")
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="Not this instance; may be given several times.")
]
TimeLimits = Annotated[
    float,
    typer.Option(
        "--time-limits",
        metavar="FACTOR",
        min=0.01,
        max=1000,
        help="Multiply the time limits that tasks bring.",
    ),
]
Filter = Annotated[str | None, typer.Option(metavar="RE", help="Only ids in which this is found.")]
Shuffle = Annotated[
    int | None, typer.Option(metavar="SEED", help="Put them in a random order first.")
]
Slice = Annotated[str | None, typer.Option(metavar="A:B", help="Only these of what is left.")]
Attempts = Annotated[int, typer.Option(min=1, max=1000, help="Attempts at each instance.")]
EngineName = Annotated[
    str, typer.Option(metavar="local|ray", help="One engine here, or one per GPU or node by Ray.")
]
Engines = Annotated[
    int | None, typer.Option(min=1, help="With ray: engines; default: one per GPU.")
]
Redo = Annotated[bool, typer.Option("--redo", help="Forget what was done and begin anew.")]
Pull = Annotated[bool, typer.Option("--pull/--no-pull", help="Pull missing images.")]
Run = Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")]
Workers = Annotated[int, typer.Option(min=1, max=256, help="Instances at the same time.")]
ImageMap = Annotated[
    Path | None, typer.Option(help="JSON object: instance or image to the image to use.")
]
Agent = Annotated[
    str,
    typer.Option(
        metavar="tenuto|oracle|nop", help="The model, each task's own solution, or no change."
    ),
]
JudgeName = Annotated[
    str | None,
    typer.Option(
        "--judge",
        metavar="CHECKPOINT|ADDRESS[#MODEL]",
        help="Who plays a task's user and is asked by graders: ours, or OpenAI-compatible.",
    ),
]
Scripts = Annotated[
    Path | None,
    typer.Option(help="For swebench-pro: a checkout of SWE-bench_Pro-os, whose scripts grade."),
]


@evaluations.command()
@takes(*Group, but=("check", "n", "approve", "mcp_from_repo", "keep_state"))
def run(
    given: Given,
    suite: SuiteName,
    dataset: DataSet = None,
    run: RunFolderPath = None,
    instance: Instances = None,
    exclude: Exclude = None,
    filter: Filter = None,
    shuffle: Shuffle = None,
    slice: Slice = None,
    workers: Workers = 4,
    attempts: Attempts = 1,
    engine: EngineName = "local",
    engines: Engines = None,
    redo: Redo = False,
    image_map: ImageMap = None,
    pull: Pull = True,
    agent: Agent = "tenuto",
    judge: JudgeName = None,
    time_limits: TimeLimits = 1.0,
) -> None:
    """Run a suite. A second call goes on where the first stopped.

    Exit codes: 0 every attempt was made, 1 some failed in their environment or an error, 2 usage,
    130 interrupted.
    """
    from evals.run.begin import RunOptions, begin

    options = RunOptions(
        suite=suite,
        dataset=dataset,
        folder=run,
        ids=tuple(instance or ()),
        without=tuple(exclude or ()),
        filter=filter,
        shuffle=shuffle,
        slice=slice,
        workers=workers,
        attempts=attempts,
        engine=engine,
        engines=engines,
        redo=redo,
        image_map=image_map,
        pull=pull,
        agent=cast(Any, agent),
        judge=judge,
        time_factor=time_limits,
    )
    raise typer.Exit(begin(options, given))


@evaluations.command()
@takes(Group.MODEL, Group.SANDBOX, "image", Group.LIMITS, Group.CONTEXT, Group.SAMPLING)
def compare(
    given: Given,
    suite: SuiteName,
    profiles: Annotated[
        str, typer.Option(metavar="A,B", help="Tool profiles: names or TOML files.")
    ],
    dataset: DataSet = None,
    run: Annotated[
        Path | None, typer.Option(help="A folder for all; default: runs/compare-SUITE-DATASET.")
    ] = None,
    instance: Instances = None,
    filter: Filter = None,
    shuffle: Shuffle = None,
    slice: Slice = None,
    workers: Workers = 4,
    attempts: Attempts = 1,
    redo: Redo = False,
    image_map: ImageMap = None,
    pull: Pull = True,
) -> None:
    """Run the same tasks under several tool profiles, and tell how they differ by a paired test.

    Prints rates, steps, tokens and failed calls of each. A second call goes on.
    """
    from evals.run.begin import RunOptions
    from evals.run.compare_profiles import compare_profiles

    options = RunOptions(
        suite=suite,
        dataset=dataset,
        folder=run,
        ids=tuple(instance or ()),
        filter=filter,
        shuffle=shuffle,
        slice=slice,
        workers=workers,
        attempts=attempts,
        redo=redo,
        image_map=image_map,
        pull=pull,
    )
    if run is None:
        place = options.place
        options = replace(options, folder=place.with_name(f"compare-{place.name}"))
    names = [name.strip() for name in profiles.split(",") if name.strip()]
    raise typer.Exit(compare_profiles(options, names, given))


@evaluations.command()
@takes(Group.SANDBOX, "image")
def check(
    given: Given,
    suite: SuiteName,
    dataset: DataSet = None,
    run: Annotated[
        Path | None, typer.Option(help="A folder for both runs; default: runs/check-SUITE-DATASET.")
    ] = None,
    instance: Annotated[
        list[str] | None, typer.Option(help="Only this instance; may be given several times.")
    ] = None,
    workers: Workers = 4,
    attempts: Annotated[
        int, typer.Option(min=1, max=1000, help="Gradings of each; those that differ are flaky.")
    ] = 1,
    image_map: ImageMap = None,
    pull: Pull = True,
    judge: JudgeName = None,
    scripts: Scripts = None,
    exclude: Exclude = None,
    time_limits: TimeLimits = 1.0,
) -> None:
    """Check a suite's grading here: its own solutions must solve every task, no change none.

    Lists the tasks whose grading is broken or flaky on this machine; exit code 1 if there are any.
    """
    from evals.references import CheckOptions
    from evals.references import check as begin

    ids = tuple(instance or ())
    options = CheckOptions(
        suite,
        dataset,
        run,
        ids,
        workers,
        attempts,
        image_map,
        pull,
        judge,
        scripts,
        tuple(exclude or ()),
        time_limits,
    )
    raise typer.Exit(begin(options, given))


@evaluations.command()
def grade(
    run: Run,
    predictions: Annotated[
        Path | None, typer.Option(help="Grade this file, beside the run's own results.")
    ] = None,
    workers: Workers = 4,
    image_map: ImageMap = None,
    pull: Pull = True,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds for the tests of one instance.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Where the data set lies now, if it was moved.")
    ] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Grade anew what has a verdict.")] = False,
    judge: JudgeName = None,
    scripts: Scripts = None,
) -> None:
    """Grade a run by its suite's own means.

    SWE-bench by the official swebench package, SWE-bench Pro and Claw-Eval by their makers' files,
    Terminal-Bench by the tasks' tests, the rest by their checks. Exit code 1 if an instance could
    not be graded.
    """
    from evals.grade import GradeOptions
    from evals.grade import grade as begin

    raise typer.Exit(
        begin(
            GradeOptions(
                run,
                predictions,
                workers,
                image_map,
                pull,
                timeout,
                dataset,
                redo,
                judge,
                scripts,
            )
        )
    )


@evaluations.command()
def report(
    run: Run,
    against: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Another run to compare with.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page that needs nothing else.")] = None,
    output: Annotated[str, typer.Option(metavar="text|json", help="What to print.")] = "text",
    traces: Annotated[
        bool, typer.Option("--traces/--no-traces", help="Trajectories in the page.")
    ] = True,
) -> None:
    """Tell what a run came to, on the terminal, as JSON or as a page."""
    from agent.errors import ConfigError
    from evals.report.show import ReportOptions
    from evals.report.show import report as tell

    if output not in ("text", "json"):
        raise ConfigError(f"--output {output!r}: use text or json")
    raise typer.Exit(tell(ReportOptions(run, against, html, output == "json", traces)))


@evaluations.command()
def export(
    run: Run,
    to: Annotated[Path, typer.Option(help="The folder to write to.")],
    leaderboard: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="swebench|swebench-pro|terminal-bench",
            help="Write the folder that this leaderboard asks for instead.",
        ),
    ] = None,
) -> None:
    """Write each attempt as ATIF JSON and safetensors: ids, log-probabilities, masks, rewards.

    With --for, exit code 1 says that something is missing before it can be submitted.
    """
    from evals.run.folder import RunFolder

    if leaderboard is not None:
        from evals.report.submission import submit

        raise typer.Exit(submit(RunFolder(run), to, leaderboard))
    from evals.report.export import export as write

    raise typer.Exit(write(RunFolder(run), to))


def trace(
    id: Annotated[str, typer.Argument(help="A session, or with --run an instance.", metavar="ID")],
    html: Annotated[Path | None, typer.Option(help="Write a page that needs nothing else.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="The folder of a run; ID is then INSTANCE or INSTANCE/N.")
    ] = None,
) -> None:
    """Show a session: what was said, thought, called and answered, and where tokens were reused."""
    from evals.report.show import trace as tell

    raise typer.Exit(tell(id, html, run))
