"""apply_patch: golden cases, all or nothing, and what a hostile patch or tree can do.

Each folder of tests/golden/patch is one call: the files before and after, the patch, and what was
said. A folder without ``after`` is a call that must fail and change nothing. ``ROOT`` in an
observation stands for the workspace's path.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tools.edits.preview import Change

GOLDEN = Path(__file__).parents[2] / "golden" / "patch"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
UPDATE = "*** Begin Patch\n*** Update File: {}\n@@\n-{}\n+{}\n*** End Patch"


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_cases_are_there() -> None:
    assert len(CASES) >= 45


@pytest.mark.parametrize("name", CASES)
def test_patch_case(name: str, bench) -> None:
    case = GOLDEN / name
    shutil.copytree(case / "before", bench.root, dirs_exist_ok=True)

    observation = bench("apply_patch", patch=(case / "patch.txt").read_bytes().decode())

    said = observation.text.replace(str(bench.root), "ROOT") + "\n"
    assert said == (case / "observation.txt").read_text()
    succeeds = (case / "after").is_dir()
    assert observation.ok is succeeds
    assert files_of(bench.root) == files_of(case / ("after" if succeeds else "before"))


def test_modes(bench) -> None:
    bench.write("run.sh", "a\n").chmod(0o755)
    patch = (
        "diff --git a/run.sh b/go.sh\nrename from run.sh\nrename to go.sh\n"
        "diff --git a/new.sh b/new.sh\nnew file mode 100755\n--- /dev/null\n+++ b/new.sh\n"
        "@@ -0,0 +1 @@\n+x\n"
        "diff --git a/plain.sh b/plain.sh\nold mode 100755\nnew mode 100644\n"
    )
    bench.write("plain.sh", "b\n").chmod(0o755)
    assert bench("apply_patch", patch=patch).ok
    modes = {name: (bench.root / name).stat().st_mode & 0o111 for name in ("go.sh", "new.sh")}
    assert modes == {"go.sh": 0o111, "new.sh": 0o111}
    assert (bench.root / "plain.sh").stat().st_mode & 0o111 == 0


def test_a_file_that_changed_since_it_was_read_is_refused(bench) -> None:
    bench.write("a.txt", "x\n")
    bench.write("b.txt", "x\n")
    bench("read_file", file_path="b.txt")
    bench.write("b.txt", "x\ntheirs\n")
    patch = (
        "*** Begin Patch\n*** Update File: a.txt\n@@\n-x\n+y\n"
        "*** Update File: b.txt\n@@\n-x\n+y\n*** End Patch"
    )
    observation = bench("apply_patch", patch=patch)
    assert not observation.ok
    assert "b.txt is not what it was" in observation.text
    assert bench.read("a.txt") == b"x\n"
    bench("read_file", file_path="b.txt")
    assert bench("apply_patch", patch=patch).ok
    assert bench("edit", file_path="b.txt", old_string="y", new_string="z").ok


def test_a_write_that_fails_puts_the_others_back(bench) -> None:
    bench.write("a.txt", "x\n")
    bench.write("b.txt", "x\n")
    bench.write("file", "")
    sandbox = bench.context.sandbox
    write = sandbox.write_bytes

    def full(path: str, data: bytes, **more: bool) -> None:
        if path == "c.txt":
            raise OSError(28, "No space left on device")
        write(path, data, **more)

    sandbox.write_bytes = full
    patch = (
        "*** Begin Patch\n*** Update File: a.txt\n@@\n-x\n+y\n*** Delete File: b.txt\n"
        "*** Add File: c.txt\n+new\n*** End Patch"
    )
    observation = bench("apply_patch", patch=patch)
    assert not observation.ok
    assert (
        observation.text == "c.txt cannot be written: No space left on device. No file was changed."
    )
    assert files_of(bench.root) == {"a.txt": b"x\n", "b.txt": b"x\n", "file": b""}


def test_a_file_in_the_way_of_a_folder_changes_nothing(bench) -> None:
    bench.write("a.txt", "x\n")
    patch = (
        "*** Begin Patch\n*** Update File: a.txt\n@@\n-x\n+y\n"
        "*** Add File: a.txt/b.txt\n+new\n*** End Patch"
    )
    assert not bench("apply_patch", patch=patch).ok
    assert files_of(bench.root) == {"a.txt": b"x\n"}


def test_links_out_are_refused_and_links_inside_followed(bench, tmp_path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("x\n")
    (bench.root / "out.txt").symlink_to(outside)
    bench.write("a.txt", "x\n")
    (bench.root / "in.txt").symlink_to("a.txt")
    assert not bench("apply_patch", patch=UPDATE.format("out.txt", "x", "y")).ok
    assert outside.read_text() == "x\n"
    assert bench("apply_patch", patch=UPDATE.format("in.txt", "x", "y")).ok
    assert bench.read("a.txt") == b"y\n"
    assert (bench.root / "in.txt").is_symlink()
    gone = bench("apply_patch", patch="*** Begin Patch\n*** Delete File: in.txt\n*** End Patch")
    assert not gone.ok
    assert "leads through a link to a.txt" in gone.text


@pytest.mark.parametrize(
    "path", ["../a.txt", "/etc/passwd", ".git/config", "sub/.GIT/x", "a\0b", "", "x/../../a"]
)
@pytest.mark.parametrize("action", ["Add", "Delete", "Update"])
def test_paths_that_lead_out_are_refused(bench, path, action) -> None:
    body = {"Add": "+x\n", "Delete": "", "Update": "@@\n-x\n+y\n"}[action]
    patch = f"*** Begin Patch\n*** {action} File: {path}\n{body}*** End Patch"
    observation = bench("apply_patch", patch=patch)
    assert not observation.ok
    assert not observation.text.startswith("internal error")
    assert files_of(bench.root) == {}


def test_moves_out_are_refused(bench) -> None:
    bench.write("a.txt", "x\n")
    patch = "*** Begin Patch\n*** Update File: a.txt\n*** Move to: ../b.txt\n*** End Patch"
    assert not bench("apply_patch", patch=patch).ok
    assert files_of(bench.root) == {"a.txt": b"x\n"}


def test_a_pipe_does_not_block(bench) -> None:
    os.mkfifo(bench.root / "pipe")
    observation = bench("apply_patch", patch=UPDATE.format("pipe", "x", "y"))
    assert observation.text == "pipe is not a regular file (a device, socket or pipe)."


def test_a_patch_has_a_preview(bench) -> None:
    bench.write("a.txt", "x\n")
    bench.write("b.txt", "x\n")
    patch = (
        "*** Begin Patch\n*** Update File: a.txt\n@@\n-x\n+y\n*** Delete File: b.txt\n"
        "*** Add File: c.txt\n+new\n*** End Patch"
    )
    assert set(bench.registry.preview("apply_patch", {"patch": patch})) == {
        Change("a.txt", "x\n", "y\n"),
        Change("b.txt", "x\n", None),
        Change("c.txt", None, "new\n"),
    }
    assert files_of(bench.root) == {"a.txt": b"x\n", "b.txt": b"x\n"}
    assert bench("apply_patch", patch=patch).ok


def test_a_large_patch_of_a_large_file_takes_no_time(bench) -> None:
    bench.write("a.txt", "same\n" * 20_000)
    body = " same\n" * 5_000 + "-other\n+same\n"
    patch = f"*** Begin Patch\n*** Update File: a.txt\n@@\n{body}*** End Patch"
    assert not bench("apply_patch", patch=patch).ok


def test_a_hunk_header_with_endless_numbers_is_read_without_them(bench) -> None:
    bench.write("a.py", "one\ntwo\n")
    many = "9" * 5_000
    patch = f"--- a/a.py\n+++ b/a.py\n@@ -{many},{many} +{many},{many} @@\n one\n-two\n+three\n"
    assert bench("apply_patch", patch=patch).ok
    assert bench.read("a.py") == b"one\nthree\n"


def test_lines_that_look_alike_are_matched_and_kept(bench) -> None:
    bench.write("a.md", "first\u00a0line\nthe old\u2026 one\n")
    patch = (
        "*** Begin Patch\n*** Update File: a.md\n@@\n first line\n-the old... one\n+the new one\n"
        "*** End Patch"
    )
    seen = bench("apply_patch", patch=patch)
    assert seen.text == (
        "Edited a.md: +1 -1 lines (it was matched by characters that look alike, from line 1)."
    )
    assert bench.read("a.md") == "first\u00a0line\nthe new one\n".encode()
