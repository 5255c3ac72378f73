"""The gated delta rule on the compiled CPU path, over heads in parallel.

Chunks as in ``reference.chunked``, except that a chunk's corrections are solved against the state
at hand: no second right-hand side, no tensor for each chunk. Not differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.backend import KernelError
from kernels.native import Native

STEPS = 16
"""Up to so many tokens the whole-pass kernel runs a sequence token by token."""


def gated_delta_rule(
    library: Native,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor | None = None,
    *,
    steps: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute ``kernels.gated_delta_rule``; ``steps`` says whether token by token or in chunks.

    Raises ``KernelError`` for head dimensions that are no multiples of 16.
    """
    batch, time, key_heads, key_dim = key.shape
    value_heads, value_dim = value.shape[2:]
    if key_dim % 16 or value_dim % 16:
        raise KernelError(
            f"gated_delta_rule: the compiled path takes head dimensions that are multiples of 16,"
            f" not {key_dim} and {value_dim}; use the reference"
        )
    inputs = [t.detach().float().contiguous() for t in (query, key, value, log_decay, beta)]
    before = None if state is None else state.detach().float().contiguous()
    after = torch.empty(batch, value_heads, key_dim, value_dim)
    out = torch.empty(batch, time, value_heads, value_dim)
    threads = torch.get_num_threads()
    size = library.call.tenuto_delta_scratch(key_dim, value_dim, threads)
    scratch = torch.empty(size, dtype=torch.uint8)
    library.call.tenuto_delta(
        *(t.data_ptr() for t in inputs),
        None if before is None else before.data_ptr(),
        after.data_ptr(),
        out.data_ptr(),
        batch,
        time,
        key_heads,
        value_heads,
        key_dim,
        value_dim,
        time <= STEPS if steps is None else steps,
        scratch.data_ptr(),
        threads,
    )
    return out.to(value.dtype), after
