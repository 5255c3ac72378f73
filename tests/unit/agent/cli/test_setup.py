"""The set-up: which checkpoints are named for a machine, and what is written down."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.app import call
from agent.cli.candidates import CANDIDATES, COMFORTABLE, suggest
from agent.cli.host import Host
from agent.cli.own_configuration import with_values, write_configuration
from agent.errors import ConfigError
from agent.settings.load import load_settings
from agent.settings.toml_files import user_file


def host(memory: float, bandwidth: float, disk: float = 1e12) -> Host:
    return Host("cpu", int(memory * 1e9), int(disk), bandwidth * 1e9, True, "", "")


@pytest.mark.parametrize(
    ("memory", "bandwidth", "recommended"),
    [
        (78, 2000, "Qwen/Qwen3.6-27B"),
        (24, 400, "Qwen/Qwen3.6-27B"),
        (30, 50, "Qwen/Qwen3.5-4B"),
        (16, 5, "Qwen/Qwen3.5-0.8B"),
    ],
)
def test_the_best_checkpoint_that_is_fast_enough_is_recommended(
    memory: float, bandwidth: float, recommended: str
) -> None:
    found = suggest(host(memory, bandwidth))
    assert 2 <= len(found) <= 3
    (best,) = (one for one in found if one.recommended)
    assert best.candidate.name == recommended
    assert f"at most {best.rate:,.0f} tokens/s" in best.line()


@given(st.floats(0.5, 200), st.floats(1, 4000), st.floats(0, 100))
def test_what_is_named_fits(memory: float, bandwidth: float, disk: float) -> None:
    one = host(memory, bandwidth, disk * 1e9)
    found = suggest(one)
    assert all(s.candidate.weights < one.memory for s in found)
    assert all(s.candidate.download <= one.disk for s in found)
    assert sum(s.recommended for s in found) == bool(found)
    better = [s for s in found if s.recommended and s.rate < COMFORTABLE]
    assert all(other.rate <= s.rate for s in better for other in found)


def test_candidates_are_named_once_each() -> None:
    assert len({(one.name, one.quantize) for one in CANDIDATES}) == len(CANDIDATES)


KEYS = st.sampled_from(["model", "sandbox", "quantize", "device"])
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@given(st.dictionaries(KEYS, TEXTS), st.dictionaries(KEYS, TEXTS), st.booleans())
def test_the_rest_of_a_configuration_stays(
    old: dict[str, str], new: dict[str, str], tables: bool
) -> None:
    lines = [
        "# mine",
        *(f"{k} = {json.dumps(v, ensure_ascii=False)}  # so" for k, v in old.items()),
    ]
    lines += ["", "[rules]", 'allow = ["Bash(ls)"]'] if tables else []
    text = "\n".join(lines) + "\n"
    changed = with_values(text, new)
    assert tomllib.loads(changed) == {**tomllib.loads(text), **new}
    assert "# mine" in changed
    assert with_values(changed, new) == changed


def test_what_is_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    write_configuration({"model": "a/b", "sandbox": "bubblewrap"})
    settings = load_settings({})
    assert (settings.model, settings.sandbox) == ("a/b", "bubblewrap")
    odd = 'model = """\na"""\n'
    user_file().write_text(odd)
    with pytest.raises(ConfigError, match='write there: model = "c"'):
        write_configuration({"model": "c"})
    assert user_file().read_text() == odd


def test_steps_can_be_left_out_and_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    skipped = ["--skip", "image", "--skip", "proof"]
    words = ["setup", "--model", "embedded", "--sandbox", "local", *skipped, "-o", "json"]
    assert call(words) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["configuration"] == str(user_file())
    assert told["host"]["bandwidth"] > 0
    assert load_settings({}).sandbox == "local"
    assert call(["setup", "--skip", "sleep"]) == 2
    assert "there is no step 'sleep'; steps: model" in capfd.readouterr().err
    assert call(["setup", *skipped]) == 2
    assert "add --yes, or --model NAME" in capfd.readouterr().err


def test_what_is_proposed_for_a_repository_is_shown_and_written_once(git_repo, capsys) -> None:
    repo = git_repo({"go.mod": "module x\n\ngo 1.22\n", "sub/x": ""})
    file = repo / ".agent.toml"
    file.write_text("# mine\nmax_steps = 5\n\n[rules]\ndeny = []\n")
    assert call(["setup", "--repo", str(repo / "sub")]) == 0
    said = capsys.readouterr().out
    assert 'image = "golang:1.22"' in said and "--write" in said
    assert "image" not in file.read_text()
    assert call(["setup", "--repo", str(repo), "--write", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == str(file)
    written = tomllib.loads(file.read_text())
    assert (written["check"], written["max_steps"]) == ("go test ./...", 5)
    assert file.read_text().startswith("# mine\n")
    before = file.read_text()
    assert call(["setup", "--repo", str(repo), "--write"]) == 0
    assert file.read_text() == before
    assert load_settings({}, repo).image == "golang:1.22"
    assert call(["setup", "--write"]) == 2
