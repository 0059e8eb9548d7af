"""Which cards are in sight, and which of them a job gets. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from runner.machine.vram import CardUse

Wanted = int | Literal["auto"]


def visible(cards: Sequence[CardUse], chosen: str | None) -> list[CardUse]:
    """What CUDA shows of the cards, as it reads CUDA_VISIBLE_DEVICES: up to the first name that stands for none."""
    if chosen is None:
        return list(cards)
    found: list[CardUse] = []
    for name in map(str.strip, chosen.split(",")):
        card = next((one for one in cards if name == str(one.index) or (name and one.uuid.startswith(name))), None)
        if card is None or card in found:
            break
        found.append(card)
    return found


def group(wanted: Wanted, here: Mapping[int, str], free: Sequence[int], *, least: int = 1) -> list[int]:
    """Equal cards to start on: `auto` takes those that are free, a number waits for so many, or all that are there.

    `here` names each card that is there. None where fewer than `least` are free.
    """
    if wanted == 1:
        return list(free[:1])
    kinds = _kinds(here)
    idle = [[gpu for gpu in kind if gpu in free] for kind in kinds]
    if wanted == "auto":
        found = max(idle, key=len, default=[])
    else:
        most = min(wanted, max(map(len, kinds), default=0))
        found = next((kind[:most] for kind in idle if len(kind) >= most), [])
    return found if len(found) >= least else []


def unequal(wanted: Wanted, here: Mapping[int, str]) -> str:
    """Why so many cards cannot share a job although they are there; empty where they can, or are not there."""
    if wanted == "auto" or not max(map(len, _kinds(here)), default=0) < wanted <= len(here):
        return ""
    told = ", ".join(f"{name} (GPU {gpu})" for gpu, name in here.items())
    return (
        f"train.cards = {wanted}, but the cards here differ: {told}; choose equal ones with CUDA_VISIBLE_DEVICES, or "
        "set train.cards to 1"
    )


def too_few(least: int, here: Mapping[int, str], together: int) -> str:
    """Why a job whose layers are dealt out cannot start on what is here; empty where it can, now or later.

    So many are `together` in one host.
    """
    kinds = _kinds(here)
    most = max(map(len, kinds), default=0)
    if min(most, together) >= least:
        return ""
    differ = f" ({', '.join(dict.fromkeys(here.values()))})" if len(kinds) > 1 else ""
    apart = f", {together} in a host" if most >= least else ""
    told = f"waits for {least} equal cards, {len(here)} here{differ}{apart}"
    return f'{told}: train.spread = "layers" (one that fits one card: "auto")'


def _kinds(here: Mapping[int, str]) -> list[list[int]]:
    return [[gpu for gpu in here if here[gpu] == name] for name in dict.fromkeys(here.values())]
