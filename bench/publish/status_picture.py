"""Draw docs/status.svg: the status screen over a history that was once kept by hand."""

from __future__ import annotations

import io
import math
import random
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from runner.jobfile.read import read_job
from runner.queue import attempts, checkpoints, jobs
from runner.queue.database import Queue, open_queue
from runner.queue.ledger import import_ledger
from runner.screen.build import build_snapshot
from runner.screen.daemon_note import CardNote, DaemonNote, UploadNote
from runner.screen.database import read_database
from runner.screen.home import HomeView, Process
from runner.screen.render import render
from runner.screen.snapshot import Snapshot
from runner.states import Change, Outcome, Verdict, Wish
from wake2vec.contract.rundir import Heartbeat

JOBS = Path(__file__).parents[2] / "jobs"
# Llama-3.1-8B P2 as its author recorded it by hand over 28 Colab sessions, June to August 2026: held-out loss in nats.
RECORDED = {100: 7.72, 200: 6.540, 300: 5.723, 400: 5.418, 500: 5.282, 600: 5.206, 700: 5.164, 800: 5.155}
FIRST_TRAIN, LAST_TRAIN, STEPS, SESSIONS, STEPS_A_SESSION, STEP_SECONDS, LN_V = 7.82, 4.62, 3000, 20, 43, 240.0, 12.057
NOW, TRAINED, SAVED, DURABLE = 1_786_000_000.0, 853, 852, 851
CHECKPOINT_BYTES = 225 << 20
JOB = "llama8b_p2"


def history(folder: Path) -> Snapshot:
    """The job in its 20th session, with others behind it. What lies between the recorded points is filled in."""
    queue = open_queue(folder / "runner.db")
    try:
        _fill(queue)
    finally:
        queue.close()
    return build_snapshot(read_database(folder / "runner.db"), _surroundings(folder), NOW)


def _fill(queue: Queue) -> None:
    for number, name in enumerate(("llama8b_p1", JOB, "qwen_p1", "qwen_p2", "mistral_p1")):
        jobs.add_job(queue, read_job(JOBS / f"{name}.toml"), [], str(number), NOW - 5e6 + number)
    jobs.change_state(queue, "llama8b_p1", Change.SUCCEED, NOW - 4e6)
    checkpoints.mark_durable(queue, "llama8b_p1", STEPS, manifest_sha256="0", size=CHECKPOINT_BYTES, now=NOW - 4e6)
    jobs.set_wish(queue, "mistral_p1", Wish.HOLD, NOW - 3e6)
    _sessions(queue)
    import_ledger(queue, JOB, _ledger(), NOW, from_start=True)
    for step in (600, 800, DURABLE):
        checkpoints.mark_durable(queue, JOB, step, manifest_sha256="0", size=CHECKPOINT_BYTES, now=NOW - 260)
    checkpoints.mark_saved(queue, JOB, SAVED, manifest_sha256="0", size=CHECKPOINT_BYTES, now=NOW - 30)


def _sessions(queue: Queue) -> None:
    for number in range(SESSIONS):
        first, is_last = number * STEPS_A_SESSION, number == SESSIONS - 1
        at = NOW - (TRAINED - first) * STEP_SECONDS if is_last else NOW - (SESSIONS - number) * 2 * 86_400.0
        session = attempts.open_session(
            queue, machine=f"vm{number}", platform="colab", gpu="Tesla T4", started_at=at, now=at
        )
        attempt = attempts.claim(queue, JOB, session=session.id, gpu=0, first_step=first, now=at + 240)
        if is_last:
            return
        ended = first + STEPS_A_SESSION
        attempts.see_session(queue, session, at + 300 + STEPS_A_SESSION * STEP_SECONDS)
        verdict = Verdict(change=Change.REQUEUE, reason="lost: the session went away")
        attempts.close_attempt(
            queue, attempt, verdict, at + 10_800, outcome=Outcome.LOST, last_step=ended, kept_step=ended
        )


def _ledger() -> list[Mapping[str, object]]:
    chance = random.Random(7)
    rows: list[Mapping[str, object]] = []
    for step in range(1, TRAINED + 1):
        loss = LAST_TRAIN + (FIRST_TRAIN - LAST_TRAIN) * math.exp(-step / 220) + chance.gauss(0, 0.08)
        rows.append({"kind": "step", "step": step, "loss": loss, "tokens": 4096, "lr": 2e-5, "grad_norm": 1.0,
                     "seconds": STEP_SECONDS})  # fmt: skip
    for step, held_out in RECORDED.items():
        rows.append({"kind": "evaluation", "step": step, "loss": held_out, "tokens": 36_000, "ln_v": LN_V,
                     "seconds": 410.0})  # fmt: skip
    return rows


def _surroundings(folder: Path) -> HomeView:
    beat = Heartbeat(
        attempt=SESSIONS, pid=4242, beat=9, state="training", step=TRAINED, steps=STEPS, saved_step=SAVED, loss=4.68,
        lr=1.7e-5, seconds_per_step=STEP_SECONDS, tokens_per_second=4096 / STEP_SECONDS, vram_peak_mib=13_950,
        vram_reserved_mib=13_400, written_at=NOW - 4,
        plan={"micro_batch": 1, "layers": "checkpoint", "embedding": "host", "head": "as-is", "block_splits": 1},
    )  # fmt: skip
    upload = UploadNote(
        job=JOB, name=f"checkpoint-{SAVED}", done_bytes=180 << 20, size=CHECKPOINT_BYTES, started_at=NOW - 22
    )
    note = DaemonNote(
        written_at=NOW,
        place="Google Drive, folder wake2vec",
        free_bytes=9_800 << 20,
        cards=(CardNote(index=0, name="Tesla T4", total_mib=15_360, used_mib=13_800),),
        uploads=(upload,),
    )
    return HomeView(
        home=folder,
        store_url="drive:wake2vec",
        daemon=Process(pid=4000, started_at=NOW - 8_600),
        trainers={JOB: Process(pid=4242)},
        heartbeats={JOB: beat},
        note=note,
    )


def svg(snapshot: Snapshot, *, width: int, height: int | None) -> str:
    console = Console(record=True, width=width, file=io.StringIO(), highlight=False, force_terminal=True)
    console.print(render(snapshot, width=width, height=height))
    return console.export_svg(title="wake2vec-runner status", unique_id="status")


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        snapshot = history(Path(folder))
    for name, width, height in (("status", 100, None),):
        (target / f"{name}.svg").write_text(svg(snapshot, width=width, height=height), "utf-8")
        print(f"{target / name}.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs"))
