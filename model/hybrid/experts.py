"""The mixture-of-experts layer: a router, the routed experts, and a shared expert with a gate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.experts import ExpertWeight, experts, route
from kernels.experts.native import NativeExperts
from kernels.linear import Weight, linear
from model.checkpoint.config import ModelConfig
from model.hybrid.layers import FeedForward, Take


@dataclass(frozen=True)
class Experts:
    """One layer's experts, in place of a feed-forward network.

    Each token runs ``chosen`` of the routed experts and always the shared one. ``gate_up`` is
    ``[experts, 2 * inner, hidden]``, ``down [experts, hidden, inner]``.
    """

    chosen: int
    router: Weight
    gate_up: ExpertWeight
    down: ExpertWeight
    shared: FeedForward
    shared_gate: Weight

    @classmethod
    def build(cls, config: ModelConfig, take: Take) -> Experts:
        """From the checkpoint's tensors of one layer."""
        assert config.experts is not None
        return cls(
            config.experts.chosen,
            router=take.matrix("mlp.gate.weight"),
            gate_up=take.experts("mlp.experts.gate_up_proj"),
            down=take.experts("mlp.experts.down_proj"),
            shared=FeedForward.build(take.under("mlp.shared_expert.")),
            shared_gate=take.matrix("mlp.shared_expert_gate.weight"),
        )

    def native(self) -> NativeExperts:
        """Return the same for the compiled CPU path. Raises ``KernelError`` if it cannot run it."""
        return NativeExperts.of(
            self.chosen,
            self.router,
            self.gate_up,
            self.down,
            self.shared_gate,
            self.shared.gate_up,
            self.shared.down,
        )

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        chosen, weights = route(rows, self.router, self.chosen)
        routed = experts(rows, chosen, weights, self.gate_up, self.down)
        gate = torch.sigmoid(linear(rows, self.shared_gate))
        return (routed + gate * self.shared(rows)).reshape(x.shape)
