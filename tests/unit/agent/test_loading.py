"""A checkpoint is loaded as the settings say, whoever asks for it."""

from __future__ import annotations

import torch

from agent.loading import load_for, load_model
from agent.settings.table import Settings
from tests.support.gated import gated


def test_every_setting_of_the_model_counts() -> None:
    plain = load_for(Settings()).engine
    given = Settings(quantize="int8", drafts="off", kv_memory=64)
    other = load_for(given).engine
    assert plain.fingerprint != other.fingerprint
    assert other.scheduler.most_verified == 0
    assert load_for(given, "embedded").engine.fingerprint == other.fingerprint


def test_a_small_model_runs_on_one_thread_and_leaves_the_process_as_it_was() -> None:
    """A larger model that is loaded later has all threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        small = load_model("embedded")
        assert torch.get_num_threads() == 3
        model, network = gated(small)
        model.engine.scheduler.threads = small.engine.scheduler.threads
        seen: list[int] = []

        def look(widths: tuple[int, ...]) -> bool:
            seen.append(torch.get_num_threads())
            return False

        network.stop_at = look
        session = model.engine.session()
        session.extend([1, 2, 3])
        assert seen == [1]
        assert torch.get_num_threads() == 3
        model.engine.scheduler.threads = None
        session.extend([4])
        assert seen == [1, 3]
    finally:
        torch.set_num_threads(before)
