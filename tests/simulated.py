"""Homes in one process, with trainers that are objects: the real queue, tick, sync and store, and a clock we own."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from runner.context import DaemonContext, Now
from runner.daemon.tick import tick
from runner.machine.launcher import Holder
from runner.queue import attempts, checkpoints, jobs, sharing, tables
from runner.queue.database import Queue, open_queue
from runner.queue.rows import Attempt, Job, row_of
from runner.settings import Numbers, Settings
from runner.store.base import Store
from runner.store.places.directory import DirectoryStore
from runner.sync.copies import mirror
from runner.sync.job_in_store import SyncContext
from runner.sync.loop import release_all, sync
from runner.sync.rebuild import restore
from wake2vec.contract.files import digest_file, read_json, write_json
from wake2vec.contract.manifest import CHECKPOINT_FILES, MANIFEST, Manifest, manifest_sha256, saved_steps
from wake2vec.contract.order import InputFile
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.spec import JobSpec

TEXT = b"riverrun"
CORPUS = InputFile(role="corpus", name="text.txt", sha256=hashlib.sha256(TEXT).hexdigest(), size=len(TEXT))


@dataclass(kw_only=True)
class Clock:
    """Wall and monotonic time; the wall may jump."""

    monotonic: float = 1000.0
    offset: float = 1.7e9

    @property
    def now(self) -> float:
        return self.monotonic + self.offset


@dataclass(kw_only=True)
class Trainer:
    """A trainer of one attempt: takes steps when told to, and obeys the run directory."""

    run: RunDir
    attempt: int
    job: str
    steps: int
    step: int = 0
    beats: int = 0

    def resume(self) -> None:
        self.step = max(saved_steps(self.run), default=0)
        rows = [{"kind": "step", "step": step, "loss": 1 / step} for step in range(1, self.step + 1)]
        self._write_ledger(rows)
        self.beat()

    def _write_ledger(self, rows: list[dict[str, Any]]) -> None:
        self.run.metrics.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.run.metrics.with_suffix(".tmp")
        fresh.write_text("".join(json.dumps(row) + "\n" for row in rows))
        fresh.replace(self.run.metrics)

    def take_steps(self, count: int) -> None:
        for _ in range(count):
            self.step += 1
            with open(self.run.metrics, "a") as file:
                file.write(json.dumps({"kind": "step", "step": self.step, "loss": 1 / self.step}) + "\n")
        self.beat()

    def beat(self) -> None:
        self.beats += 1
        table = {"attempt": self.attempt, "pid": 1, "beat": self.beats, "state": "training", "step": self.step}
        write_json(self.run.heartbeat, table | {"steps": self.steps, "saved_step": None}, durable=False)

    def save(self) -> None:
        if self.step:
            save_checkpoint(self.run, self.job, self.step, fingerprint=read_json(self.run.order)["fingerprint"])

    def end(self, outcome: str, **more: Any) -> None:
        table = {"attempt": self.attempt, "outcome": outcome, "step": self.step, "steps": self.steps}
        write_json(self.run.result, table | {"where": "training"} | more)


def open_attempts(queue: Queue) -> list[Attempt]:
    table = tables.attempts
    with queue.read() as connection:
        rows = connection.execute(select(table).where(table.c.ended_at.is_(None)))
        return [row_of(Attempt, row._mapping) for row in rows]


def save_checkpoint(run: RunDir, job: str, step: int, *, fingerprint: str) -> Path:
    """A checkpoint whose content is a function of job and step, as an exact trainer's is."""
    final = run.checkpoint(step)
    if (final / MANIFEST).is_file():
        return final
    shutil.rmtree(final, ignore_errors=True)
    final.mkdir(parents=True)
    for name in CHECKPOINT_FILES:
        (final / name).write_text(f"{fingerprint} {step} {name}")
    files = {name: digest_file(final / name) for name in CHECKPOINT_FILES}
    manifest = Manifest(job=job, step=step, fingerprint=fingerprint, parent=None, probe_loss=None, files=files)
    write_json(final / MANIFEST, manifest.to_json(), durable=False)
    return final


class Trainers:
    """Stands where the launcher does: the same questions, answered from memory. Outlives the daemon of its home."""

    def __init__(self, locks: Path) -> None:
        self.locks = locks
        self.living: dict[int, Trainer] = {}  # by gpu
        self.told_to_end: set[int] = set()
        self.warmed = 0

    places = places_of_a_host = 0
    card = "cpu"
    on_cards = False

    def require_there(self) -> None:
        pass

    def is_waiting(self, attempt: int) -> bool:
        return False

    def is_lost(self, attempt: int) -> bool:
        return False

    def end(self, pid: int, number: Any) -> None:
        pass

    def warm(self, environment: Any) -> None:
        self.warmed += 1

    def close(self) -> None:
        pass

    def lock(self, gpu: int) -> Path:
        return self.locks / f"gpu{gpu}.lock"

    def start(self, run: RunDir, attempt: int, environment: Any) -> int:
        order = read_json(run.order)
        steps = [order["job"]["train"]["steps"] or 30, *(one["steps"] for one in order["job"]["train"]["extended"])][-1]
        trainer = Trainer(run=run, attempt=attempt, job=order["job"]["name"], steps=steps)
        trainer.resume()
        self.living[int(Path(order["gpu_lock"]).stem.removeprefix("gpu"))] = trainer
        return 1

    def holder(self, gpu: int) -> Holder | None:
        trainer = self.living.get(gpu)
        return Holder(pid=0, attempt=trainer.attempt, job=trainer.job) if trainer else None

    def is_alive(self, attempt: int, gpu: int) -> bool:
        trainer = self.living.get(gpu)
        return trainer is not None and trainer.attempt == attempt

    def exit_code(self, attempt: int) -> int | None:
        return None

    def pid(self, attempt: int, gpu: int) -> int | None:
        self.told_to_end.add(attempt)  # asked for only to send it a signal
        return 0

    def forget(self, attempt: int) -> None:
        self.told_to_end.discard(attempt)


@dataclass(kw_only=True)
class Home:
    """One home and its daemon, driven by hand."""

    folder: Path
    store: Store
    clock: Clock
    trainers: Trainers
    queue_url: str = ""
    numbers: Numbers = field(default_factory=lambda: Numbers(backoff_first_seconds=10.0, lease_seconds=100.0))
    queue: Queue = field(init=False)
    daemon: DaemonContext = field(init=False)
    context: SyncContext = field(init=False)

    @classmethod
    def new(cls, folder: Path, store: Path | Store, clock: Clock, **more: Any) -> Home:
        folder.mkdir(parents=True, exist_ok=True)
        place = DirectoryStore(store) if isinstance(store, Path) else store
        home = cls(folder=folder, store=place, clock=clock, trainers=Trainers(folder / "locks"), **more)
        home.start_daemon()
        return home

    def start_daemon(self) -> None:
        """A new daemon process: it knows what the disk and the locks say, and nothing else."""
        settings = Settings(home=self.folder, store_url="dir:unused", numbers=self.numbers, queue_url=self.queue_url)
        (self.folder / "holder").write_text(self.folder.name)
        self.queue = open_queue(settings.database)
        if self.queue.is_shared:
            sharing.enter(self.queue, "1", self.numbers.lease_seconds)
        session = attempts.open_session(
            self.queue,
            machine=self.folder.name,
            platform="plain",
            gpu="",
            started_at=self.clock.now,
            now=self.clock.now,
        )
        self.daemon = DaemonContext(
            settings=settings,
            queue=self.queue,
            store=self.store,
            launcher=self.trainers,  # type: ignore[arg-type]
            session=session,
            holder=self.folder.name,
        )
        self.context = SyncContext(daemon=self.daemon, clock=lambda: self.now)
        restore(self.context, self.now, lambda text: None)

    @property
    def now(self) -> Now:
        return Now(self.clock.now, self.clock.monotonic)

    def kill_daemon(self) -> None:
        self.queue.close()
        self.start_daemon()

    def leave(self) -> None:
        """What a daemon does for the store before its last lines."""
        release_all(self.context, self.now)
        mirror(self.context, self.now, leaving=True)

    def lose(self, *, take_over: bool = True) -> None:
        """The machine is gone with everything on it, and the person starts on a new one."""
        self.queue.close()
        shutil.rmtree(self.folder)
        self.folder = self.folder.with_name(self.folder.name + "'")
        self.folder.mkdir()
        self.trainers = Trainers(self.folder / "locks")
        self.start_daemon()
        self.daemon.take_over = take_over

    def tick(self) -> None:
        tick(self.daemon, self.now)

    def sync(self) -> None:
        sync(self.context, self.now)

    def rounds(self, count: int = 1, seconds: float = 1.0) -> None:
        for _ in range(count):
            self.clock.monotonic += seconds
            self.tick()
            self.sync()

    def add(self, spec: JobSpec, fingerprint: str = "") -> Job:
        inputs = self.folder / "inputs"
        inputs.mkdir(exist_ok=True)
        (inputs / CORPUS.sha256).write_bytes(TEXT)
        return jobs.add_job(self.queue, spec, [CORPUS], fingerprint or f"print-{spec.name}", self.clock.now)

    def job(self, name: str = "a") -> Job:
        return jobs.get_job(self.queue, name)

    def state(self, name: str = "a") -> str:
        return str(self.job(name).state)

    def run(self, name: str = "a") -> RunDir:
        return self.daemon.run(name)

    def durable(self, name: str = "a") -> int:
        return checkpoints.durable_step(self.queue, name) or 0

    def problem(self, name: str = "a") -> str:
        return checkpoints.log_state(self.queue, name).problem

    def outcomes(self, name: str = "a") -> list[str]:
        return [str(one.outcome) for one in attempts.list_attempts(self.queue, name)]

    @property
    def trainer(self) -> Trainer:
        return self.trainers.living[0]

    def train(self, steps: int, *, save: bool = True) -> None:
        """Let the trainer take steps; at the job's last one it ends as a trainer does."""
        trainer = self.trainer
        trainer.take_steps(min(steps, trainer.steps - trainer.step))
        if save:
            trainer.save()
        if trainer.step >= trainer.steps:
            trainer.save()
            write_json(trainer.run.final / "weights.json", {"step": trainer.step})
            self.end_trainer("completed")

    def end_trainer(self, outcome: str | None, **more: Any) -> None:
        """None: killed, without a word."""
        trainer = self.trainers.living.pop(0)
        if outcome is not None:
            trainer.end(outcome, **more)

    def obey(self) -> None:
        """A trainer that was told to end saves and ends."""
        if 0 in self.trainers.living and self.trainer.attempt in self.trainers.told_to_end:
            self.trainer.save()
            self.end_trainer("yielded")

    def until(self, condition: Any, rounds: int = 60) -> None:
        for _ in range(rounds):
            if condition():
                return
            self.rounds()
        raise AssertionError(f"{self.folder.name}: did not come true in {rounds} rounds; {self.problem()}")

    def digest(self, step: int, name: str = "a") -> str:
        return manifest_sha256(self.run(name).checkpoint(step))
