"""The protocols behind exact resume: real trainers, killed, starved of memory and fed damaged checkpoints."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults import warm
from tests.faults.warm import Work, finish, fork_attempt, kill, outcome, wait_for
from tests.machine import step_reached
from wake2vec.contract.errors import CheckpointCorrupt
from wake2vec.contract.failpoints import VARIABLE
from wake2vec.contract.manifest import CHECKPOINT_FILES, MANIFEST, newest_verified, saved_steps, verify_checkpoint
from wake2vec.contract.rundir import RunDir, read_result

TRACE = "trace.txt"  # the failpoints that the uncut runs pass
STARVED = ("load", "step", "evaluation", "checkpoint")
SMALL: dict[str, dict[str, Any]] = {
    "train": {"steps": 30},
    "checkpoint": {"every_steps": 5, "max_loss_minutes": 0.02},
    "evaluate": {"every_steps": 15, "max_windows": 8, "samples": 0},
}


@contextmanager
def bench(*, p2: bool = True, **changes: dict[str, Any]) -> Iterator[dict[str, Work]]:
    """P1 and P2 of the tiny model, both with an uncut reference run under `uncut-p1` and `uncut-p2`; or P1 alone."""
    warm.warm_up()
    root = Path(tempfile.mkdtemp(prefix="wake2vec-trainer-"))
    traced = {VARIABLE: f"trace={root / TRACE}"}
    try:
        works = {"p1": Work.of("tiny_p1.toml", root, **(SMALL | changes))}
        assert finish(works["p1"], "uncut-p1", traced), (root / "uncut-p1" / "trainer.log").read_text()[-3000:]
        if p2:
            dropout = {"lora": {"dropout": 0.1}}
            works["p2"] = Work.of("tiny_p2.toml", root, source=root / "uncut-p1", **(SMALL | dropout | changes))
            assert finish(works["p2"], "uncut-p2", traced), (root / "uncut-p2" / "trainer.log").read_text()[-3000:]
        yield works
    finally:
        shutil.rmtree(root, ignore_errors=True)


def kills_of_warm_trainers(kills: int, *, seed: int = 0, each: int = 8) -> dict[str, Any]:
    """kill -9 at random instants of a run; in the end tensors, optimizer, exports and every figure must be the same."""
    draw, started = random.Random(seed), time.monotonic()
    done, runs, unstartable, wrong, most = 0, 0, 0, [], 0
    with bench() as works:
        expected = {name: outcome(RunDir(root=work.root / f"uncut-{name}")) for name, work in works.items()}
        span = _seconds_of(RunDir(root=works["p1"].root / "uncut-p1"))
        while done < kills:
            name = ("p1", "p2")[runs % 2]
            work, run_name = works[name], f"cut-{runs}"
            for _ in range(min(each, kills - done)):
                run = work.order(run_name)
                pid = fork_attempt(run)
                if wait_for(pid, draw.uniform(0.0, 0.7 * span)) is not None:
                    if (ended := read_result(run)) is None or ended.outcome not in ("completed", "yielded"):
                        unstartable += 1
                    break
                kill(pid)
                done += 1
                most = max(most, step_reached(run) - max(saved_steps(run), default=0))
            runs += 1
            if not finish(work, run_name):
                unstartable += 1
            elif outcome(RunDir(root=work.root / run_name)) != expected[name]:
                wrong.append(f"{name} {run_name}")
            shutil.rmtree(work.root / run_name, ignore_errors=True)
    return figures_of(started, runs, unstartable, wrong, kills=done, repeated_steps_max=most, seed=seed)


def many_cuts(seeds: int, *, cuts: int = 50, steps: int = 500) -> dict[str, Any]:
    """One run of `steps` for each seed, P1 and P2 in turn, killed as soon as it comes to each of `cuts` steps."""
    started, wrong, done, most = time.monotonic(), [], 0, 0
    evaluate = {"every_steps": steps // 5, "max_windows": 8, "samples": 0}
    checkpoint = {"every_steps": steps // 10, "max_loss_minutes": 0.02}
    with bench(train={"steps": steps}, evaluate=evaluate, checkpoint=checkpoint) as works:
        expected = {name: outcome(RunDir(root=work.root / f"uncut-{name}")) for name, work in works.items()}
        for seed in range(seeds):
            name = ("p1", "p2")[seed % 2]
            for step in sorted(random.Random(seed).sample(range(1, steps), cuts)):
                run = works[name].order(f"many-{seed}")
                pid = fork_attempt(run)
                if not wait_until_step(pid, run, step):
                    break  # it came to its end first, or never: the outcome tells
                kill(pid)
                done += 1
                most = max(most, step_reached(run) - max(saved_steps(run), default=0))
            if not finish(works[name], f"many-{seed}") or outcome(run) != expected[name]:
                wrong.append(f"seed {seed}: other bits than the uncut {name}")
            shutil.rmtree(run.root, ignore_errors=True)
    return figures_of(
        started, seeds, 0, wrong, cuts=done, steps=steps, repeated_steps_max=most, seeds=list(range(seeds))
    )


def wait_until_step(pid: int, run: RunDir, step: int, *, seconds: float = 120) -> bool:
    """Whether the attempt comes to a step; one that has been there before its last cut is past it once it trains."""
    give_up = time.monotonic() + seconds
    before = run.metrics.stat().st_mtime_ns if run.metrics.is_file() else 0
    while time.monotonic() < give_up:
        if run.metrics.is_file() and run.metrics.stat().st_mtime_ns != before and step_reached(run) >= step:
            return True
        if wait_for(pid, 0.004) is not None:
            return False
    return False


def signals_to_warm_trainers(signals: int, *, seed: int = 0, grace_seconds: float = 60.0) -> dict[str, Any]:
    """SIGTERM, SIGINT and SIGHUP at random instants, also while loading, evaluating and saving."""
    draw, started = random.Random(seed), time.monotonic()
    sent, runs, unstartable, wrong, slowest = 0, 0, 0, [], 0.0
    with bench() as works:
        expected = {name: outcome(RunDir(root=work.root / f"uncut-{name}")) for name, work in works.items()}
        span = _seconds_of(RunDir(root=works["p1"].root / "uncut-p1"))
        while sent < signals:
            name = ("p1", "p2")[runs % 2]
            work, run_name = works[name], f"signalled-{runs}"
            for _ in range(min(6, signals - sent)):
                run = work.order(run_name)
                pid = fork_attempt(run)
                if wait_for(pid, draw.uniform(0.05, 0.7 * span)) is not None:
                    break
                os.kill(pid, draw.choice((signal.SIGTERM, signal.SIGINT, signal.SIGHUP)))
                sent += 1
                asked = time.monotonic()
                code = wait_for(pid, grace_seconds)
                slowest = max(slowest, time.monotonic() - asked)
                if code is None:
                    kill(pid)
                ended = read_result(run)
                saved = max(saved_steps(run), default=0)
                # Before it listens, a signal ends the process as it ends any other: nothing was trained yet.
                if code is None or (code == 0 and (ended is None or ended.step != saved)):
                    wrong.append(f"{run_name}: {code} {ended}")
            runs += 1
            if not finish(work, run_name):
                unstartable += 1
            elif outcome(RunDir(root=work.root / run_name)) != expected[name]:
                wrong.append(f"{name} {run_name}")
            shutil.rmtree(work.root / run_name, ignore_errors=True)
    return figures_of(started, runs, unstartable, wrong, signals=sent, slowest_seconds=round(slowest, 1), seed=seed)


def _seconds_of(run: RunDir) -> float:
    """From its order to its result."""
    return run.result.stat().st_mtime - run.order.stat().st_mtime


def figures_of(started: float, runs: int, unstartable: int, wrong: list[str], **more: Any) -> dict[str, Any]:
    return {
        "runs": runs,
        "unstartable": unstartable,
        "wrong": len(wrong),
        "details": wrong[:10],
        "seconds": round(time.monotonic() - started, 1),
        **more,
    }


def trainer_failpoints(works: dict[str, Work], only: str = "") -> list[str]:
    """Names of the failpoints that the uncut runs have passed; `only` those of one kind."""
    passed = (works["p1"].root / TRACE).read_text().split()
    return [name for name in dict.fromkeys(passed) if name.startswith(only)]


def kills_at_failpoints(*, hits: Sequence[int] = (1, 2), only: str = "") -> dict[str, Any]:
    """kill -9 of the real trainer exactly at each of its failpoints."""
    started, runs, unstartable, wrong = time.monotonic(), 0, 0, []
    with bench(train={"steps": 12}) as works:  # two evaluations, three milestones
        expected = {name: outcome(RunDir(root=work.root / f"uncut-{name}")) for name, work in works.items()}
        places = trainer_failpoints(works, only)
        for place, hit, (name, work) in itertools.product(places, hits, works.items()):
            run_name = f"{place}-{hit}-{name}"
            pid = fork_attempt(work.order(run_name), {VARIABLE: f"{place}=kill:{hit}"})
            if wait_for(pid, 120) is None:
                kill(pid)
            runs += 1
            if not finish(work, run_name):
                unstartable += 1
                wrong.append(f"unstartable: {run_name}")
            elif outcome(RunDir(root=work.root / run_name)) != expected[name]:
                wrong.append(run_name)
            shutil.rmtree(work.root / run_name, ignore_errors=True)
    return figures_of(started, runs, unstartable, wrong, places=places)


def out_of_memory(
    *,
    steps: int = 30,
    hits: Sequence[int] = (1, 15, 30),
    in_a_row: Sequence[int] = (1, 2),
    smallest: bool = False,
    only: str = "",
) -> dict[str, Any]:
    """MemoryError in load, forward, backward, clip, optimizer step, evaluation and save, once and twice in a row.

    Each step counts once. Another micro-batch sums in another order, so weights are compared to 1e-6. `smallest`: at
    micro-batch 1 already.
    """
    started, runs, unstartable, wrong, difference, shrunk = time.monotonic(), 0, 0, [], 0.0, 0
    with bench(train={"steps": steps, "micro_batch": 1} if smallest else {"steps": steps}) as works:
        expected = {name: RunDir(root=work.root / f"uncut-{name}") for name, work in works.items()}
        places = [one for one in trainer_failpoints(works, only) if one.split(".")[0] in STARVED]
        for place, hit, row, (name, work) in itertools.product(places, hits, in_a_row, works.items()):
            if place == "load.model" and hit > 1:
                continue  # a process loads once
            run_name = f"oom-{place}-{hit}-{row}-{name}"
            strikes = ",".join(f"{place}=oom:{hit + more}" for more in range(row))
            pid = fork_attempt(work.order(run_name), {VARIABLE: strikes})
            if wait_for(pid, 120) is None:
                kill(pid)
            runs += 1
            found = RunDir(root=work.root / run_name)
            if not (_is_complete(found) or finish(work, run_name)):
                unstartable += 1
                wrong.append(f"unstartable: {run_name}")
                continue
            off = largest_difference(found, expected[name])
            difference, shrunk = max(difference, off), shrunk + _has_shrunk(found)
            taken = [one["step"] for one in warm.ledger(found) if one["kind"] == "step"]
            if off > 1e-6 or taken != list(range(1, steps + 1)):
                wrong.append(f"{run_name}: weights differ by {off:.1e}, steps {len(taken)}")
            if place == "step.forward" and row == 2 and not _has_shrunk(found):
                wrong.append(f"{run_name}: went on without a smaller plan")
            shutil.rmtree(found.root, ignore_errors=True)
    return figures_of(started, runs, unstartable, wrong, largest_difference=difference, smaller_plans=shrunk)


def _is_complete(run: RunDir) -> bool:
    result = read_result(run)
    return result is not None and result.outcome == "completed"


def _has_shrunk(run: RunDir) -> bool:
    """Whether the ledger tells of a rung below the plan of the start."""
    told = [str(row["text"]) for row in warm.ledger(run) if row["kind"] == "event" and row["event"] == "oom"]
    return any("the same plan once more" not in text for text in told)


def largest_difference(one: RunDir, other: RunDir) -> float:
    from safetensors.torch import load_file

    folders = [run.checkpoint(max(saved_steps(run))) for run in (one, other)]
    first, second = (load_file(folder / "trainable.safetensors") for folder in folders)
    return max(float((first[name] - second[name]).abs().max()) for name in second)


def damaged_checkpoints(flips: int, *, seed: int = 0) -> dict[str, Any]:
    """Truncations, single bit flips, deletions and swaps of every file: always found, always named, never loaded."""
    draw, started = random.Random(seed), time.monotonic()
    tried, missed, unnamed = 0, [], []
    with bench(p2=False) as works:
        origin = RunDir(root=works["p1"].root / "uncut-p1")
        newest, before = saved_steps(origin)[:2]
        print_of = works["p1"].order("probe")
        order_print = verify_checkpoint(origin.checkpoint(newest)).fingerprint
        for file in (*CHECKPOINT_FILES, MANIFEST):
            for change in _damages(origin, file, newest, before, flips, draw):
                copy = RunDir(root=print_of.root / "copy")
                shutil.rmtree(copy.root, ignore_errors=True)
                for step in (newest, before):
                    shutil.copytree(origin.checkpoint(step), copy.checkpoint(step))
                path = copy.checkpoint(newest) / file
                if not change(path):
                    continue
                tried += 1
                report: list[str] = []
                found = newest_verified(copy, order_print, report)
                if found is None or found[1].step != before:
                    missed.append(f"{file}")
                elif file not in " ".join(report) and path.exists() and file != MANIFEST:
                    unnamed.append(file)
    return figures_of(started, tried, 0, missed, unnamed=len(unnamed), flips_per_file=flips, seed=seed)


def _damages(origin: RunDir, file: str, newest: int, before: int, flips: int, draw: random.Random) -> Iterator[Any]:
    size = (origin.checkpoint(newest) / file).stat().st_size

    def cut(length: int) -> Any:
        return lambda path: os.truncate(path, length) is None and _matters(path, origin.checkpoint(newest) / file)

    def flip(path: Path) -> bool:
        with open(path, "r+b") as handle:
            place = draw.randrange(size)
            handle.seek(place)
            byte = handle.read(1)[0]
            handle.seek(place)
            handle.write(bytes([byte ^ (1 << draw.randrange(8))]))
        return _matters(path, origin.checkpoint(newest) / file)

    def swap(path: Path) -> bool:
        shutil.copy(origin.checkpoint(before) / file, path)
        return True

    for length in (0, 1, size // 2, size - 1, *(draw.randrange(size) for _ in range(max(1, flips // 5)))):
        yield cut(length)
    for _ in range(flips):
        yield flip
    yield lambda path: path.unlink() is None
    yield swap


def _matters(path: Path, original: Path) -> bool:
    """A manifest is read as JSON: white space, or a field that decides nothing, is no damage."""
    if path.name != MANIFEST:
        return True
    try:
        here, there = verify_checkpoint(path.parent), verify_checkpoint(original.parent)
    except CheckpointCorrupt:
        return True
    return (here.files, here.step, here.fingerprint) != (there.files, there.step, there.fingerprint)


def kills_through_the_command_line(kills: int, *, seed: int = 0) -> dict[str, Any]:
    """kill -9 of trainer, daemon or both, cold processes of the real command line."""
    from tests.machine import Machine, job_file

    draw, started = random.Random(seed), time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="wake2vec-cold-"))
    done, runs, unstartable, wrong = 0, 0, 0, []
    changes: dict[str, Any] = {
        "train__steps": 60, "checkpoint__every_steps": 10, "checkpoint__max_loss_minutes": 0.02,
        "evaluate__every_steps": 20, "evaluate__max_windows": 8, "evaluate__samples": 0,
    }  # fmt: skip
    try:
        files = [
            str(job_file(root, "p1", of="tiny_p1", **changes)),
            str(job_file(root, "p2", of="tiny_p2", after="p1", **changes)),
        ]
        uncut = Machine(home=root / "uncut", store=root / "uncut-store")
        uncut.run("enqueue", *files)
        uncut.finish()
        while done < kills:
            machine = Machine(home=root / f"cut{runs}", store=root / f"store{runs}")
            machine.run("enqueue", *files)
            for _ in range(min(10, kills - done)):
                if machine.daemon is None or machine.daemon.poll() is not None:
                    machine.start("--until-empty")
                time.sleep(draw.uniform(0.5, 7.0))
                done += draw.choice((machine.kill_trainer, machine.kill_daemon, machine.power_cut))()
            runs += 1
            try:
                machine.finish()
            except AssertionError as error:
                unstartable += 1
                wrong.append(str(error)[-500:])
                continue
            wrong += [f"run {runs}: {job}" for job in ("p1", "p2") if machine.outcome(job) != uncut.outcome(job)]
            try:
                fresh = Machine(home=root / f"fresh{runs}", store=machine.store)
                for job in ("p1", "p2"):
                    fresh.run("export", job, "--to", str(root / f"{job}-{runs}"))
            except AssertionError as error:
                wrong.append(f"run {runs}: a fresh home cannot confirm it: {str(error)[-500:]}")
            shutil.rmtree(machine.home, ignore_errors=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return figures_of(started, runs, unstartable, wrong, kills=done, seed=seed)
