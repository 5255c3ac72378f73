"""``agent eval compare``: the same tasks under several tool profiles, and whether they differ.

Each profile has a run of its own, in a folder of its name, that may be stopped and gone on with
like any other. What is compared is what ``agent eval report`` would say of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from agent.cli.output import write_out
from agent.errors import ConfigError
from agent.loading import LoadedModel
from agent.text import visible
from evals.grade import GradeOptions, grade
from evals.report.show import traces_of
from evals.report.summary import Summary, compare_runs, comparison_lines, rate_line, summarize
from evals.run.begin import EXIT_INTERRUPTED, RunOptions, begin
from evals.run.folder import RunFolder
from tools.profiles.profile import ProfileError, load_profile


@dataclass(frozen=True)
class ProfileRun:
    """One profile's run: its summary, its calls and those of them that failed.

    ``broken`` are calls that could not be read, ``failed`` those that ran and did not succeed.
    """

    profile: str
    summary: Summary
    calls: int
    broken: int
    failed: int

    def lines(self) -> list[str]:
        """Return what the run came to."""
        summary = self.summary
        attempts = max(1, len(summary.attempts))
        steps = sum(attempt.result.steps for attempt in summary.attempts)
        rates = [rate_line(f"pass@{k}", value) for k, value in summary.pass_at.items()]
        tokens = summary.total("generated_tokens"), summary.total("prefilled_tokens")
        return [
            f"{self.profile}: {'; '.join(rates) or 'nothing graded'}",
            f"  a task: {steps / attempts:.1f} steps, {tokens[0] / attempts:,.0f} tokens generated"
            f", {tokens[1] / attempts:,.0f} prefilled",
            f"  {self.calls:,} calls: {self.failed:,} failed, {self.broken:,} could not be read",
        ]


def compare_profiles(
    options: RunOptions,
    profiles: Sequence[str],
    flags: Mapping[str, Any],
    *,
    model: LoadedModel | None = None,
) -> int:
    """Run and grade each profile, and tell how they differ; return the exit code.

    It is that of the first run that did not end well, else 0. Raises ``ConfigError``.
    """
    _check(profiles)
    runs = []
    for profile in profiles:
        chosen = replace(options, folder=options.place / Path(profile).stem)
        code = begin(chosen, {**flags, "tools": profile}, model=model)
        if code == EXIT_INTERRUPTED:
            return code
        code = grade(GradeOptions(chosen.place, workers=options.workers)) or code
        if code:
            return code
        runs.append(read_run(profile, RunFolder(chosen.place)))
    lines = [line for run in runs for line in run.lines()]
    for first, second in combinations(runs, 2):
        found = compare_runs(first.summary, second.summary)
        lines += comparison_lines(found, first.profile, second.profile)
    write_out("".join(f"{visible(line)}\n" for line in lines))
    return 0


def read_run(profile: str, folder: RunFolder) -> ProfileRun:
    """Return what the run of ``profile`` came to."""
    summary = summarize(folder)
    calls = broken = failed = 0
    for trace in traces_of(folder, summary).values():
        for step in trace.steps:
            made = step.message.tool_calls
            calls += len(made)
            broken += sum(call.error is not None for call in made)
            answered = zip(made, step.observations, strict=False)
            failed += sum(call.error is None and not seen.ok for call, seen in answered)
    return ProfileRun(profile, summary, calls, broken, failed)


def _check(profiles: Sequence[str]) -> None:
    """Raise ``ConfigError`` unless there are several profiles, all there, in folders apart."""
    names = [Path(profile).stem for profile in profiles]
    if len(profiles) < 2 or len(set(names)) < len(names):
        raise ConfigError("--profiles takes several, with different names: --profiles qwen,editor")
    for profile in profiles:
        try:
            load_profile(profile)
        except ProfileError as error:
            raise ConfigError(str(error)) from None
