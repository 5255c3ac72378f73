"""SWE-bench Pro: three instances with images made here, graded by scripts out of a checkout."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import docker
import pytest

from evals.errors import DatasetError, GradeError
from evals.grade import GradeOptions, grade
from evals.references import CheckOptions, check
from evals.run.begin import RunOptions, begin
from evals.run.folder import RunFolder
from evals.suites.swebench_pro import SweBenchPro, files_of, image_of, text_of, without_binaries
from sandboxes.images.base_image import ensure_base_image

SCRIPTS = Path(__file__).parents[1] / "golden" / "swebench_pro"
TAG = "us.sums-1-1"
FIXES = (("a - b", "a + b"), ("a * b * b", "a * b"), ("a - a", "a - b"))
NAMES = ("add", "times", "minus")


def patch_of(number: int) -> str:
    """The patch that mends one module."""
    wrong, right = FIXES[number]
    name = NAMES[number]
    return (
        f"diff --git a/{name}.py b/{name}.py\n--- a/{name}.py\n+++ b/{name}.py\n@@ -1,2 +1,2 @@\n"
        f" def {name}(a, b):\n-    return {wrong}\n+    return {right}\n"
    )


@pytest.fixture(scope="module")
def image(docker_engine: docker.DockerClient) -> str:
    """One image with the repository of all three in /app."""
    tests = {
        "add": "assert add(2, 3) == 5",
        "times": "assert times(2, 3) == 6",
        "minus": "assert minus(5, 3) == 2",
    }
    files = {
        "Dockerfile": f"FROM {ensure_base_image()}\nRUN mkdir -p /app\nWORKDIR /app\nCOPY . /app\n"
        "RUN rm Dockerfile && git init -q . && git add -A && git -c user.name=u -c user.email=u@u "
        'commit -qm base && git tag base\nENTRYPOINT ["/bin/bash"]\n'
    }
    for name, (wrong, _) in zip(NAMES, FIXES, strict=True):
        files[f"{name}.py"] = f"def {name}(a, b):\n    return {wrong}\n"
        files[f"test_{name}.py"] = (
            f"from {name} import {name}\n\n\ndef test_it():\n    {tests[name]}\n\n\n"
            f"def test_is_there():\n    assert {name}\n"
        )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    buffer.seek(0)
    docker_engine.images.build(fileobj=buffer, custom_context=True, tag=f"tenuto/{TAG}:1", rm=True)
    return f"tenuto/{TAG}:1"


def row(number: int) -> dict[str, str]:
    name = NAMES[number]
    return {
        "instance_id": f"instance_us__sums-{number + 1}-vnan",
        "repo": "Us/Sums",
        "base_commit": "base",
        "problem_statement": f"{name} is wrong.",
        "requirements": "It is right.",
        "interface": "None.",
        "patch": patch_of(number),
        "fail_to_pass": repr([f"test_{name}.py::test_it"]),
        "pass_to_pass": repr([f"test_{name}.py::test_is_there"]),
        "before_repo_set_cmd": f"git reset --hard base\ngit checkout base -- test_{name}.py",
        "selected_test_files_to_run": repr([f"test_{name}.py"]),
    }


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "pro.jsonl"
    path.write_text("".join(json.dumps(row(number)) + "\n" for number in range(3)))
    return path


@pytest.mark.docker
def test_the_makers_scripts_grade_three_instances(
    image: str, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "map.json"
    names.write_text(json.dumps({"jefzda/sweap-images:us.sums-*": image}))
    options = CheckOptions(
        "swebench-pro", str(rows), tmp_path / "runs", workers=2, image_map=names, scripts=SCRIPTS
    )
    assert check(options, {}) == 0, capsys.readouterr()
    assert "3 of 3 tasks are graded as they should be" in capsys.readouterr().err
    left = tmp_path / "runs" / "oracle" / "grading" / "attempt-1" / "instance_us__sums-1-vnan"
    told = json.loads((left / "output.json").read_text())["tests"]
    assert {test["status"] for test in told} == {"PASSED"}

    # Another instance's patch applies and mends nothing; a patch that does not apply neither.
    predictions = tmp_path / "preds.json"
    label = RunFolder(tmp_path / "runs" / "oracle").about()["label"]
    wrong = {0: patch_of(1), 1: "diff --git a/no b/no\n--- a/no\n+++ b/no\n@@ -1 +1 @@\n-x\n+y\n"}
    predictions.write_text(
        json.dumps(
            [
                {
                    "instance_id": row(number)["instance_id"],
                    "model_name_or_path": label,
                    "model_patch": patch,
                }
                for number, patch in wrong.items()
            ]
        )
    )
    before = RunFolder(tmp_path / "runs" / "oracle").grades()
    grading = GradeOptions(
        tmp_path / "runs" / "oracle", predictions, image_map=names, scripts=SCRIPTS
    )
    assert grade(grading) == 0
    folder = RunFolder(tmp_path / "runs" / "oracle")
    found = [v for _, v in sorted(folder.grades("grades-of-preds.json").items())]
    assert [(v.resolved, v.reason) for v in found] == [
        (False, "fails test_add.py::test_it"),
        (False, "fails test_times.py::test_it"),
    ]
    assert folder.grades() == before


@pytest.mark.docker
def test_grading_without_the_scripts_says_what_to_name(
    image: str, rows: Path, tmp_path: Path
) -> None:
    options = RunOptions("swebench-pro", str(rows), tmp_path / "run", agent="nop")
    assert begin(options, {}) == 1  # its image is not there under its published name
    with pytest.raises(GradeError, match="needs --scripts FOLDER, a checkout of"):
        grade(GradeOptions(options.place))


def test_the_prompt_has_the_makers_wording() -> None:
    assert text_of(row(0)) == (
        "add is wrong.\n\nRequirements:\nIt is right.\n\nNew interfaces introduced:\nNone."
    )


@pytest.mark.parametrize(
    ("name", "repo", "tag"),
    [
        ("instance_NodeBB__NodeBB-ab12-vnan", "NodeBB/NodeBB", "nodebb.nodebb-NodeBB__NodeBB-ab12"),
        ("instance_a__B-1-v2", "a/B", "a.b-a__B-1-v2"),
        (
            "instance_element-hq__element-web-12-vnan",
            "element-hq/element-web",
            "element-hq.element-element-hq__element-web-12",
        ),
        (
            "instance_element-hq__element-web-ec0f940ef0e8e3b61078f145f34dc40d1938e6c5-vnan",
            "element-hq/element-web",
            "element-hq.element-web-element-hq__element-web-ec0f940ef0e8e3b61078f145f34dc40d1938e6c5"
            "-vnan",
        ),
        ("instance_a__b-" + "9" * 200, "a/b", "a.b-a__b-" + "9" * 119),
    ],
)
def test_an_image_is_named_as_the_makers_publish_it(name: str, repo: str, tag: str) -> None:
    assert image_of({"instance_id": name, "repo": repo}) == f"jefzda/sweap-images:{tag}"


def test_binary_sections_are_cut_out_of_a_patch() -> None:
    binary = "diff --git a/x.png b/x.png\nGIT binary patch\nliteral 3\nabc\n\n"
    also = "diff --git a/y b/y\nBinary files a/y and b/y differ\n"
    assert without_binaries(patch_of(0) + binary + also + patch_of(1)) == patch_of(0) + patch_of(1)
    assert without_binaries("") == ""


@pytest.mark.parametrize(
    "change",
    [
        {"selected_test_files_to_run": "__import__('os').system('id')"},
        {"selected_test_files_to_run": "[1]"},
        {"base_commit": "base; rm -rf /"},
        {"base_commit": ""},
    ],
)
def test_a_row_that_says_other_than_data_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(DatasetError):
        files_of(row(0) | change, "", SCRIPTS)


def test_a_row_without_a_statement_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({k: v for k, v in row(0).items() if k != "problem_statement"}))
    with pytest.raises(DatasetError, match="no 'problem_statement'"):
        SweBenchPro().load(str(path))
