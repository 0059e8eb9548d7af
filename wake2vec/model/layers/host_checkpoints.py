"""Layer inputs kept in pinned host memory between forward and backward, copied beside the computation."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCheckpoints:
    """One slot a layer. The copy out overlaps the layer itself, the copy back the backward pass of the layer above."""

    def __init__(self, layers: int) -> None:
        self._slots: list[Tensor | None] = [None] * layers
        self._coming: dict[int, tuple[Tensor, torch.cuda.Event]] = {}
        self._device: torch.device | None = None
        self._stream: torch.cuda.Stream | None = None

    def store(self, index: int, x: Tensor) -> None:
        """Start copying a layer's input to its slot; the device copy may be freed as soon as nobody else holds it."""
        self._coming.clear()  # what an aborted backward pass had asked for
        self._device = x.device
        slot = self._slot(index, x)
        if x.device.type != "cuda":
            slot.copy_(x)
            return
        stream = self._own_stream(x.device)
        stream.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(stream):
            slot.copy_(x.detach(), non_blocking=True)
        x.record_stream(stream)

    def fetch(self, index: int) -> Tensor:
        """The layer's input, back on the device; starts the copy of the one below, which will be asked for next."""
        if index not in self._coming:
            self._start(index)
        x, event = self._coming.pop(index)
        if x.is_cuda:
            torch.cuda.current_stream(x.device).wait_event(event)
            x.record_stream(torch.cuda.current_stream(x.device))
        if index > 0:
            self._start(index - 1)
        return x

    def _start(self, index: int) -> None:
        slot = self._slots[index]
        assert slot is not None, f"layer {index} was never stored"
        assert self._device is not None, f"layer {index} was never stored"
        if self._device.type != "cuda":
            self._coming[index] = (slot.clone(), None)  # type: ignore[assignment]
            return
        stream = self._own_stream(self._device)
        with torch.cuda.stream(stream):
            x = slot.to(self._device, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(stream)
        self._coming[index] = (x, event)

    def _slot(self, index: int, x: Tensor) -> Tensor:
        slot = self._slots[index]
        if slot is None or slot.shape != x.shape or slot.dtype != x.dtype:
            slot = torch.empty(x.shape, dtype=x.dtype, pin_memory=x.is_cuda)
            self._slots[index] = slot
        return slot

    def _own_stream(self, device: torch.device) -> torch.cuda.Stream:
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return self._stream
