"""Who owns what, and when an owner counts as gone."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxes.paths import Owner, private_dir, state_dir


def test_the_stamp_reads_back() -> None:
    owner = Owner.of_this_process()
    assert Owner.parse(str(owner)) == owner
    assert not owner.is_gone()


@pytest.mark.parametrize("text", ["", "x", "a/b/c/d/e", "host/boot/ns/1"])
def test_other_text_is_no_stamp(text: str) -> None:
    assert Owner.parse(text) is None


def test_an_ended_process_and_a_reused_pid_are_gone() -> None:
    owner = Owner.of_this_process()
    assert dataclasses.replace(owner, start=owner.start + 1).is_gone()
    assert dataclasses.replace(owner, boot="another").is_gone()
    code = "from sandboxes.paths import Owner; print(Owner.of_this_process())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ended = Owner.parse(done.stdout)
    assert ended is not None and ended.is_gone()


def test_what_cannot_be_judged_from_here_counts_as_living() -> None:
    owner = dataclasses.replace(Owner.of_this_process(), pid=1, start=12345)
    assert owner.is_gone()
    assert not dataclasses.replace(owner, host="another").is_gone()
    assert not dataclasses.replace(owner, namespace="another").is_gone()


def test_the_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_dir() == tmp_path / "tenuto"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/someone")
    assert state_dir() == Path("/home/someone/.local/state/tenuto")
    assert private_dir(tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
