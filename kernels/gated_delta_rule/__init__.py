"""The gated delta rule: a linear attention whose state forgets by a gate and corrects itself."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kernels.backend import Backend, require_triton
from kernels.gated_delta_rule import reference
from kernels.gated_delta_rule.reference import CHUNK, chunked, recurrent

__all__ = ["CHUNK", "chunked", "gated_delta_rule", "gated_delta_rule_at", "recurrent"]


def gated_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor | None = None,
    *,
    backend: Backend = "torch",
) -> tuple[Tensor, Tensor]:
    """Run the rule over a sequence; single tokens step by step, longer inputs in chunks.

    Args:
        query: ``[batch, time, key_heads, key_dim]``, not yet normalised or scaled.
        key: like ``query``.
        value: ``[batch, time, value_heads, value_dim]``; ``value_heads`` is a multiple of
            ``key_heads``, and value head ``h`` uses key head ``h // (value_heads // key_heads)``.
        log_decay: ``[batch, time, value_heads]``, at most 0; ``exp`` of it scales the state.
        beta: ``[batch, time, value_heads]``, how much of the error is written, 0 to 1.
        state: ``[batch, value_heads, key_dim, value_dim]`` in float32, or None for zeros.

    Returns:
        The output ``[batch, time, value_heads, value_dim]`` in the dtype of ``value``, and the
        state after the last token in float32. No input is changed; both are differentiable, but
        not with ``backend="triton"``, which always works in chunks (``kernels.delta_step`` is for
        single tokens).
    """
    if backend == "triton":
        require_triton("gated_delta_rule", query, key, value, log_decay, beta)
        from kernels.gated_delta_rule import triton

        return triton.gated_delta_rule(query, key, value, log_decay, beta, state)
    rule = recurrent if query.shape[1] == 1 else chunked
    return rule(query, key, value, log_decay, beta, state)


def gated_delta_rule_at(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor | None,
    positions: Sequence[int],
    *,
    backend: Backend = "torch",
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply the rule and return the states at ``positions`` too, as
    ``reference.gated_delta_rule_at``.
    """
    if backend == "triton":
        require_triton("gated_delta_rule", query, key, value, log_decay, beta)
        from kernels.gated_delta_rule import triton

        run = triton.gated_delta_rule_at
    else:
        run = reference.gated_delta_rule_at
    return run(query, key, value, log_decay, beta, state, positions)
