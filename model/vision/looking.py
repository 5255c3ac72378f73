"""Find what a pass needs of its pictures: positions, embeddings, and where text goes on.

A token has three positions (interleaved M-RoPE of Qwen3-VL, ``get_rope_index`` of transformers).
Those of text are equal and go up by one. A picture stands at one moment: its rows and columns count
from there, and the text behind it goes on after the larger of the two. So text positions fall
behind the number of tokens by a shift, which the state keeps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.network import require_words
from model.state.passes import Seen
from model.vision.eyes import Sight
from model.vision.image_ids import image_runs


def require_whole(ids: Sequence[int], vocab_size: int, sight: Sight) -> None:
    """Check that ``ids`` are text and whole pictures, and have the pictures encoded.

    Raises ``ValueError``, and ``PictureError`` for a picture that is not at hand.
    """
    require_words([i for i in ids if i >= 0], vocab_size)
    for run in image_runs(ids):
        if run.offset or run.digest is None or sight.grid(run.digest).tokens != run.count:
            raise ValueError("the ids end or begin inside a picture; extend by all of it at once")
        sight.rows(run.digest)


def look(ids: Sequence[int], start: int, shift: int, image: str, sight: Sight) -> Seen | None:
    """Return what a sequence's ``ids`` from index ``start`` on need; None for plain text.

    ``shift`` and ``image`` are those of the state before them. Raises ``PictureError`` for a
    picture that is not at hand.
    """
    if not shift and min(ids) >= 0:
        return None
    positions = torch.arange(start, start + len(ids)).repeat(3, 1)
    rows: list[tuple[int, Tensor]] = []
    text, under_way = 0, ""
    for run in image_runs(ids):
        positions[:, text : run.start] += shift
        digest = run.digest if not run.offset else image
        assert digest, "a pass begins inside a picture that its state does not know"
        grid, end = sight.grid(digest), run.offset + run.count
        at = torch.arange(run.offset, end)
        places = torch.stack([torch.zeros_like(at), at // grid.columns, at % grid.columns])
        first = start + run.start - run.offset + shift
        positions[:, run.start : run.start + run.count] = first + places
        rows.append((run.start, sight.rows(digest)[run.offset : end]))
        text = run.start + run.count
        under_way = digest if end < grid.tokens else ""
        if not under_way:
            shift += grid.extent - grid.tokens
    positions[:, text:] += shift
    return Seen(positions, tuple(rows), shift, under_way)
