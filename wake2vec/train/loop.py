"""The training loop and its state, top to bottom: evaluate, stop, step, log, save, until the job has all its steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch

from wake2vec.contract.errors import NotAsExpected
from wake2vec.contract.expectation import mismatches
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.ledger import EventRow, LedgerFile, to_json
from wake2vec.contract.plan import Plan
from wake2vec.contract.rundir import Result
from wake2vec.data.seen_words import SeenWords
from wake2vec.model.device import vram
from wake2vec.phases.base import Prepared
from wake2vec.phases.imported import taken_over
from wake2vec.phases.inputs import JobInputs
from wake2vec.structure.auxiliary import dominated
from wake2vec.train.cadence import must_stop
from wake2vec.train.checkpoint import Loaded, point_to_best
from wake2vec.train.evaluate import EvaluationVerdict, as_row, evaluate, judge
from wake2vec.train.extras import Extras
from wake2vec.train.heartbeat import HeartbeatWriter
from wake2vec.train.movement import require_movement
from wake2vec.train.optimizers import optimizer_of
from wake2vec.train.plans.oom_ladder import Ladder
from wake2vec.train.plans.proven import Proven
from wake2vec.train.ranks.agreement import require_one_state
from wake2vec.train.ranks.pipeline import part_of
from wake2vec.train.ranks.team import Team, in_words
from wake2vec.train.saving import Saver
from wake2vec.train.schedule import ends_before, rate_of
from wake2vec.train.state import LossScale, Progress
from wake2vec.train.step import Stepper, StepResult
from wake2vec.train.stopping import Stop

IDLE_STEPS = 50  # so many without any gradient are no accident


class Loop:
    """One attempt at a job."""

    def __init__(
        self,
        material: JobInputs,
        prepared: Prepared,
        plan: Plan,
        proven: Proven,
        stop: Stop,
        pulse: HeartbeatWriter,
        team: Team,
    ) -> None:
        self.material, self.prepared, self.stop, self.pulse = material, prepared, stop, pulse
        self.job, self.run, self.proven, self.team = material.job, material.run, proven, team
        self.train = self.job.train
        self.optimizer = optimizer_of(self.train, prepared)
        ranks = part_of(prepared, 0, team.regime.get("cards", 1))
        self.stepper = Stepper.of(material, prepared, self.optimizer, team=team, **ranks)
        first_scale = 2.0**16 if prepared.precision.dtype == torch.float16 else 1.0
        self.progress = Progress(plan=plan, scale=LossScale(value=first_scale))
        self.saver = Saver(material, prepared, self.optimizer, team)
        self.beside = Extras(material, prepared, pulse, self.note)
        self.ledger = LedgerFile(self.run.metrics)
        self.words: tuple[SeenWords, SeenWords] | None = None  # that training will meet, and has met, once asked for
        self.step_seconds = self.rate = 0.0
        self.shown = 0  # rows that the pictures and tables tell of
        self.unexpected = ""  # what was found instead of a golden value, since the last step

    # ---- start ----------------------------------------------------------------------------------------------

    def restore(self, loaded: Loaded) -> None:
        """Take over a verified checkpoint. Raises StackChanged where it computes something else."""
        told, self.progress = self.saver.restore(loaded, self.progress.plan), Progress.from_json(loaded.state)
        self.beside.restore(loaded.state, self.progress.step)
        self.note("resume", f"from {loaded.folder.name}" + ("" if told else " with the same bits"))
        if told:
            self.note("regime", told, change={"what": "stack", "text": told})
        if (was := in_words(loaded.state)) != (now := in_words(self.team.regime)):
            moved = f"goes on with {now} after {was}".rstrip(",")
            self.note("regime", moved, change={"what": "cards", "text": moved})

    def begin(self) -> None:
        if self.progress.step == 0:
            self.beside.restore({}, 0)
            self.beside.add_frame(0)
        self.ledger.rewrite(self.progress.rows)
        self.point_to_best()
        if not self.progress.rows and (taken := taken_over(self.material.order)) is not None:
            self.note("regime", "; ".join(taken.told))
        self.ladder = Ladder(self.job, self.prepared, self.progress, self.proven, self.note, self.team)
        if self.progress.step == 0:
            self.team.give(self.prepared, self.optimizer)
        if not any(row["kind"] == "step" for row in self.progress.rows) and self.prepared.structure is not None:
            self.note("groups", "; ".join(self.prepared.structure.told))
        self.pulse.beat(step=self.progress.step, steps=self.material.steps, saved_step=self.saver.saved_step)

    # ---- the loop -------------------------------------------------------------------------------------------

    def run_to_end(self, at_evaluation: Callable[[], None]) -> Result:
        """Go on until the job's last step and its last evaluation, or until a stop is asked for."""
        self.begin()
        while True:
            # once in a while: measure the held-out text. The checkpoint it belongs to comes first.
            if self.evaluation_is_due():
                self.pulse.part("evaluation")
                if not self.evaluate():
                    return self.leave()
                self.pulse.part("pictures")
                at_evaluation()
            verdict = self.verdict()
            if self.progress.step >= self.material.steps or verdict.stop_reason:
                return self.finish(verdict)

            # a signal, or the known end of the session
            if self.must_leave():
                return self.leave()

            # at chosen steps: write sample texts. A stop ends it at once.
            if self.beside.samples_are_due(self.progress.step):
                self.sample()
                continue

            self.pulse.part("first step")
            if (result := self.step()) is None:
                continue
            self.log(result)
            self.hold_unexpected()
            if self.progress.step == IDLE_STEPS and self.stepper.can_have_moved(IDLE_STEPS):
                require_movement(self.progress.rows, "grad_norm")
            self.ladder.count_clean_step()

            # once in a while: save. Only the copy to the host keeps training waiting.
            if self.saver.is_due(self.progress.step):
                self.save()

    def step(self) -> StepResult | None:
        """One optimizer step, on a smaller plan if memory runs out; None when a stop was asked for in the middle."""
        started, step = time.monotonic(), self.progress.step
        rate = rate_of(step, self.train, self.material.first_total)
        result = self.ladder.take(
            lambda plan: self.stepper.run(step, lr=rate, plan=plan, scale=self.progress.scale, stop=self.stop),
            # the process that goes on from the last checkpoint starts on a leaner plan: it stands in the result
            spent=lambda leaner: self.pulse.beat(plan=leaner.to_dict()),
        )
        if result is not None:
            self.rate, self.step_seconds = rate, time.monotonic() - started
        return result

    def log(self, result: StepResult) -> None:
        memory = vram()
        self.progress.step += 1
        row = result.as_row(
            step=self.progress.step,
            lr=self.rate,
            seconds=round(self.step_seconds, 4),
            attempt=self.material.order.attempt,
            vram_peak_mib=memory.get("vram_peak_mib"),
        )
        self.add_row(row)
        if parts := self.pulse.started():
            told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts.items() if seconds >= 0.05)
            self.note("start", f"the first step came after {sum(parts.values()):.1f} s: {told}", seconds=parts)
        if (said := dominated(result.structure)) and all(row.get("event") != "share" for row in self.progress.rows):
            self.note("share", said)
        self.compare(row)
        self.pulse.beat(
            state="training",
            step=self.progress.step,
            saved_step=self.saver.saved_step,
            loss=result.loss,
            lr=self.rate,
            seconds_per_step=self.step_seconds,
            tokens_per_second=result.tokens / self.step_seconds,
            plan=asdict(self.progress.plan),
            **memory,
        )
        failpoint("loop.logged")

    def compare(self, row: dict[str, Any]) -> None:
        """With what the job file expects of this row."""
        for text in mismatches(row, self.job.evaluate.expect):
            self.note("expect", text)
            self.unexpected = f"step {row['step']}: {text}"

    def hold_unexpected(self) -> None:
        """Raises NotAsExpected where a person wants to look; after a step, so that a released job has it behind it."""
        if self.unexpected and self.job.evaluate.hold_unexpected:
            self.save_whole()
            raise NotAsExpected(self.unexpected)

    # ---- saving ---------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Start a checkpoint of this step; returns before its files are complete."""
        if self.saver.saved_step != self.progress.step and self.saver.is_milestone(self.progress.step):
            self.beside.add_frame(self.progress.step)
            require_one_state(self.team, self.prepared, self.progress.step)
        self.saver.save(self.progress, self.beside.carried())

    def save_whole(self) -> None:
        """Return when the state of this step lies on the disk. Step 0 needs no checkpoint: it is made again."""
        if self.progress.step > 0:
            self.save()
            self.saver.wait()

    def sample(self) -> None:
        """Write the sample texts of this step. Nothing is at risk meanwhile, and a stop ends it at once."""
        self.save_whole()
        self.beside.sample(self.progress.step, self.must_leave)
        self.saver.nothing_was_at_risk()

    def hopes(self) -> None:
        """At the end, when all is saved and exported."""
        self.beside.hopes(self.progress.step, self.must_leave)

    # ---- evaluating -----------------------------------------------------------------------------------------

    def evaluation_is_due(self) -> bool:
        step, ends = self.progress.step, ends_before(self.material.first_total, self.train.extended)
        is_due = step % self.job.evaluate.every_steps == 0 or step in ends or step == self.material.steps
        return is_due and all(row.step != step for row in self.progress.evaluations)

    def evaluate(self) -> bool:
        """Add the evaluation of this step to the ledger; False when a stop was asked for before it was complete."""
        step, started, aux = self.progress.step, time.monotonic(), self.prepared.structure
        self.save_whole()
        self.pulse.beat(state="evaluating", saved_step=self.saver.saved_step, progress=0.0)
        measured = evaluate(
            self.prepared,
            self.material,
            folder=self.run.evaluation,
            key=f"{step}:{self.saver.saved_sha256 if step else self.material.identity.result().key}",
            stop=self.stop,
            progress=lambda share: self.pulse.beat(state="evaluating", progress=share),
            team=self.team,
        )
        if measured is None:
            return False
        row = as_row(
            measured,
            step=step,
            checkpoint=f"checkpoint-{step}" if step else None,
            vocabulary=self.prepared.rows.head.out_features,
            seconds=round(time.monotonic() - started, 3),
            structure=None if aux is None else aux.figures(whole=step in (0, self.material.steps)),
        )
        self.add_row(row)
        self.point_to_best()
        self.compare(row)
        failpoint("evaluation.end")
        return True

    def point_to_best(self) -> None:
        """Of this past: what an attempt measured that the job has gone back from is no best."""
        if (verdict := self.verdict()).best_step is not None:
            point_to_best(self.run, verdict.best_step, verdict.best_loss or 0.0)
        else:
            self.run.best.unlink(missing_ok=True)

    def verdict(self) -> EvaluationVerdict:
        return judge(self.progress.evaluations, self.job.evaluate)

    # ---- ending ---------------------------------------------------------------------------------------------

    def must_leave(self) -> bool:
        """Whether a stop was asked for, or the known end of the session is near."""
        if must_stop(self.stop.seconds_left(), self.step_seconds, self.saver.cost_seconds):
            self.stop.ask("the session ends soon")
        return self.stop.is_asked

    def leave(self) -> Result:
        """Save the last finished step and end; the job goes on in a later attempt."""
        self.save_whole()
        return self.result("yielded", cause=self.stop.reason)

    def finish(self, verdict: EvaluationVerdict) -> Result:
        require_movement(self.progress.rows, "grad_norm", "entries_changed")
        self.save_whole()
        return self.result("completed", cause=verdict.stop_reason)

    def result(self, outcome: Any, *, cause: str) -> Result:
        return replace(
            self.pulse.result(outcome, "training", cause),
            step=self.progress.step,
            saved_step=self.saver.saved_step,
            best_step=self.verdict().best_step,
            plan=asdict(self.progress.plan),
        )

    def note(self, event: str, text: str, **more: Any) -> None:
        self.add_row(to_json(EventRow(step=self.progress.step, event=event, text=text)) | more)

    def add_row(self, row: dict[str, Any]) -> None:
        self.progress.rows.append(row)
        self.ledger.append(row)
