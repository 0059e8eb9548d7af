"""Read GPU memory; say whether a card is free for a trainer, and what threatens one that works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from runner.figures import size

MIB = 1 << 20
MOST_USED_BY_OTHERS = 0.5
CONTEXT_MIB = 800  # CUDA's context and the libraries' code, beside what PyTorch reserves (520 MiB on an H100)
FOREIGN_MIB = 1024
LEFT_SHARE = 0.02
OLDEST_CAPABILITY = (7, 0)  # the platforms' builds of PyTorch hold no kernels for older cards, such as the P100
ON_A_CPU = ("fp32", "auto")  # bodies so held are small: what is made for a card says nf4
SWITCH = {"colab": "Runtime → Change runtime type → T4 GPU", "kaggle": "Settings → Accelerator → GPU T4 x2"}


@dataclass(frozen=True, kw_only=True)
class CardUse:
    index: int
    name: str
    total_mib: int
    used_mib: int
    capability: tuple[int, int] = OLDEST_CAPABILITY
    uuid: str = ""

    @property
    def used(self) -> str:
        return f"{size(self.used_mib * MIB)} of {size(self.total_mib * MIB)}"


def read_cards() -> list[CardUse]:
    """Every card that the NVIDIA driver shows; none where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            with suppress(pynvml.NVMLError):  # one that has fallen off its bus takes no other along
                found.append(_read_card(pynvml, index))
        return found
    except pynvml.NVMLError:
        return []
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _read_card(nvml: Any, index: int) -> CardUse:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    uuid = nvml.nvmlDeviceGetUUID(handle)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    name = nvml.nvmlDeviceGetName(handle)
    return CardUse(
        index=index,
        name=name if isinstance(name, str) else name.decode(),
        total_mib=int(memory.total) // MIB,
        used_mib=int(memory.used) // MIB,
        capability=tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)),
        uuid=uuid if isinstance(uuid, str) else uuid.decode(),
    )


def reason_not_to_start(card: CardUse | None) -> str:
    """Why a trainer would not fit beside what others use; empty when it may start. No card: it trains on the CPU."""
    if card is None or card.used_mib <= MOST_USED_BY_OTHERS * card.total_mib:
        return ""
    return (
        f"GPU {card.index} ({card.name}) is in use by another program: {card.used}; "
        "end that program, for example by restarting the notebook's other kernels"
    )


def no_card(platform: str, cards: Sequence[CardUse], loads: Mapping[str, str]) -> str:
    """Why nothing should begin in a notebook's runtime that has no card, or one too old; empty when it may.

    `loads` says how each job holds its body.
    """
    needing = [name for name, load in loads.items() if load not in ON_A_CPU]
    if platform not in SWITCH or not needing or any(card.capability >= OLDEST_CAPABILITY for card in cards):
        return ""
    has = f"has a {cards[0].name}, for which its PyTorch has no kernels" if cards else "has no GPU"
    return (
        f"this runtime {has}, and {', '.join(needing)} needs one: choose {SWITCH[platform]}, then run the cells again"
    )


def threats(card: CardUse, reserved_mib: int, retries: int) -> dict[str, str]:
    """What a person should know of a card on which a trainer works, by kind. The ladder deals with it between steps.

    Memory tells of other programs, since process ids are hidden in containers.
    """
    named = f"GPU {card.index} ({card.name})"
    foreign, left = card.used_mib - reserved_mib - CONTEXT_MIB, card.total_mib - card.used_mib
    found = {}
    if foreign > FOREIGN_MIB:
        found["foreign"] = (
            f"{named}: about {size(foreign * MIB)} are held by another program; end it, for example by restarting the "
            "notebook's other kernels"
        )
    if left < LEFT_SHARE * card.total_mib:
        found["left"] = (
            f"{named}: {size(left * MIB)} of {size(card.total_mib * MIB)} are left; where they do not do, the "
            "step is taken again on a smaller plan"
        )
    if retries:
        found["retries"] = (
            f"{named}: memory is so short that PyTorch gives cached pieces back to go on, which costs time"
        )
    return found
