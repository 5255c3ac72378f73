"""Building, finding and choosing the compiled CPU path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kernels.native import LEVELS, library, native
from kernels.native.build import BuildError, build, main
from tests.support.native import library as built


def test_the_best_level_is_taken_and_a_lower_one_can_be_asked_for() -> None:
    assert built("plain").level == "plain"
    best = native()
    assert best is not None
    assert best.level == LEVELS[best.call.tenuto_level()]


def test_the_variable_bounds_the_level_or_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    built("plain")
    monkeypatch.setenv(library.SWITCH, "plain")
    found = native()
    assert found is not None
    assert found.level == "plain"
    monkeypatch.setenv(library.SWITCH, "off")
    assert native() is None


def test_a_machine_without_a_compiler_is_told_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BuildError, match="there is no C\\+\\+ compiler 'no-such-compiler'"):
        build()
    assert main() == 0
    said = capsys.readouterr().err
    assert "install g++; torch serves" in said
    assert said.count("\n") == 1


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'native.cpp:1: error: too old' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(BuildError, match=r"failed for level .*: native\.cpp:1: error: too old"):
        build(tmp_path)
    assert not list(tmp_path.glob("*.so"))


def test_where_the_environment_cannot_be_written_the_cache_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done; : > "$2"\n')
    compiler.chmod(0o755)
    (tmp_path / "lib").write_text("a file where a folder should be")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", str(compiler))
    paths = build()
    assert {path.parent for path in paths} == {tmp_path / "cache" / "tenuto" / "native"}
    assert all(path.is_file() for path in paths)
    compiler.unlink()
    assert build() == paths  # what is there is not built again
