"""Fixtures of the model tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.engine import Engine


@pytest.fixture(scope="session")
def tiny_engine(tiny_checkpoint: Path) -> Engine:
    """An engine over a checkpoint with a few random weights, in float32."""
    return Engine.load(tiny_checkpoint, name="tiny")
