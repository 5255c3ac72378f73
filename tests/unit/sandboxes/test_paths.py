"""Who owns what, and when an owner counts as gone."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kernels.storage import cache_dir as kernels_cache_dir
from kernels.storage import make_private
from kernels.storage import write_whole as kernels_write_whole
from sandboxes.paths import Owner, cache_dir, config_dir, private_dir, state_dir, write_whole


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


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_own_folders_are_private_whatever_the_umask(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, umask: int
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = os.umask(umask)
    try:
        private_dir(state_dir() / "sessions")
        make_private(kernels_cache_dir() / "native")
    finally:
        os.umask(before)
    made = ("state/tenuto", "state/tenuto/sessions", "cache/tenuto", "cache/tenuto/native")
    assert [oct((tmp_path / name).stat().st_mode & 0o777) for name in made] == ["0o700"] * 4


def test_a_state_folder_that_others_could_read_becomes_private(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    state_dir().mkdir(mode=0o755)
    private_dir(state_dir() / "sessions")
    assert state_dir().stat().st_mode & 0o777 == 0o700


def test_all_folders_follow_the_same_rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kinds = {"STATE": state_dir, "CACHE": cache_dir, "CONFIG": config_dir}
    monkeypatch.setenv("HOME", str(tmp_path))
    for kind, ask in kinds.items():
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
        assert ask() == tmp_path / kind / "tenuto"
        for nothing in ("", "relative"):
            monkeypatch.setenv(f"XDG_{kind}_HOME", nothing)
            home = {"STATE": ".local/state", "CACHE": ".cache", "CONFIG": ".config"}[kind]
            assert ask() == tmp_path / home / "tenuto"
    assert kernels_cache_dir() == cache_dir()


@pytest.mark.parametrize("write", [write_whole, kernels_write_whole])
def test_a_file_is_written_whole_or_not_at_all(write: Any, tmp_path: Path) -> None:
    path = tmp_path / "a"
    with write(path) as draft:
        draft.write_text("one")
        assert not path.exists()
    with pytest.raises(KeyError), write(path) as draft:
        draft.write_text("tw")
        raise KeyError
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]
