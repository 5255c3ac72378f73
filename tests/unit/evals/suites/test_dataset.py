"""Reading rows, what is wrong with them, and which are taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from agent.cli.app import app
from evals.errors import DatasetError
from evals.instance import Instance
from evals.suites import find_suite
from evals.suites.dataset import Selection, read_rows
from evals.suites.harness import FIELDS
from evals.suites.repair import Repair
from evals.suites.swebench import SweBench

ROW: dict[str, Any] = {
    "instance_id": "astropy__astropy-12907",
    "repo": "astropy/astropy",
    "problem_statement": "It is wrong.",
}
NEW = ROW | {
    "image": "example/astropy:1",
    "version": "4.3",
    "FAIL_TO_PASS": '["a"]',
    "PASS_TO_PASS": [],
    "log_parser": "parse_log_pytest",
    "eval_type": "pass_and_fail",
    "eval_script": "#!/bin/bash\ntrue",
}


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_rows_are_the_same_from_every_kind_of_file(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"instance_id": "other"}]
    lines = write(tmp_path / "a.jsonl", *rows)
    whole = tmp_path / "a.json"
    whole.write_text(json.dumps(rows))
    table = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    assert read_rows(lines) == read_rows(str(whole)) == read_rows(str(table)) == rows


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.jsonl", '{"a": 1}\n{"a"', "line 2: no JSON"),
        ("a.jsonl", "[1]\n", "line 1: must be an object"),
        ("a.json", '{"a": 1}', "must be a list of objects"),
        ("a.json", "nonsense", "no JSON"),
        ("a.jsonl", "\n", "has no rows"),
        ("a.parquet", "nonsense", "no Parquet"),
        ("a.csv", "a,b", "no .jsonl, .json or .parquet file"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_place(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=told):
        read_rows(str(tmp_path / name))


def test_a_file_that_is_not_there_is_no_name_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        read_rows(str(tmp_path / "missing.jsonl"))


@pytest.mark.parametrize("field", FIELDS)
def test_a_new_row_without_a_field_that_grading_needs_is_refused(
    tmp_path: Path, field: str
) -> None:
    row = {key: value for key, value in NEW.items() if key != field}
    with pytest.raises(DatasetError, match=rf"row 1 \(.*\) has no '{field}', which"):
        SweBench().load(write(tmp_path / "a.jsonl", row))


def test_classic_and_new_rows_name_their_images(tmp_path: Path) -> None:
    classic, new = SweBench().load(
        write(tmp_path / "a.jsonl", ROW, NEW | {"instance_id": "another"})
    )
    assert classic.image == "swebench/sweb.eval.x86_64.astropy_1776_astropy-12907:latest"
    assert new.image == "example/astropy:1"
    assert classic.text == "It is wrong."
    assert classic.check is None


def test_a_row_of_another_suite_is_told_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="use the suite swebench-pro"):
        SweBench().load(write(tmp_path / "a.jsonl", ROW | {"dockerhub_tag": "x.y"}))


def test_an_id_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is in row 1 and in row 2"):
        SweBench().load(write(tmp_path / "a.jsonl", ROW, ROW))


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a b", "x" * 300])
def test_an_id_that_could_lead_out_of_the_run_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match=r"cannot name a folder|has no 'instance_id'"):
        SweBench().load(write(tmp_path / "a.jsonl", ROW | {"instance_id": name}))


def test_a_suite_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match="there is no suite 'swe'; use swebench, swebench-pro, terminal"
    ):
        find_suite("swe")
    (tmp_path / "mine.py").write_text("x = 1\n")
    with pytest.raises(DatasetError, match="defines no SUITE"):
        find_suite(str(tmp_path / "mine.py"))
    (tmp_path / "broken.py").write_text("x = (\n")
    with pytest.raises(DatasetError, match="cannot be loaded"):
        find_suite(str(tmp_path / "broken.py"))


def instances(*names: str) -> list[Instance]:
    return [Instance(name, "text") for name in names]


def test_selections_follow_each_other() -> None:
    every = instances("a-1", "a-2", "b-1", "b-2")
    assert [i.id for i in Selection(filter="^a|2$", slice="1:").of(every)] == ["a-2", "b-2"]
    assert [i.id for i in Selection(ids=("b-1", "a-1")).of(every)] == ["b-1", "a-1"]


@pytest.mark.parametrize(
    ("selection", "told"),
    [
        (Selection(ids=("a-3",)), "has no instance 'a-3'; did you mean a-"),
        (Selection(filter="("), "is no pattern"),
        (Selection(filter="z"), "no instance is left"),
        (Selection(slice="x"), "must be like 0:10"),
        (Selection(slice="1:2:0"), "must be like 0:10"),
    ],
)
def test_a_selection_of_nothing_is_refused(selection: Selection, told: str) -> None:
    with pytest.raises(DatasetError, match=told):
        selection.of(instances("a-1", "a-2"))


def test_left_out_instances_are_out_before_a_slice_counts() -> None:
    every = [Instance(name, "") for name in "abcd"]
    chosen = Selection(without=("a", "c"), slice=":2").of(every)
    assert [instance.id for instance in chosen] == ["b", "d"]
    with pytest.raises(DatasetError, match="no instance 'e'"):
        Selection(without=("e",)).of(every)
    with pytest.raises(DatasetError, match="--exclude"):
        Selection(ids=("a",), without=("a",)).of(every)


def test_every_setting_of_solve_has_its_flag_in_an_evaluation() -> None:
    """But for what a task decides itself, what asks a person, and what is printed."""
    command: Any = typer.main.get_command(app)
    solve = {parameter.name for parameter in command.commands["solve"].params}
    run = {parameter.name for parameter in command.commands["eval"].commands["run"].params}
    of_the_task = {"task", "repo", "check", "picture", "n"}
    of_a_person = {"approve", "interactive", "mcp_from_repo", "apply", "output"}
    assert solve - run == of_the_task | of_a_person


@given(st.sets(st.text("abc123", min_size=1, max_size=4), min_size=1), st.integers())
def test_the_order_of_a_shuffle_depends_on_the_seed_and_the_ids_alone(
    names: set[str], seed: int
) -> None:
    forward = Selection(shuffle=seed).of(instances(*sorted(names)))
    backward = Selection(shuffle=seed).of(instances(*sorted(names, reverse=True)))
    assert forward == backward
    assert {i.id for i in forward} == names


@pytest.mark.parametrize("path", ["../out.py", "/tmp/out.py", "a/../../out.py"])
def test_a_repair_that_would_write_outside_its_repository_is_refused(
    tmp_path: Path, path: str
) -> None:
    row = {"instance_id": "a", "issue": "i", "module": "m", "test_path": "t.py", "test": "t"}
    with pytest.raises(DatasetError, match="row 1: its path leads out"):
        Repair().load(write(tmp_path / "a.jsonl", row | {"path": path}))


@pytest.mark.parametrize(
    ("text", "told"),
    [("SUITE = 5", "has no load"), ("raise SystemExit(3)", "cannot be loaded: 3")],
)
def test_a_file_that_holds_no_suite_is_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(DatasetError, match=told):
        find_suite(str(file))
