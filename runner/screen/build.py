"""Build the snapshot: each part from the rows and files that it depends on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner import figures
from runner.machine.session import past_session_minutes
from runner.queue.rows import Attempt, Checkpoint, Evaluation, Job, Metric
from runner.queue.waiting import claimable
from runner.screen import estimates as progress
from runner.screen.daemon_note import MISSING, DaemonNote
from runner.screen.database import DatabaseView
from runner.screen.home import HomeView
from runner.screen.reasons import START, explain, needs_of
from runner.screen.snapshot import (
    FORMAT,
    STARTING,
    DetailPart,
    EvaluationPart,
    JobPart,
    MemoryPart,
    Need,
    RunnerPart,
    SessionPart,
    Snapshot,
    StorePart,
)
from runner.states import PLANNED_AHEAD, State, count_segments
from runner.trouble import OF_THE_STORE, Cause, Trouble
from wake2vec.contract.ledger import best as best_evaluation
from wake2vec.contract.rundir import Heartbeat

CURVE = 240  # points of the training curve that the snapshot keeps


def build_snapshot(moment: DatabaseView, around: HomeView, now: float) -> Snapshot:
    """Everything that there is to see."""
    note = around.note or DaemonNote(written_at=now)
    every = {job.name: job for job in moment.jobs}
    jobs = tuple(_job(job, every, moment, around, now) for job in moment.jobs)
    ready = claimable([job for job in moment.jobs if job.not_before <= now])
    store = _store(moment, around, note)
    session = _session(moment, around, note)
    return Snapshot(
        format=FORMAT,
        at=now,
        home=str(around.home),
        runner=RunnerPart(
            is_alive=around.daemon is not None,
            pid=around.daemon.pid if around.daemon else None,
            since_at=around.daemon.started_at if around.daemon else None,
        ),
        session=session,
        cards=note.cards,
        details=tuple(_detail(job, moment, around, note, session) for job in _in_focus(moment.jobs)),
        next_job=ready[0].name if ready else None,
        jobs=jobs,
        store=store,
        needs=(*_older(moment, around), *needs_of(jobs, store, around, now, moment.others)),
        troubles=(*note.troubles, *_backing_off(moment.jobs, now)) if around.daemon is not None else (),
        events=tuple(moment.events),
    )


def _older(moment: DatabaseView, around: HomeView) -> list[Need]:
    """Nobody must take an empty queue for the truth."""
    if around.newest_event <= max((event.id for event in moment.events), default=0):
        return []
    return [Need(job=None, cause=f"{around.home / 'runner.db'}: {MISSING}", command=START)]


def _backing_off(jobs: Sequence[Job], now: float) -> list[Trouble]:
    def told(job: Job) -> Trouble:
        said = f"{job.name}: {job.reason}"
        return Trouble(job=job.name, cause=Cause.BACKOFF, said=said, since_at=job.changed_at, again_at=job.not_before)

    return [told(job) for job in claimable(jobs) if job.not_before > now]


def _in_focus(jobs: Sequence[Job]) -> list[Job]:
    """The jobs that run, or the one that last did something."""
    running = [job for job in jobs if job.state is State.RUNNING]
    begun = [job for job in jobs if job.kept_step or job.is_final]
    return running or sorted(begun, key=lambda job: job.changed_at)[-1:]


def _session(moment: DatabaseView, around: HomeView, note: DaemonNote) -> SessionPart | None:
    if not moment.sessions:
        return None
    last = moment.sessions[-1]
    ends = [end for end in (note.stop_by, *around.stop_by.values()) if end]
    return SessionPart(
        number=last.id,
        platform=last.platform,
        gpu=last.gpu,
        started_at=last.started_at,
        stop_by=min(ends, default=None),
        usual_minutes=past_session_minutes(moment.sessions),
    )


def _segments(job: Job, planned: int, reached: int) -> int:
    """How many in all; a long job has rows for the next ones alone, and one that stopped early has no more."""
    if job.steps is None or planned < PLANNED_AHEAD or job.finishing or job.is_final:
        return planned
    return planned + count_segments(job.steps - reached, job.spec.checkpoint.every_steps)


def _job(job: Job, every: dict[str, Job], moment: DatabaseView, around: HomeView, now: float) -> JobPart:
    planned, done, reached = moment.pieces.get(job.name, (0, 0, 0))
    evaluations = moment.evaluations.get(job.name, [])
    saved, durable = _kept(
        moment.checkpoints.get(job.name, []), around.heartbeats.get(job.name), around.has_lost(job.name)
    )
    best = best_evaluation(evaluations)
    says, command = explain(job, every, moment, around, now)
    return JobPart(
        name=job.name,
        phase=job.phase,
        state=str(job.state),
        wish=str(job.wish) if job.wish else None,
        is_finishing=job.finishing,
        priority=job.priority,
        after=job.after,
        steps=job.steps,
        trained=_trained(job, around, saved),
        saved=saved,
        durable=durable,
        segments=_segments(job, planned, reached),
        segments_done=done,
        attempts=len(moment.attempts.get(job.name, [])),
        best=_evaluation(best),
        last=_evaluation(evaluations[-1] if evaluations else None),
        says=says,
        command=command,
        waits_for_a_person=job.waits_for_a_person,
    )


def _kept(checkpoints: Sequence[Checkpoint], beat: Heartbeat | None, is_lost: bool) -> tuple[int, int]:
    """Saved here and durable; what the store has lost is not durable, whatever the queue still counts."""
    good = [one for one in checkpoints if not one.quarantined]
    durable = max((one.step for one in good if one.durable_at is not None and not is_lost), default=0)
    saved = max((one.step for one in good if one.saved_at is not None), default=0)
    return max(saved, durable, (beat.saved_step or 0) if beat else 0), durable


def _trained(job: Job, around: HomeView, saved: int) -> int:
    """Steps done. Where no trainer has begun, what was not saved is gone, whatever the ledger still says."""
    beat = around.heartbeats.get(job.name)
    if job.name not in around.trainers or beat is None or beat.state in ("loading", "fitting"):
        return saved
    return beat.step


def _evaluation(one: Evaluation | None) -> EvaluationPart | None:
    if one is None:
        return None
    return EvaluationPart(
        step=one.step,
        loss=one.loss,
        bits_per_byte=one.bits_per_byte,
        new_loss=one.new_loss,
        base_loss=one.base_loss,
    )


def _begins(attempts: Sequence[Attempt], beat: Heartbeat | None) -> bool:
    """Whether a trainer was started that has not said anything yet: it loads its libraries, for a minute at times."""
    if not attempts or attempts[-1].ended_at is not None:
        return False
    return beat is None or beat.attempt != attempts[-1].id


def _detail(
    job: Job, moment: DatabaseView, around: HomeView, note: DaemonNote, session: SessionPart | None
) -> DetailPart:
    beat, is_alive = around.heartbeats.get(job.name), job.name in around.trainers
    metrics: list[Metric] = moment.metrics.get(job.name, [])
    evaluations = moment.evaluations.get(job.name, [])
    attempts = moment.attempts.get(job.name, [])
    saved, durable = _kept(moment.checkpoints.get(job.name, []), beat, around.has_lost(job.name))
    trained = _trained(job, around, saved)
    speed = progress.recent_seconds_per_step(metrics) or (beat.seconds_per_step if beat else None)
    segment = next((one for one in moment.segments.get(job.name, []) if one.last_step > trained), None)
    eta = progress.remaining_seconds(trained, job.steps, speed, evaluations, job.spec.evaluate.every_steps)
    last = metrics[-1] if metrics else None
    learns, evidence = progress.learning(evaluations, metrics)
    ln_v = next((one.ln_v for one in reversed(evaluations) if one.ln_v is not None), None)
    return DetailPart(
        job=job.name,
        model=job.spec.model.base if job.spec.model else " ".join(job.spec.command or []),
        is_alive=is_alive,
        attempt=attempts[-1].id if attempts else None,
        activity=STARTING if not is_alive and _begins(attempts, beat) else beat.state if beat else "",
        activity_detail=beat.detail if beat else "",
        activity_progress=beat.progress if beat else None,
        heartbeat_at=beat.written_at if beat else None,
        start_seconds=beat.start_seconds if beat else None,
        segment=segment.number if segment else None,
        segment_first=segment.first_step if segment else None,
        segment_last=segment.last_step if segment else None,
        loss=_first(beat.loss if beat else None, last.loss if last else None),
        lr=_first(beat.lr if beat else None, last.lr if last else None),
        grad_norm=last.grad_norm if last else None,
        seconds_per_step=speed,
        tokens_per_second=_first(beat.tokens_per_second if beat else None, _tokens_per_second(metrics)),
        eta_seconds=eta,
        eta_sessions=progress.remaining_sessions(eta, session.usual_minutes) if session else None,
        lost_if_machine_goes_seconds=progress.at_risk_seconds(metrics, trained, durable, speed),
        lost_if_trainer_goes_seconds=progress.at_risk_seconds(metrics, trained, saved, speed),
        next_evaluation=progress.next_multiple(trained, job.spec.evaluate.every_steps, job.steps),
        next_milestone=progress.next_multiple(trained, job.spec.checkpoint.every_steps, job.steps),
        learns=learns,
        learning=evidence,
        ln_v=ln_v,
        losses=tuple(figures.thinned(figures.finite([metric.loss for metric in metrics]), CURVE)),
        held_out=tuple(part for one in evaluations if (part := _evaluation(one)) is not None),
        memory=_memory(beat, attempts[-1].gpu if attempts else None, note),
        plan=beat.plan if beat else None,
        cards=around.cards.get(job.name, ()),
        ooms=moment.counts.get((job.name, "oom"), 0),
        regimes=moment.counts.get((job.name, "regime"), 0),
        layers=tuple(text.removeprefix(f"{job.name}: ") for name, text in moment.layers if name == job.name),
    )


def _memory(beat: Heartbeat | None, gpu: int | None, note: DaemonNote) -> MemoryPart:
    card = next((one for one in note.cards if one.index == gpu), None)
    return MemoryPart(
        reserved_mib=beat.vram_reserved_mib if beat else None,
        peak_mib=beat.vram_peak_mib if beat else None,
        total_mib=card.total_mib if card else None,
    )


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _tokens_per_second(metrics: Sequence[Metric]) -> float | None:
    recent = [one for one in metrics[-progress.RECENT :] if one.tokens and one.seconds]
    seconds = sum(one.seconds or 0.0 for one in recent)
    return sum(one.tokens or 0 for one in recent) / seconds if seconds else None


def _store(moment: DatabaseView, around: HomeView, note: DaemonNote) -> StorePart:
    every = [one for checkpoints in moment.checkpoints.values() for one in checkpoints if not one.quarantined]
    newest = {name: max(one.step for one in ones) for name, ones in moment.checkpoints.items()}
    # An older one that was overtaken will never be sent.
    waiting = [one for one in every if one.durable_at is None and one.step == newest[one.job]]
    problems = [(log.problem, log.remedy) for log in moment.logs.values() if log.problem]
    if around.note is not None:
        problems = [(one.said, one.command) for one in note.troubles if one.cause in OF_THE_STORE]
    problem, remedy = next(iter([*((one.problem, one.remedy) for one in around.lost), *problems]), ("", ""))
    sent = [one for one in note.uploads if one.done_bytes and not one.is_coming]
    rate = [one.done_bytes / max(note.written_at - one.started_at, 1e-3) for one in sent]
    size = max((one.size for one in every), default=0)
    return StorePart(
        place=note.place or around.store_url,
        waiting=len(waiting),
        waiting_bytes=sum(one.size for one in waiting),
        uploads=note.uploads,
        bytes_per_second=sum(rate) if rate else None,
        last_durable_at=max((one.durable_at for one in every if one.durable_at is not None), default=None),
        free_bytes=note.free_bytes,
        total_bytes=note.total_bytes,
        full_at=note.full_at,
        room_for_checkpoints=note.free_bytes // size if note.free_bytes is not None and size else None,
        problem=problem,
        remedy=remedy,
    )
