"""A dress rehearsal on a card: a whole job of a real shape through the command line, uncut and with its trainer killed.

`python -m bench.resilience.rehearsal --model qwen14b --cap-gib 14.56 --tokenizer FOLDER --lexicon FILE --corpus FILE`
publishes random weights, queues the same job under two names, kills the second one's trainer twice (kill -9), and
compares what they ended with. The second starts with the plan that the first measured, as a next session would. Without
arguments the same code runs on the tiny model.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.demo import JOBS, DemoFailed, Machine, ledger, result_hash
from bench.speed.p1 import MODELS, RESULTS
from runner.commands.store_room import need_of
from runner.jobfile.read import read_job
from wake2vec.contract.lock import read_lock
from wake2vec.contract.rundir import read_heartbeat
from wake2vec.contract.tables import CheckpointTable

FIRST, SECOND = "first", "second"  # the P1 job that a P2 job goes on from, and the P2 job of a P3
LORA = "[lora]\nr = 8\ndropout = 0.1\n"
GROUPS = "groups.jsonl"
KILLS_AT = (0.4, 0.7)  # shares of the steps
PATIENCE_SECONDS = 580.0
# Between rolling checkpoints: often, so that a kill has one behind it, but for a checkpoint that takes long to write.
LEAST_MINUTES, MOST_MINUTES, MINUTES_PER_GIB = 0.1, CheckpointTable().max_loss_minutes, 1.0


@dataclass(kw_only=True)
class Watch:
    """What was seen of one job's trainers while they ran: seconds in each state, the peak of host memory."""

    seconds: dict[str, float] = field(default_factory=dict)
    host_peak_bytes: int = 0
    device_peak_mib: int = 0
    plan: dict[str, Any] | None = None
    killed_at: list[int] = field(default_factory=list)


def main() -> None:
    chosen = parse()
    result = about(chosen)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        for found in rehearse(chosen, Path(name)):
            result |= found
            save(result, chosen.out / f"rehearsal-{chosen.model}-{chosen.phase}.json")
    print(json.dumps(result, indent=1))


def save(result: dict[str, Any], path: Path) -> None:
    """After every stage: a rehearsal that is cut off keeps what it measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def parse() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="tiny", choices=list(MODELS))
    options.add_argument("--cap-gib", type=float, help="device memory to allow, GiB; a T4 has 14.56")
    options.add_argument("--tokenizer", type=Path, default=JOBS / "tiny" / "model", help="folder of its tokenizer")
    options.add_argument("--lexicon", type=Path, default=JOBS / "tiny" / "lexicon.txt")
    options.add_argument("--corpus", type=Path, default=JOBS / "tiny" / "corpus.txt")
    options.add_argument("--groups", type=Path, help="of a P3, where they are not derived from the lexicon")
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--seq-len", type=int, default=256)
    options.add_argument("--phase", choices=("p1", "p2", "p3"), default="p1")
    options.add_argument("--max-loss-minutes", type=float, help="default: a minute for each GiB of a checkpoint")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the job that is rehearsed")
    options.add_argument("--uncut", action="store_true", help="no second job that is killed")
    options.add_argument("--published", type=Path, help="a folder that an earlier rehearsal published; made if missing")
    options.add_argument("--folder", type=Path, help="where there is room")
    options.add_argument("--out", type=Path, default=RESULTS)
    return options.parse_args()


def about(chosen: argparse.Namespace) -> dict[str, Any]:
    from bench.speed.measure import setting

    asked = {key: getattr(chosen, key) for key in ("model", "cap_gib", "phase", "steps", "batch", "seq_len", "set")}
    return {**setting(), "question": "dress rehearsal", **asked}


def rehearse(chosen: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """One stage after the other, each with its figures."""
    model = chosen.published or folder / "model"
    began = time.monotonic()
    if not model.is_dir():
        publish(chosen, model)
    yield {"publish_seconds": time.monotonic() - began}
    machine = Machine(home=folder / "home", store=folder / "store")
    if chosen.cap_gib:
        share = chosen.cap_gib / card_gib()
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = f"expandable_segments:True,per_process_memory_fraction:{share:.5f}"

    def queue(name: str, phase: str, steps: int, *more: str) -> None:
        file = job_file(chosen, folder, model, name, phase, steps=steps)
        minutes = chosen.max_loss_minutes or minutes_between_checkpoints(file)
        machine.run("enqueue", *more, str(file), "--set", f"checkpoint.max_loss_minutes={minutes:.3f}")

    for name, phase in before(chosen.phase):
        queue(name, phase, 2)
        yield {name: watched(machine, name, [])}
    if chosen.groups:
        shutil.copyfile(chosen.groups, folder / GROUPS)
    elif chosen.phase == "p3":
        machine.run("morphemes", str(chosen.lexicon), "--derive", "--corpus", str(chosen.corpus), "--out",
                    str(folder / GROUPS))  # fmt: skip
    settings = [word for setting in chosen.set for word in ("--set", setting)]
    queue("uncut", chosen.phase, chosen.steps, *settings)
    uncut = watched(machine, "uncut", [])
    yield {"uncut": uncut}
    if chosen.uncut:
        return
    queue("cut", chosen.phase, chosen.steps, "--again", *settings)
    remember(machine, uncut["plan"])
    yield {"cut": watched(machine, "cut", [int(share * chosen.steps) for share in KILLS_AT])}
    hashes = {name: result_hash(machine.run_dir(name)) for name in ("uncut", "cut")}
    yield {"hashes": hashes, "equal": hashes["uncut"] == hashes["cut"]}


def before(phase: str) -> list[tuple[str, str]]:
    """Name and phase of each job that the rehearsed one stands on."""
    return {"p1": [], "p2": [(FIRST, "p1")], "p3": [(FIRST, "p1"), (SECOND, "p2")]}[phase]


def watched(machine: Machine, job: str, kills: list[int]) -> dict[str, Any]:
    """The figures of a job that a daemon brings to its end."""
    watch = Watch()
    machine.start()
    until_done(machine, job, watch, kills)
    return figures(machine, job, watch)


def publish(chosen: argparse.Namespace, model: Path) -> None:
    import torch

    from bench.material.published import publish
    from bench.material.random_models import TINY
    from wake2vec.contract.models.model_shapes import SHAPES

    if chosen.model == "tiny":
        shutil.copytree(chosen.tokenizer, model)
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    publish(SHAPES.get(MODELS[chosen.model], TINY), model, device, tokenizer=chosen.tokenizer)
    torch.cuda.empty_cache()


def card_gib() -> float:
    import torch

    return torch.cuda.get_device_properties(0).total_memory / (1 << 30)


def job_file(chosen: argparse.Namespace, folder: Path, model: Path, name: str, phase: str, *, steps: int) -> Path:
    path = folder / f"{name}.toml"
    below = before(phase)
    head = f'after = "{below[-1][0]}"' if below else ""
    own = {
        "p1": f'[vocab]\nlexicon = "{chosen.lexicon.absolute()}"\n',
        "p2": LORA,
        "p3": f'[lora]\ntrain = "lora+rows"\n[morphemes]\ngroups = "{folder / GROUPS}"\n[geometry]\nramp_steps = 0\n',
    }[phase]
    path.write_text(f"""
phase = "{phase}"
{head}
[model]
base = "{model}"
load = "nf4"
[data]
corpus = "{chosen.corpus.absolute()}"
seq_len = {chosen.seq_len}
held_out = 0.1
[train]
steps = {steps}
batch = {chosen.batch}
optimizer = "{"adafactor" if phase == "p1" else "adamw"}"
lr = 1e-4
{own}
[evaluate]
every_steps = {max(1, steps // 2)}
max_windows = 8
samples = 0
[checkpoint]
every_steps = {max(1, steps // 2)}
[runner]
max_attempts = 3
""")
    return path


def minutes_between_checkpoints(file: Path) -> float:
    """What one takes to write, and to send, grows with its size."""
    need = need_of(read_job(file), file)
    if need is None:
        return MOST_MINUTES
    return min(MOST_MINUTES, max(LEAST_MINUTES, MINUTES_PER_GIB * need.checkpoint_bytes / (1 << 30)))


def remember(machine: Machine, plan: dict[str, Any] | None) -> None:
    """Start the second job as a next session of the first would: with the plan that was measured on this card."""
    from runner.machine.vram import read_cards

    cards = read_cards()
    if not cards or plan is None:
        return
    with contextlib.closing(sqlite3.connect(machine.home / "runner.db")) as queue, queue:
        row = (cards[0].name, "cut", json.dumps(plan), time.time())
        queue.execute("INSERT INTO plan_limits (gpu, job, plan, at) VALUES (?, ?, ?, ?)", row)


def until_done(machine: Machine, job: str, watch: Watch, kills: list[int]) -> None:
    """Look until the daemon has nothing left to do; kill the trainer at these steps, once a checkpoint is behind it."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    last = time.monotonic()
    while not machine.is_done():
        assert machine.daemon, "started before"
        if time.monotonic() > give_up or machine.daemon.poll() not in (None, 0):
            raise DemoFailed(said(machine, job))
        beat = read_heartbeat(machine.run_dir(job))
        holder = read_lock(machine.home / "locks" / "gpu0.lock")
        now = time.monotonic()
        if beat is not None and holder and holder.get("pid"):
            watch.seconds[beat.state] = watch.seconds.get(beat.state, 0.0) + now - last
            watch.host_peak_bytes = max(watch.host_peak_bytes, peak_of(holder["pid"]))
            watch.device_peak_mib = max(watch.device_peak_mib, beat.vram_peak_mib or 0)
            watch.plan = beat.plan or watch.plan
            if kills and machine.reached(job, kills[0]):
                kills.pop(0)
                watch.killed_at.append(beat.step)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(holder["pid"], signal.SIGKILL)
        last = now
        time.sleep(0.05)
    if not machine.run_dir(job).final.is_dir():
        raise DemoFailed(said(machine, job))


def said(machine: Machine, job: str) -> str:
    logs = (machine.home.parent / "start.log", machine.run_dir(job).log)
    return "\n".join(log.read_text()[-3000:] for log in logs if log.is_file())


def peak_of(pid: int) -> int:
    """VmHWM, pages of mapped files included."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def figures(machine: Machine, job: str, watch: Watch) -> dict[str, Any]:
    run = machine.run_dir(job)
    steps, evaluations = ledger(run, "step"), ledger(run, "evaluation")
    seconds = sorted(row["seconds"] for row in steps)
    return {
        "plan": watch.plan,
        "state_seconds": {state: round(spent, 1) for state, spent in watch.seconds.items()},
        "host_peak_gib": watch.host_peak_bytes / (1 << 30),
        "device_peak_mib": watch.device_peak_mib,
        "seconds_per_step": seconds[len(seconds) // 2],
        "killed_at": watch.killed_at,
        "steps": [row["step"] for row in steps] == list(range(1, len(steps) + 1)) and len(steps),
        "losses": [steps[0]["loss"], steps[-1]["loss"]],
        "evaluations": [[row["step"], row["loss"]] for row in evaluations],
        "events": [[row["step"], row["event"], row.get("text", "")] for row in ledger(run, "event")],
    }


if __name__ == "__main__":
    main()
