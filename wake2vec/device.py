"""What this process sees of its card: the name, the memory in use, and how to give memory back."""

from __future__ import annotations

import gc
from collections.abc import Iterable

import torch
from torch import nn

from wake2vec.fit import memory_limit

MIB = 1 << 20


def card_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def free_share(device: torch.device) -> float:
    """Share of the card that was free at the peak since the attempt began; all of it where there is no limit."""
    limit = memory_limit(device)
    return 1.0 if limit is None else 1.0 - torch.cuda.max_memory_allocated(device) / limit


def free_memory(parameters: Iterable[nn.Parameter]) -> None:
    """Drop the gradients of a failed pass and give cached blocks back, so that the next try finds whole ones."""
    for parameter in parameters:
        parameter.grad = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def vram() -> dict[str, int]:
    """Peak and reserved memory for the heartbeat; nothing without a card."""
    if not torch.cuda.is_available():
        return {}
    return {
        "vram_peak_mib": torch.cuda.max_memory_allocated() // MIB,
        "vram_reserved_mib": torch.cuda.memory_reserved() // MIB,
    }
