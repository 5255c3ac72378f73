"""A checkpoint is loaded as the settings say, whoever asks for it."""

from __future__ import annotations

from agent.loading import load_for
from agent.settings.table import Settings


def test_every_setting_of_the_model_counts() -> None:
    plain = load_for(Settings()).engine
    given = Settings(quantize="int8", drafts=False, kv_memory=64)
    other = load_for(given).engine
    assert plain.fingerprint != other.fingerprint
    assert other.scheduler.most_verified == 0
    assert load_for(given, "embedded").engine.fingerprint == other.fingerprint
