"""What this process sees of its card, how it gives memory back, and how the libraries in it are kept quiet."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from wake2vec.contract.errors import NoGpu, first_line
from wake2vec.contract.order import Order

MIB = 1 << 20
MARGIN_BYTES = int(0.45 * (1 << 30))  # CUDA context, cuBLAS workspace and what fragmentation takes
MOST_CHARACTERS = 200
OUT_OF_MEMORY_SIGNS = ("out of memory", "cublas_status_alloc_failed", "can't allocate memory", "alloc failed")


def this_device() -> torch.device:
    """The card in sight, by its index (some calls refuse a device without one), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def require_card(order: Order, rank: int = 0) -> None:
    """Raises NoGpu where the driver has shown a card that PyTorch cannot use: on the CPU it would be no such job."""
    seen = torch.cuda.device_count()
    if order.on_cards and seen <= rank:
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        fewer = (
            f"set train.cards to {seen}" if seen else "hide the cards with CUDA_VISIBLE_DEVICES= to train on the CPU"
        )
        raise NoGpu(
            f"card {rank + 1} of {order.ranks}: the driver shows it, and PyTorch {torch.__version__} sees {seen} "
            f"(CUDA_VISIBLE_DEVICES: {chosen}); install a build for the CUDA of `nvidia-smi`, or {fewer}"
        )


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
    """For the heartbeat: peak and reserved memory, how often the allocator had to tidy up; nothing without a card."""
    if not torch.cuda.is_available():
        return {}
    return {
        "vram_peak_mib": torch.cuda.max_memory_allocated() // MIB,
        "vram_reserved_mib": torch.cuda.memory_reserved() // MIB,
        "vram_retries": torch.cuda.memory_stats().get("num_alloc_retries", 0),
    }


def memory_limit(device: torch.device) -> int | None:
    """Bytes that this process may hold on a card, less the margin; None on a CPU."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    share = torch.cuda.get_per_process_memory_fraction(device)
    held = torch.cuda.memory_reserved(device)
    return int(min(free + held, total * share)) - MARGIN_BYTES


def brief(error: BaseException) -> str:
    """What ran out of memory, in a line: PyTorch adds half a page about the card and its allocator."""
    text = first_line(error)
    asked = re.match(r".*?Tried to allocate [\d.]+ \w+", text)
    return asked[0] if asked else text[:MOST_CHARACTERS]


def is_out_of_memory(error: BaseException) -> bool:
    """By type where the library has one, by text where it has not."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in OUT_OF_MEMORY_SIGNS)


def copy_to_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Clones, so that a step taken while the file is written cannot change it (pytorch#144657)."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def quiet_libraries() -> None:
    """Keep the libraries' progress bars and advice out of what a person reads; errors are still told."""
    import logging

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
