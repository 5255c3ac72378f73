"""Which folders and variables of the host may be given to commands."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sandboxes.mounts import Mount, environment_of, parse_mount


def test_what_is_allowed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    assert parse_mount(f"{data}:/data") == Mount(data, "/data")
    assert parse_mount(f"{data}:/data:ro") == Mount(data, "/data")
    assert parse_mount(f"{data}:/data/../other:rw") == Mount(data, "/other", writable=True)
    (tmp_path / "link").symlink_to(data)
    assert parse_mount(f"{tmp_path}/link:/data").source == data


@pytest.mark.parametrize(
    "text",
    [
        "/",
        "/proc",
        "/sys/fs",
        "/dev/null",
        "/etc",
        "/etc/passwd",
        "/run",
        "/var",
        "/var/run",
        "relative",
        "",
        "/nowhere/at/all",
        "HOME",
        "HOME/.ssh",
        "HOME/..",
        "STATE",
        "SOCKET",
        "LINK",
    ],
)
def test_what_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "users" / "ada"
    (home / ".ssh").mkdir(parents=True)
    state = tmp_path / "state"
    (state / "tenuto").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    (tmp_path / "link").symlink_to("/proc")
    with socket.socket(socket.AF_UNIX) as made:
        monkeypatch.chdir(tmp_path)
        made.bind("socket")
        places = {"HOME": home, "STATE": state, "SOCKET": tmp_path / "socket"}
        places["LINK"] = tmp_path / "link"
        for name, place in places.items():
            text = text.replace(name, str(place))
        with pytest.raises(ValueError, match=r"not|neither"):
            parse_mount(text)


@pytest.mark.parametrize(
    "target", ["/", "/workspace", "/workspace/x", "/proc/x", "/home", "/tmp/x", "/etc", "/usr/lib"]
)
def test_what_is_the_sandboxs_own(target: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the sandbox's own"):
        parse_mount(f"{tmp_path}:{target}")


def test_variables() -> None:
    own = {"TOKEN": "t", "OTHER": "o"}
    assert environment_of(["TOKEN", "A=1=2", "ABSENT", "B="], own) == {
        "TOKEN": "t",
        "A": "1=2",
        "B": "",
    }
    for wrong in ("", "=x", "A B", "A-B", "1A", "A=\0"):
        with pytest.raises(ValueError, match="not the name"):
            environment_of([wrong], own)
