"""The plan in force, and the ladder: one rung down when memory runs out, one up when it has not for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from wake2vec.contract.errors import OutOfMemory
from wake2vec.contract.plan import LAYERS, Allowed, Failure, Plan, grow, next_rung
from wake2vec.contract.spec import TrainingSpec
from wake2vec.model.device import brief, free_memory, free_share, is_out_of_memory
from wake2vec.model.placement import apply_plan
from wake2vec.phases.base import Prepared
from wake2vec.train.plans.proven import Proven
from wake2vec.train.ranks.team import Place, Team
from wake2vec.train.state import Progress

R = TypeVar("R")


class Ladder:
    """Starts at the plan of the attempt, which it never grows beyond."""

    def __init__(
        self,
        job: TrainingSpec,
        prepared: Prepared,
        progress: Progress,
        proven: Proven,
        note: Callable[[str, str], None],
        team: Team,
    ) -> None:
        self._prepared, self._progress, self._note = prepared, progress, note
        self._proven, self._team = proven, team
        self._allowed = Allowed(
            batch=-(-job.train.batch // team.size),  # of one card, rounded up
            seq_len=job.data.seq_len,
            shorter_context=job.train.allow_shorter_context,
            host_embedding=base_rows_rest(prepared),
            holds=proven.holds,
        )
        self._clean_steps = 0
        self._put_into_effect(progress.plan)
        self._ceiling = progress.plan

    def take(self, step: Callable[[Plan], R], *, spent: Callable[[Plan], object]) -> R:
        """What a step gives on the plan in force, or on the first leaner one that fits. Raises OutOfMemory.

        Where the step itself raises that, it cannot be taken again here: `spent` is told the plan for a fresh process.
        """
        failure: Failure = "oom"
        while True:
            try:
                return step(self._progress.plan)
            except OutOfMemory:
                spent(self._leaner())
                raise
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                message = brief(error)
            # outside the except block: the traceback would keep the tensors of the failed pass alive
            failure = self.shrink(failure, message)

    def shrink(self, failure: Failure, message: str) -> Failure:
        """Go one rung down; the step is taken again from its start. Returns what another failure now would mean.

        Raises OutOfMemory at the last rung.
        """
        free_memory(self._prepared.trainable.values())
        rung = next_rung(self._progress.plan, failure, self._allowed)
        if rung is None:
            raise OutOfMemory(f"step {self._progress.step}: {message}; no smaller plan is left")
        self._clean_steps = 0
        self._note("oom", f"{message}: {rung.action}")
        if rung.changes_context:
            self._note("regime", rung.action)
        if rung.plan == self._progress.plan:
            return "oom_after_defragmenting"
        self._put_into_effect(rung.plan)
        return "oom"

    def _leaner(self) -> Plan:
        """The plan for a fresh process, after memory ran out in the update."""
        rung = next_rung(self._progress.plan, "oom_in_optimizer", self._allowed)
        return rung.plan if rung else self._progress.plan

    def count_clean_step(self) -> None:
        """Once in a while, after an out-of-memory that has not come again: one rung up."""
        self._clean_steps += 1
        if self._progress.plan == self._ceiling:
            return
        share = free_share(self._prepared.device)
        larger = grow(
            self._progress.plan,
            self._ceiling,
            clean_steps=self._clean_steps,
            free_share=share,
            batch=self._allowed.batch,
        )
        if larger is not None:
            self._clean_steps = 0
            self._note("regime", f"grown back to {larger}")
            self._put_into_effect(larger)

    def _put_into_effect(self, plan: Plan) -> None:
        prepared = self._prepared
        placed = self._team.do(
            Place(plan=plan), lambda: apply_plan(prepared.model, prepared.rows, plan, prepared.device)
        )[0]
        self._progress.plan = placed.plan
        self._proven.rest()
        told = {row.get("text") for row in self._progress.rows if row.get("event") == LAYERS}
        for refusal in self._proven.refusals:
            if refusal not in told:
                self._note(LAYERS, refusal)
        for note in placed.notes:
            self._note("plan", note)


def base_rows_rest(prepared: Prepared) -> bool:
    """Whether the published rows stand still, so that they may lie on the host."""
    return prepared.rows.embedding.base.trainable() is None
