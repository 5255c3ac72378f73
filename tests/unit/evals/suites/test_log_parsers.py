"""The log parsers of the official package that SWE-bench Multilingual names, on recorded outputs.

A folder of ``tests/golden/log_parsers`` is one parser: ``log.txt`` as the test tool prints it, and
``expected.json`` with each test's status. A new version of the package that reads one otherwise
would grade otherwise.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

GOLDEN = Path(__file__).parents[3] / "golden" / "log_parsers"
registry = pytest.importorskip("swebench.harness.log_parsers").PARSER_REGISTRY
MULTILINGUAL = {
    *("gotest", "cargo", "maven", "ant", "gradle_custom", "jest", "jest_json", "vitest", "karma"),
    *("tap", "immutable_js", "phpunit", "minitest", "cucumber", "ruby_unit", "jekyll", "redis"),
    *("rspec_transformed_json", "jq", "doctest", "micropython_test", "googletest"),
}


def test_every_parser_of_the_nine_languages_has_a_recorded_output() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == MULTILINGUAL
    assert {f"parse_log_{name}" for name in MULTILINGUAL} <= set(registry)


@pytest.mark.parametrize("name", sorted(MULTILINGUAL))
def test_the_parser_reads_the_tools_output(name: str) -> None:
    expected = json.loads((GOLDEN / name / "expected.json").read_text("utf-8"))
    spec = SimpleNamespace(
        **{"instance_id": "x__x-1", "version": "1.0", **expected.get("spec", {})}
    )
    log = (GOLDEN / name / "log.txt").read_text("utf-8")
    assert registry[f"parse_log_{name}"](log, spec) == expected["tests"]
