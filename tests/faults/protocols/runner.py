"""The protocols behind the runner's guarantees: each tries to break one with real processes and returns its figures."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from runner.context import read_clocks
from runner.daemon.main import Wanted, furnish
from runner.errors import RunnerError
from runner.queue import attempts, jobs
from runner.store.places.directory import DirectoryStore
from runner.store.root import jobs as entries_of
from runner.store.root import open_root
from runner.sync.fetch import fetch_result
from runner.sync.job_in_store import SyncContext
from runner.sync.rebuild import restore
from tests.faults.world import World, expected_weights, fake_spec, wait_until
from wake2vec.contract.failpoints import VARIABLE

PACE = {"seconds_per_step": 0.01, "save_every": 5}
STEPS = {"a": 60, "b": 40}


@contextmanager
def a_world(**numbers: Any) -> Iterator[World]:
    root = Path(tempfile.mkdtemp(prefix="wake2vec-fault-"))
    world = World(root, **numbers)
    try:
        yield world
    finally:
        world.close()
        shutil.rmtree(root, ignore_errors=True)


def two_jobs(world: World, home: str = "home") -> None:
    world.add(fake_spec("a", steps=STEPS["a"]), home=home)
    world.add(fake_spec("b", phase="p2", after="a", steps=STEPS["b"]), home=home)


def jobs_of(store: Path) -> set[str]:
    """The jobs that a home which knows nothing but the store would find."""
    return set(entries_of(open_root(DirectoryStore(store), holder="judge").records)) if store.is_dir() else set()


def faults_of(world: World, home: str = "home", names: dict[str, int] = STEPS) -> list[str]:
    """What differs from a run in which nothing happened; empty when the guarantees hold."""
    found = []
    for name, steps in names.items():
        job = world.job(name, home)
        if str(job.state) != "succeeded":
            found.append(f"{name} is {job.state}: {job.reason}")
            continue
        if world.metrics(name, home) != [(step, 1 / step) for step in range(1, steps + 1)]:
            found.append(f"{name}: the ledger is not one row for each step")
        final = world.run_dir(name, home).final
        if final.is_dir() and world.weights(name, home) != expected_weights(f"print-{name}", steps):
            found.append(f"{name}: other bits than the uncut run's")
    return found or not_confirmed(world, names)


def not_confirmed(world: World, names: dict[str, int]) -> list[str]:
    """What was claimed and a home that knows nothing but the store cannot confirm."""
    judge = f"judge{len(list(world.root.glob('judge*')))}"
    with world.queue(judge) as queue:
        context = SyncContext(daemon=furnish(world.settings(judge), Wanted(), queue))
        restore(context, read_clocks(), lambda text: None)
        return [fault for name, steps in names.items() if (fault := _not_confirmed(world, context, name, steps))]


def _not_confirmed(world: World, context: SyncContext, name: str, steps: int) -> str:
    try:
        fetch_result(context, jobs.get_job(context.daemon.queue, name), "final", read_clocks())
    except RunnerError as error:
        return f"{name}: a fresh home cannot confirm it: {error}"
    there = (context.daemon.run(name).final / "weights.txt").read_text()
    return "" if there == expected_weights(f"print-{name}", steps) else f"{name}: a fresh home has other bits"


def most_repeated(lives: list[Any]) -> int:
    """Most steps that one cut made necessary to take again."""
    gaps = [(one.last_step or 0) - two.first_step for one, two in itertools.pairwise(lives)]
    return max([0, *gaps])


def kill_at_random_instants(kills: int, *, seed: int = 0) -> dict[str, Any]:
    """kill -9 of trainer, daemon or both at random instants; the home is lost now and then."""
    draw = random.Random(seed)
    done, runs, wrong, unstartable, started = 0, 0, [], 0, time.monotonic()
    while done < kills:
        with a_world() as world:
            two_jobs(world)
            home, count = "home", 0
            daemon = world.start(home, told=PACE)
            for _ in range(min(10, kills - done)):
                time.sleep(draw.uniform(0.0, 1.2))
                what = draw.choice(["trainer", "daemon", "both", "home"])
                if daemon.poll() is not None:
                    break
                if what != "daemon":
                    world.kill_trainer(home)
                if what != "trainer":
                    daemon.send_signal(signal.SIGKILL)
                    daemon.wait()
                    world.kill_trainer(home) if what == "home" else None
                    if what == "home" and "b" in jobs_of(world.store):
                        count += 1
                        home = f"home{count}"
                    daemon = world.start(home, told=PACE)
                done += 1
            code = world.wait(daemon, home, seconds=120)
            runs += 1
            unstartable += code != 0
            wrong += [f"run {runs}: {fault}" for fault in faults_of(world, home)]
            if wrong:
                wrong.append(world.output(home)[-2000:])
    return _figures(runs, unstartable, wrong, started, kills=done, seed=seed)


def _figures(runs: int, unstartable: int, wrong: list[str], started: float, **more: Any) -> dict[str, Any]:
    return {
        "runs": runs,
        "unstartable": unstartable,
        "wrong": len(wrong),
        "details": wrong[:10],
        "seconds": round(time.monotonic() - started, 1),
        **more,
    }


def trace(told: dict[str, Any] = PACE) -> list[str]:
    """Every failpoint that a run of both jobs passes, in the order they are met first."""
    with a_world() as world:
        two_jobs(world)
        path = world.root / "trace.txt"
        code = world.run(told=told, environment={VARIABLE: f"trace={path}"})
        assert code == 0, world.output()
        return list(dict.fromkeys(path.read_text().split()))


def kill_at_every_failpoint(hits: tuple[int, ...] = (1, 3), *, stride: int = 1) -> dict[str, Any]:
    """kill -9 exactly there, at the first and a later passing; then go on without. `stride`: at every so manieth."""
    return _at_every_failpoint("kill", hits, stride)


def fail_at_every_failpoint(
    errors: tuple[str, ...] = ("ENOSPC", "EIO"), hits: tuple[int, ...] = (1,)
) -> dict[str, Any]:
    """The disk is full, or broken, exactly there."""
    found = [_at_every_failpoint(error, hits) for error in errors]
    return {
        **found[0],
        "runs": sum(one["runs"] for one in found),
        "unstartable": sum(one["unstartable"] for one in found),
        "wrong": sum(one["wrong"] for one in found),
        "details": [line for one in found for line in one["details"]],
        "seconds": sum(one["seconds"] for one in found),
    }


def _at_every_failpoint(action: str, hits: tuple[int, ...], stride: int = 1) -> dict[str, Any]:
    started, runs, unstartable, wrong = time.monotonic(), 0, 0, []
    places = trace()[::stride]
    for place in places:
        for hit in hits:
            with a_world() as world:
                two_jobs(world)
                daemon = world.start(told=PACE, environment={VARIABLE: f"{place}={action}:{hit}"})
                try:
                    _until_struck(world, daemon)
                except AssertionError as error:
                    raise AssertionError(f"{place}={action}:{hit}: {error}\n{world.output()[-3000:]}") from error
                daemon.kill()
                daemon.wait()
                runs += 1
                unstartable += world.run(told=PACE, seconds=120) != 0
                faults = faults_of(world)
                wrong += [f"{place}={action}:{hit}: {fault}" for fault in faults]
    return _figures(runs, unstartable, wrong, started, places=places)


def _until_struck(world: World, daemon: Any) -> None:
    """Until the daemon is gone, an attempt was lost or failed, or everything is done."""

    def struck() -> bool:
        if daemon.poll() is not None:
            return True
        with world.queue() as queue:
            ended = [one for name in STEPS for one in attempts.list_attempts(queue, name) if one.outcome is not None]
        return any(str(one.outcome) != "completed" for one in ended)

    wait_until(struck, 60, "the failpoint")


def many_cuts(cuts: int, steps: int, *, seed: int = 0) -> dict[str, Any]:
    """One run of `steps` steps, cut so many times at random steps."""
    draw, started = random.Random(seed), time.monotonic()
    at = sorted(draw.sample(range(1, steps), cuts))
    with a_world() as world:
        world.add(fake_spec("a", steps=steps, every=50))
        told = PACE | {"save_every": 3}
        daemon = world.start(told=told)
        for number, step in enumerate(at):
            wait_until(partial(_has_come_to, world, step), 60, f"step {step}")
            if number % 5 == 4:
                daemon.kill()
                daemon.wait()
            world.kill_trainer()
            if number % 5 == 4:
                daemon = world.start(told=told)
        code = world.wait(daemon, seconds=120)
        wrong = faults_of(world, names={"a": steps})
        with world.queue() as queue:
            lives = attempts.list_attempts(queue, "a")
    repeated = most_repeated(lives)
    return _figures(
        1, int(code != 0), wrong, started, cuts=cuts, attempts=len(lives), repeated_steps_max=repeated, seed=seed
    )


def fifty_cuts(seeds: int) -> dict[str, Any]:
    """The same for several seeds."""
    started = time.monotonic()
    found = [many_cuts(50, 500, seed=seed) for seed in range(seeds)]
    wrong = [f"seed {one['seed']}: {line}" for one in found for line in one["details"]]
    unstartable = sum(one["unstartable"] for one in found)
    return _figures(seeds, unstartable, wrong, started, cuts=50 * seeds, seeds=list(range(seeds)))


def soak(seconds: float, *, seed: int = 0) -> dict[str, Any]:
    """One long job under a kill every 5 to 60 s (at most a tenth of the time) and 5 % store faults, without a hand.

    Goodput: the share of all time that went into steps which count, saves and evaluations between them included; a
    run that nobody cuts has nearly 1.
    """
    draw, started = random.Random(seed), time.monotonic()
    pace, kills = 0.1, 0
    steps = max(40, int(0.9 * seconds / pace))
    told = {"seconds_per_step": pace, "save_every": 20, "evaluate_every": 200}
    flaky = {VARIABLE: "sync.publish=EIO:5%,sync.committed=EIO:5%,sync.pruned=EIO:5%"}
    with a_world() as world:
        world.add(fake_spec("a", steps=steps, every=200))
        begun = time.monotonic()
        daemon = world.start(told=told, environment=flaky)
        while str(world.job().state) != "succeeded" and time.monotonic() - begun < 4 * seconds:
            pause = draw.uniform(min(5.0, seconds / 10), min(60.0, seconds / 5))
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=pause)
                continue
            what = draw.choice(["trainer", "daemon", "both"])
            if what != "daemon":
                world.kill_trainer()
            if what != "trainer":
                daemon.kill()
                daemon.wait()
                daemon = world.start(told=told, environment=flaky)
            kills += 1
        wall = time.monotonic() - begun
        code = world.wait(daemon, seconds=60)
        wrong = faults_of(world, names={"a": steps})
        goodput = round(_training_seconds(world) / wall, 3)
        with world.queue() as queue:
            repeated = most_repeated(attempts.list_attempts(queue, "a"))
    return _figures(
        1, int(code != 0), wrong, started,
        kills=kills, steps=steps, goodput=goodput, repeated_steps_max=repeated, manual_actions=0, seed=seed,
    )  # fmt: skip


def _training_seconds(world: World) -> float:
    """What the steps took that count: each from the end of the one before it in its own attempt."""
    rows = [json.loads(line) for line in world.run_dir().metrics.read_text().splitlines()]
    return sum(row["seconds"] for row in rows if row["kind"] == "step")


def _has_come_to(world: World, step: int) -> bool:
    return world.step() >= step or str(world.job().state) == "succeeded"


def run_one(name: str, protocol: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return {"protocol": name, **protocol(), "cpus": os.cpu_count()}
