"""Steps captured as CUDA graphs: the launches of a whole step replayed as one.

Not yet run on a device: what it captures is (the step, in Triton's interpreter), the capture itself
cannot be without one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_MOST = 16
"""How many graphs are kept; the least recently used goes first."""

Step = Callable[[tuple[Tensor, ...]], Tensor]


@dataclass(frozen=True)
class _Captured:
    """A graph, and the memory that it reads from and writes to."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class Graphs:
    """Runs ``step`` on CUDA tensors, by one graph for each combination of their shapes.

    ``step`` must read nothing on the host, and running it twice on the same inputs must be as
    running it once: a first run outside of the graph compiles its kernels.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._kept: dict[tuple[torch.Size, ...], _Captured] = {}

    def run(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Run ``step(inputs)``; the result is the caller's own."""
        shapes = tuple(part.shape for part in inputs)
        captured = self._kept.pop(shapes, None)
        if captured is None:
            captured = self._capture(inputs)
            while len(self._kept) >= _MOST:
                del self._kept[next(iter(self._kept))]
        self._kept[shapes] = captured
        for own, given in zip(captured.inputs, inputs, strict=True):
            own.copy_(given)
        captured.graph.replay()
        return captured.output.clone()

    def _capture(self, inputs: tuple[Tensor, ...]) -> _Captured:
        own = tuple(part.clone() for part in inputs)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._step(own)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self._step(own)
        return _Captured(graph, own, output)
