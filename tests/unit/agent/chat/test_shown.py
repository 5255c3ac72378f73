"""Which files named by ``@`` in a typed message are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.chat.shown import pictures_in
from model.errors import PictureError
from tests.support.sighted import png


def test_pictures_among_the_named_files(tmp_path: Path) -> None:
    (tmp_path / "my shots").mkdir()
    (tmp_path / "shot.png").write_bytes(png(20, 30))
    (tmp_path / "my shots" / "a b.png").write_bytes(png(30, 20))
    (tmp_path / "code.py").write_text("x = 1\n")
    text = 'see @shot.png, @"my shots/a b.png", @code.py @missing.png me@shot.png and @shot.png.'
    assert [p.name for p in pictures_in(text, tmp_path)] == ["shot.png", "a b.png"]
    assert [p.name for p in pictures_in(f"@{tmp_path}/shot.png", Path("/"))] == ["shot.png"]


def test_a_damaged_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shot.png").write_bytes(png(90, 80)[:700])
    with pytest.raises(PictureError, match=r"shot\.png is truncated"):
        pictures_in("@shot.png", tmp_path)
