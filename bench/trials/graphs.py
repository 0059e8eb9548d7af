"""A step's forward and backward pass as one CUDA graph: a small model's launches cost more than its work."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor

WARM = 3  # steps taken one kernel after the other, so that all buffers are there


class Graphed:
    """Calls `compute` on a batch; on a card records it once and replays it. What cannot be recorded is called as it is.

    `compute` adds gradients to buffers that stay where they are and returns a loss.
    """

    def __init__(self, compute: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.compute, self.calls = compute, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.off = bool(os.environ.get("BENCH_EAGER"))

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        if self.off or inputs.device.type != "cuda" or self.calls <= WARM:
            return self.compute(inputs, targets)
        if self.graph is None and not self._record(inputs, targets):
            return self.compute(inputs, targets)
        assert self.graph is not None, "recorded"
        self.inputs.copy_(inputs)
        self.targets.copy_(targets)
        self.graph.replay()
        return self.loss.clone()

    def _record(self, inputs: Tensor, targets: Tensor) -> bool:
        self.inputs, self.targets = inputs.clone(), targets.clone()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.loss = self.compute(self.inputs, self.targets)
        except RuntimeError as error:  # something asks the device in between
            print(f"not recorded: {str(error).splitlines()[0]}", flush=True)
            self.off = True
            torch.cuda.synchronize()
            return False
        self.graph = graph
        return True
