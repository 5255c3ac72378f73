"""``agent sandbox build --repo`` with an image that a repository names."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli import app


def test_an_image_that_is_not_there_is_no_success(
    docker_engine: object, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".agent.toml").write_text('image = "tenuto.invalid/no/such:image"\n')
    assert app.call(["sandbox", "build", "--repo", str(tmp_path)]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "tenuto.invalid/no/such:image is not on this machine" in err
