"""What a checkpoint was computed with, libraries and card, and how far another stack may be off from it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from wake2vec.contract.errors import StackChanged
from wake2vec.contract.versions import LIBRARIES, versions
from wake2vec.model.device import card_name

# Relative differences of the probe loss. On the same stack its bits are the same; where they are not, something that
# is not written down has changed (a driver, the number of threads), which moves the last bits and no more.
SAME_STACK, OTHER_STACK = 1e-3, 1e-2


def stack_of(device: torch.device) -> dict[str, str]:
    on_card = device.type == "cuda"
    cpu = torch.backends.cpu.get_cpu_capability()
    return versions() | {"card": card_name(device), "arithmetic": str(torch.version.cuda) if on_card else cpu}


def changes(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """In words, of what is known of both."""
    return [f"{name} {was[name]} → {now[name]}" for name in now if name in was and was[name] != now[name]]


def judge_probe(
    place: object,
    *,
    expected: float | None,
    found: float,
    was: Mapping[str, str] | None,
    now: Mapping[str, str],
    same_plan: bool,
) -> str:
    """What a person should be told of a checkpoint that was loaded; nothing where all is as it was.

    Raises StackChanged where it computes something else. `was` is None for one that does not say what it was made with;
    under another plan the last bits differ on any stack.
    """
    changed = changes(was or {}, now)
    limit = OTHER_STACK if changed or was is None or not same_plan else SAME_STACK
    shift = 0.0 if expected is None else found - expected
    told = ", ".join(changed) or ("it does not say with which versions it was made" if was is None else "")
    if expected is not None and not math.isclose(expected, found, rel_tol=limit):
        raise StackChanged(
            place,
            f"is whole by its hashes, but here its probe loss is {found:.6f} and it was saved with {expected:.6f} "
            f"(at most {limit:.1%} is let pass); {told or 'the versions and the card are the same'}",
            remedy_for(was or {}, now),
        )
    if changed or (shift and same_plan):
        return f"goes on with {told or 'the same versions and card'}; its probe loss is off by {shift:.2e}"
    return ""


def remedy_for(was: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What brings the old stack back."""
    pins = [f"{name}=={was[name]}" for name in LIBRARIES if name in was and was[name] != now.get(name)]
    parts = [f"pip install {' '.join(pins)}"] if pins else []
    parts += [f"use a {was['card']}"] if was.get("card", now["card"]) != now["card"] else []
    return f"{' and '.join(parts) or 'put the versions and the model of then back'}, then release the job"
