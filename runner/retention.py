"""Which checkpoints may be deleted, here and in the store. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

KEPT_LAST = 2


@dataclass(frozen=True, kw_only=True)
class Keep:
    """What a job's checkpoints are wanted for; steps are global."""

    best: int | None = None
    sources: frozenset[int] = frozenset()  # another job starts from these
    every_steps: int = 200
    milestones: int = 0  # keep every n-th milestone; 0: none beyond the last two
    last_step: int | None = None


def kept_for_good(step: int, keep: Keep) -> bool:
    if step == keep.best or step in keep.sources or step == keep.last_step:
        return True
    return keep.milestones > 0 and step > 0 and step % (keep.every_steps * keep.milestones) == 0


def deletable_in_store(durable: Collection[int], keep: Keep) -> list[int]:
    """Durable steps that nothing needs: never the newest two, so that one that turns out damaged has one behind it."""
    newest = sorted(durable)[-KEPT_LAST:]
    return [step for step in sorted(durable) if step not in newest and not kept_for_good(step, keep)]


def deletable_here(saved: Sequence[int], durable: Collection[int], keep: Keep) -> list[int]:
    """Saved steps that may leave this disk: never the newest two, never the newest that is also durable.

    One that is not durable yet may go when a newer one is saved: only the newest is ever uploaded. What is kept for
    good stays until it is durable; from then on the store has it.
    """
    ordered = sorted(saved)
    stay = set(ordered[-KEPT_LAST:]) | {
        step for step in ordered if step in durable and step == max(durable, default=-1)
    }
    wanted = {step for step in ordered if kept_for_good(step, keep) and step not in durable}
    if keep.best is not None:
        wanted.add(keep.best)  # the trainer reads its best checkpoint again at the end
    return [step for step in ordered if step not in stay | wanted]
