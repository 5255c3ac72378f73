"""A change that failed the check before is answered from the record, with a scripted model."""

from __future__ import annotations

from agent.run.solve import solve
from agent.settings.table import Settings
from agent.types import Task


def test_a_change_that_failed_the_check_before_is_answered_from_the_record(
    buggy_repo, script, scripted_model, store, tmp_path
) -> None:
    """Make two changes by turns: each is checked once; a check without a change is run."""
    ran = tmp_path / "ran"
    check = f"echo x >> {ran}; grep -c 'a % b' calc.py"
    lines = ["    return a - b", "    return a * b", "    return a / b"]

    def edit(old: int, new: int) -> str:
        values = {"old_string": lines[old], "new_string": lines[new]}
        return script.turn(script.call("edit", file_path="calc.py", **values))

    run = script.turn(script.call("run_shell_command", command=check))
    turns = (edit(0, 1), run, run, edit(1, 2), run, edit(2, 1), run)
    model = scripted_model(*turns, script.turn(script.call("submit", summary="no")))
    task = Task("x", buggy_repo, check=check, checked=False)
    report = solve(task, Settings(sandbox="local"), model, store=store)
    said = [[seen.text for seen in step.observations] for step in report.result.steps]
    assert ran.read_text().count("x") == 3
    note = "[not run again: tried in step 3, the check failed the same way]"
    assert [step[0].endswith(note) for step in said] == [False] * 6 + [True, False]
    assert said[6][0].startswith(said[2][0].split("\n")[0])
