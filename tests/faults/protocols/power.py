"""The protocols behind "saved means saved": power cuts that take back whatever was not fsynced."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.store.open import open_store
from runner.store.publish import fetch_checkpoint
from runner.store.records import commits
from runner.store.root import jobs as entries_of
from runner.store.root import open_job, open_root
from tests.faults import power
from tests.faults.protocols.runner import PACE, STEPS, a_world, faults_of, two_jobs
from tests.faults.protocols.trainer import bench, figures_of
from tests.faults.warm import Work, finish, fork_attempt, kill, outcome, wait_for
from tests.faults.world import World
from wake2vec.contract.errors import Wake2vecError
from wake2vec.contract.files import read_json
from wake2vec.contract.manifest import newest_verified
from wake2vec.contract.rundir import RunDir, read_result


def power_cuts_of_trainers(cuts: int, *, seed: int = 0, each: int = 6) -> dict[str, Any]:
    """What was announced as saved must verify after each cut, and the job end in the same bits."""
    draw, started = random.Random(seed), time.monotonic()
    done, runs, unstartable, wrong = 0, 0, 0, []
    with bench(p2=cuts > each) as works:
        expected = {name: outcome(RunDir(root=work.root / f"uncut-{name}")) for name, work in works.items()}
        while done < cuts:
            name = list(works)[runs % len(works)]
            work, run_name = works[name], f"dark-{runs}"
            for _ in range(min(each, cuts - done)):
                wrong += _cut_power(work, run_name, draw)
                done += 1
                if is_complete(RunDir(root=work.root / run_name)):
                    break
            runs += 1
            if not is_complete(RunDir(root=work.root / run_name)) and not finish(work, run_name):
                unstartable += 1
                wrong.append(f"unstartable: {run_name}: {_last_words(work.root / run_name)}")
            elif outcome(RunDir(root=work.root / run_name)) != expected[name]:
                wrong.append(f"{name} {run_name}: other bits")
            shutil.rmtree(work.root / run_name, ignore_errors=True)
    return figures_of(started, runs, unstartable, wrong, cuts=done, seed=seed)


def _cut_power(work: Work, name: str, draw: random.Random) -> list[str]:
    run, shadow = work.order(name), work.root / f"{name}.shadow"
    power.remember(run.root, shadow)
    pid = fork_attempt(run, before=partial(power.install, run.root, shadow))
    if wait_for(pid, draw.uniform(0.3, 4.0)) is None:
        kill(pid)
    promised = (read_json(run.heartbeat) or {}).get("saved_step") or 0
    power.lose_power(run.root, shadow, draw)
    report: list[str] = []
    found = newest_verified(run, read_json(run.order)["fingerprint"], report)
    kept = found[1].step if found else 0
    return [f"{name}: {promised} was saved, {kept} is left: {report}"] if kept < promised else []


def power_cuts_of_stores(cuts: int, *, seed: int = 0, each: int = 8) -> dict[str, Any]:
    """The folder of a dir: store on a disk that forgets: what the queue calls durable is whole in it after each cut."""
    draw, started = random.Random(seed), time.monotonic()
    done, runs, unstartable, wrong = 0, 0, 0, []
    while done < cuts:
        with a_world() as world:
            two_jobs(world)
            shadow = world.root / "shadow"
            world.store.mkdir()
            for _ in range(min(each, cuts - done)):
                power.remember(world.store, shadow)
                daemon = world.start(told=PACE, environment={"FORGETFUL_DISK": str(shadow)})
                time.sleep(draw.uniform(0.8, 2.5))
                daemon.kill()
                daemon.wait()
                world.kill_trainer()
                power.lose_power(world.store, shadow, draw)
                wrong += [f"run {runs}: {job}: {fault}" for job in STEPS for fault in _lost_from_store(world, job)]
                done += 1
            runs += 1
            unstartable += world.run("other", told=PACE, seconds=120) != 0
            wrong += [f"run {runs}: {fault}" for fault in faults_of(world, "other")]
    return figures_of(started, runs, unstartable, wrong, cuts=done, seed=seed)


def _lost_from_store(world: World, job: str) -> list[str]:
    """What the home knows to be durable, and the store no longer has."""
    step = world.durable_step(job)
    if not step:
        return []
    settings = world.settings()
    root = open_root(open_store(settings.store_url, settings.home), holder="judge")
    entry = entries_of(root.records).get(job)
    found = [one for one in commits(open_job(root, entry).records) if one.commit.step == step] if entry else []
    if not found:
        return [f"{step} was durable, and the log does not know it"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            fetch_checkpoint(root.store, found[-1], Path(folder))
        except (RunnerError, Wake2vecError) as error:
            return [f"{step} was durable: {error}"]
    return []


def is_complete(run: RunDir) -> bool:
    result = read_result(run)
    return result is not None and result.outcome == "completed"


def _last_words(run: Path) -> str:
    log = run / "trainer.log"
    return log.read_text(errors="replace")[-1500:] if log.is_file() else "no log"
