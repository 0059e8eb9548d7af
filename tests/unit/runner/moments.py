"""Moments of a queue and its surroundings, for the tests of the screen."""

from __future__ import annotations

from pathlib import Path

from runner.queue.rows import Attempt, Checkpoint, Evaluation, Event, Job, LogState, Metric, Segment, Session
from runner.screen.daemon_note import CardNote, DaemonNote
from runner.screen.database import DatabaseView
from runner.screen.home import HomeView, Process
from runner.states import State, plan_segments
from tests.unit.runner.conftest import job_spec
from wake2vec.contract.rundir import Heartbeat

NOW = 10_000.0


def job(name="a", *, state=State.QUEUED, steps=500, number=1, **extra):
    fields = {
        "phase": "p1", "wish": None, "end_now": False, "finishing": False, "priority": 0, "after": None,
        "inputs_json": "[]", "fingerprint": name, "created_at": 0.0, "changed_at": float(number), "not_before": 0.0,
        "stalls": 0, "kept_step": 0, "rolled_back": False, "reason": "", "remedy": "",
    }  # fmt: skip
    spec = job_spec(name, steps=steps, phase="p1").model_dump_json()
    return Job(**(fields | extra), name=name, number=number, state=state, steps=steps, spec_json=spec)


def metrics(name="a", *, count=100, seconds=2.0, first_loss=8.0, fall=0.01):
    return [
        Metric(job=name, step=step, loss=first_loss - fall * step, tokens=64, lr=1e-3, grad_norm=1.0, seconds=seconds)
        for step in range(1, count + 1)
    ]


def evaluation(step, loss, name="a", **extra):
    fields = dict.fromkeys(
        ("tokens", "bits_per_byte", "new_loss", "new_tokens", "base_loss", "base_tokens", "ln_v", "checkpoint")
    )
    return Evaluation(job=name, step=step, loss=loss, seconds=10.0, **(fields | extra))


def checkpoint(step, name="a", *, saved=True, durable=True, quarantined=False, size=1 << 20):
    return Checkpoint(
        job=name, step=step, manifest_sha256="0", size=size, saved_at=NOW - 60 if saved else None,
        durable_at=NOW - 30 if durable else None, quarantined=quarantined,
    )  # fmt: skip


def segments(steps, name="a", *, done=0, every=200):
    planned = plan_segments(steps, every)
    return [
        Segment(job=name, number=number, first_step=first, last_step=last, done_at=1.0 if number <= done else None)
        for number, (first, last) in enumerate(planned, start=1)
    ]


def attempt(name="a", number=1):
    return Attempt(
        id=number, job=name, session=1, gpu=0, pid=7, started_at=1.0, ended_at=None, first_step=0, last_step=None,
        asked_to_stop_at=None, outcome=None, place="", cause="", remedy="",
    )  # fmt: skip


def session(number=1, *, started_at=NOW - 3600, ended_at=None):
    return Session(
        id=number, machine=f"m{number}", platform="colab", gpu="Tesla T4", started_at=started_at, seen_at=NOW,
        ended_at=ended_at, cause="",
    )  # fmt: skip


def heartbeat(step=105, **extra):
    fields = {"attempt": 1, "pid": 7, "beat": 3, "state": "training", "steps": 500, "saved_step": 104, "loss": 6.9,
              "lr": 1e-3, "seconds_per_step": 2.0, "tokens_per_second": 32.0, "vram_peak_mib": 12_000,
              "vram_reserved_mib": 11_000, "plan": {"micro_batch": 2}, "written_at": NOW - 3}  # fmt: skip
    return Heartbeat(**(fields | extra), step=step)


def running_moment(**extra):
    """Job `a` at step 105 of 500: saved to 104, durable to 100; the ledger is known to 100."""
    fields = {
        "jobs": [job(state=State.RUNNING)],
        "sessions": [session()],
        "segments": {"a": segments(500)},
        "pieces": {"a": (3, 0, 600)},
        "attempts": {"a": [attempt()]},
        "checkpoints": {"a": [checkpoint(100), checkpoint(104, durable=False)]},
        "evaluations": {"a": [evaluation(0, 8.0, ln_v=9.0), evaluation(100, 7.0, ln_v=9.0)]},
        "metrics": {"a": metrics()},
        "events": [Event(id=1, at=NOW - 5, job="a", kind="started", text="a #1: started")],
    }
    return DatabaseView(**(fields | extra))


def running_surroundings(**extra):
    fields = {
        "home": Path("/home/x"),
        "store_url": "dir:/home/x/store",
        "daemon": Process(pid=5, started_at=NOW - 3600),
        "trainers": {"a": Process(pid=7)},
        "heartbeats": {"a": heartbeat()},
        "note": DaemonNote(
            written_at=NOW, place="Google Drive", free_bytes=100 << 20,
            cards=(CardNote(index=0, name="Tesla T4", total_mib=15_000, used_mib=12_000),),
        ),
    }  # fmt: skip
    return HomeView(**(fields | extra))


def nothing(**extra):
    """A home without a daemon."""
    return HomeView(home=Path("/home/x"), store_url="dir:/home/x/store", **extra)


def log_state(name="a", **extra):
    return LogState(job=name, **extra)
