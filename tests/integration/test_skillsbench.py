"""SkillsBench tasks: skills found in the image, told, read on demand; and the arm without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from agent.loading import LoadedModel
from evals.errors import DatasetError
from evals.grade import GradeOptions, grade
from evals.report.summary import compare_runs, summarize
from evals.run.begin import RunOptions, begin
from evals.run.folder import RunFolder
from evals.suites.skillsbench import SkillsBench
from sandboxes.images.base_image import ensure_base_image
from tests.support.evaluation import call

pytestmark = pytest.mark.docker
SKILL = (
    "---\nname: greeting\ndescription: How people here are greeted.\n---\n# Greeting\nSay ahoy.\n"
)
DOCKERFILE = """FROM {base}
USER root
WORKDIR /root
COPY skills /root/.claude/skills
COPY skills /root/.agents/skills
"""
TESTS = """grep -q ahoy /root/greeting && R=1 || R=0
[ "$(cat /root/.agents/skills/greeting/SKILL.md 2>/dev/null)" ] && echo there
echo $R > /logs/verifier/reward.txt
"""


def write_task(folder: Path, base: str) -> None:
    skill = folder / "environment" / "skills" / "greeting"
    skill.mkdir(parents=True)
    (folder / "tests").mkdir()
    (folder / "task.toml").write_text("version = '1.0'\n[environment]\nallow_internet = false\n")
    (folder / "instruction.md").write_text("Greet them in the file greeting.\n")
    (folder / "environment" / "Dockerfile").write_text(DOCKERFILE.format(base=base))
    (skill / "SKILL.md").write_text(SKILL)
    (folder / "tests" / "test.sh").write_text(TESTS)


def test_skills_are_told_and_read_on_demand_and_the_other_arm_has_none(
    docker_engine: docker.DockerClient,
    tmp_path: Path,
    scripted_model: Callable[..., LoadedModel],
) -> None:
    tasks = tmp_path / "tasks"
    write_task(tasks / "greet", ensure_base_image())
    place = "/root/.agents/skills/greeting/SKILL.md"
    model = scripted_model(
        f"Read.\n</think>\n\n{call('read_file', file_path=place)}",
        f"Go.\n</think>\n\n{call('run_shell_command', command='echo ahoy > greeting')}",
        f"Done.\n</think>\n\n{call('submit', summary='greeted')}",
    )
    records = {}
    for suite, attempts in (("skillsbench", 2), ("skillsbench-without", 2)):
        run = tmp_path / suite
        begin(RunOptions(suite, str(tasks), run, attempts=attempts), {}, model=model)
        grade(GradeOptions(run))
        folder = RunFolder(run)
        records[suite] = (folder.attempt("greet", 1) / "trajectory.jsonl").read_text()
        verdict = folder.grades()["greet", 2]
        assert verdict.reward == 1.0
        assert ("there" in verdict.output) is (suite == "skillsbench")
    assert f"- {place}: How people here are greeted." in records["skillsbench"]
    assert "Say ahoy." in records["skillsbench"]
    assert "How people here" not in records["skillsbench-without"]
    both = [summarize(RunFolder(tmp_path / suite)) for suite in records]
    means = [summary.mean_reward for summary in both]
    assert [mean.value for mean in means if mean is not None] == [1.0, 1.0]
    assert compare_runs(both[0], both[1]).p == 1.0


def test_the_arm_without_skills_refuses_a_ready_made_image(tmp_path: Path) -> None:
    write_task(tmp_path / "one", "base")
    (tmp_path / "one" / "task.toml").write_text("[environment]\ndocker_image = 'made:1'\n")
    assert not SkillsBench().load(str(tmp_path))[0].refused
    (found,) = SkillsBench(with_skills=False).load(str(tmp_path))
    assert "one has its skills in an image that is not built here" in found.refused
    with pytest.raises(DatasetError, match="FOLDER"):
        SkillsBench().load(None)
