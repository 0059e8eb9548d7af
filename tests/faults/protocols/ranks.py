"""Jobs on several ranks through the real command line: kill any rank, the daemon or all, and move to other counts."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.machine import Machine, job_file

VICTIMS = ("rank 0", "another rank", "the trainer", "the daemon", "all")
SAMPLES = ((2, "samples"), (2, "samples"), (1, "samples"), (4, "samples"))  # cards, and what they are dealt
LAYERS = ((2, "layers"), (2, "layers"), (1, "auto"), (2, "samples"))
PATIENCE_SECONDS = 1800.0  # a busy machine may need many minutes for what takes one at rest


@contextmanager
def two_machines(
    steps: int, of: str = "tiny_p1", a_machine: Callable[..., Machine] = Machine, **changes: Any
) -> Iterator[tuple[Machine, Machine]]:
    """One with a card, where the job has ended, and one with two, where it waits; its sum is fixed on both.

    A P2 trains rows and adapters, behind a short P1.
    """
    root = Path(tempfile.mkdtemp(prefix="wake2vec-ranks-"))
    often = {"checkpoint__every_steps": 20, "evaluate__max_windows": 8, "evaluate__samples": 0, **changes}
    try:
        files = [job_file(root, "rows", of="tiny_p1", train__steps=20, evaluate__every_steps=20, **often)]
        more = {"after": "rows", "lora__train": "lora+rows"} if of == "tiny_p2" else {}
        path = job_file(
            root, "a", of=of, train__steps=steps, train__cards="auto", train__reduction="fixed",
            evaluate__every_steps=max(20, steps // 4), runner__max_attempts=100, **often, **more,
        )  # fmt: skip
        machines = [a_machine(home=root / name, store=root / f"{name}-store") for name in ("uncut", "cut")]
        for machine in machines:
            machine.run("enqueue", *map(str, files if more else ()), str(path))
        machines[0].finish(PATIENCE_SECONDS)
        machines[1].cpu_cards = 2
        yield machines[0], machines[1]
    finally:
        for machine in machines:
            machine.power_cut()
        shutil.rmtree(root, ignore_errors=True)


def others_of(trainer: int) -> list[int]:
    """The ranks beyond the first: children of rank 0 that a spawn made, or, of a fork, a fork."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if not entry.name.isdigit():
                continue
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == trainer:
                command, whose = ((one / "cmdline").read_bytes() for one in (entry, entry.parent / str(parent)))
                found += [int(entry.name)] if b"spawn_main" in command or command == whose else []
    return found


def strike(machine: Machine, victim: str) -> bool:
    """SIGKILL; False when nothing of the kind lives."""
    if victim == "all":
        return machine.power_cut()
    if victim == "the daemon":
        return machine.kill_daemon()
    if victim == "the trainer":
        return machine.kill_trainer()
    pid = machine.trainer_pid()
    chosen = [pid] if victim == "rank 0" else others_of(pid or 0)[:1]
    for one in chosen:
        if one:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
                return True
    return False


def kills_of_ranks(
    kills: int, *, seed: int = 0, steps: int = 400, each: int = 20, of: str = "tiny_p1",
    ways: Sequence[tuple[int, str]] = SAMPLES,
) -> dict[str, Any]:  # fmt: skip
    """In the end every bit must be that of one rank never cut, and no rank may outlive its rank 0."""
    draw, started = random.Random(seed), time.monotonic()
    done, runs, wrong, unstartable = dict.fromkeys(VICTIMS, 0), 0, [], []
    while sum(done.values()) < kills:
        with two_machines(steps, of) as (uncut, machine):
            machine.run("set", "a", f"train.spread={ways[0][1]}")
            for number in range(min(each, kills - sum(done.values()))):
                if not machine.is_alive:
                    machine.start("--until-empty")
                if draw.random() < 0.25:
                    time.sleep(draw.uniform(0.5, 8.0))
                else:
                    machine.wait_for_step("a", machine.step("a") + draw.randrange(1, steps // each), PATIENCE_SECONDS)
                victim = draw.choice(VICTIMS)
                done[victim] += strike(machine, victim)
                if victim == "all":
                    machine.cpu_cards, spread = ways[number % len(ways)]
                    machine.run("set", "a", f"train.spread={spread}")
            try:
                machine.finish(PATIENCE_SECONDS)
            except AssertionError as error:
                unstartable.append(str(error)[-2000:])
                continue
            runs += 1
            if machine.outcome("a") != uncut.outcome("a"):
                wrong.append(f"run {runs}: other bits than one rank that was never cut")
    return {
        "runs": runs,
        "kills": sum(done.values()),
        "by_victim": done,
        "wrong": wrong,
        "unstartable": len(unstartable),
        "errors": unstartable,
        "seed": seed,
        "seconds": time.monotonic() - started,
    }
