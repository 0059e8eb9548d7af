"""A Hypothesis state machine over queue, lease and commit: two homes, one store, and whatever can happen to them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from runner.errors import RunnerError
from runner.queue import checkpoints, jobs, ledger
from runner.settings import Numbers
from runner.states import State, Wish
from runner.store.records import is_done
from runner.store.root import jobs as entries_of
from runner.store.root import open_job, open_root
from tests.faults.apart import run_apart
from tests.faults.protocols.claims import claims, judge
from tests.faults.world import fake_spec
from tests.simulated import Clock, Home, open_attempts

STEPS = 12
FAST = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
homes = st.integers(0, 1)


class QueueLeaseCommit(RuleBasedStateMachine):
    """Homes tick, sync, freeze and die in any order; the log of the job must stay what the design says."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="wake2vec-machine-", dir=FAST))
        self.clock = Clock()
        self.homes: list[Home] = []

    @initialize(names=st.sampled_from([("a",), ("a", "b")]))
    def begin(self, names: tuple[str, ...]) -> None:
        numbers = Numbers(backoff_first_seconds=2.0, backoff_last_seconds=8.0, lease_seconds=60.0)
        for number in range(2):
            self.homes.append(Home.new(self.root / f"home{number}", self.root / "store", self.clock, numbers=numbers))
        for name in names:
            self.homes[0].add(fake_spec(name, steps=STEPS, every=4, runner={"max_attempts": 100}))
        self.homes[0].sync()
        self.homes[1].kill_daemon()

    @rule(home=homes)
    def tick(self, home: int) -> None:
        self.homes[home].tick()

    @rule(home=homes)
    def sync(self, home: int) -> None:
        self.homes[home].sync()

    @rule(home=homes, seconds=st.sampled_from([1.0, 5.0]))
    def round(self, home: int, seconds: float) -> None:
        self.homes[home].rounds(2, seconds=seconds)

    @rule(home=homes, steps=st.integers(0, 4))
    def works_alone(self, home: int, steps: int) -> None:
        """Long enough to take the job over; the other home is frozen meanwhile, its trainer is not."""
        for _ in range(7):
            self.homes[home].rounds(1, seconds=12.0)
            self.homes[home].obey()
        if steps and self.homes[home].trainers.living:
            self.homes[home].train(steps)
            self.homes[home].sync()

    @rule(seconds=st.sampled_from([0.5, 3.0, 30.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.monotonic += seconds

    @rule(seconds=st.sampled_from([-86_400.0, 86_400.0]))
    def clock_jumps(self, seconds: float) -> None:
        self.clock.offset += seconds

    @rule(home=homes, steps=st.integers(1, 5), save=st.booleans())
    def train(self, home: int, steps: int, save: bool) -> None:
        if self.homes[home].trainers.living:
            self.homes[home].train(steps, save=save)

    @rule(home=homes)
    def obey(self, home: int) -> None:
        self.homes[home].obey()

    @rule(home=homes)
    def trainer_dies(self, home: int) -> None:
        if self.homes[home].trainers.living:
            self.homes[home].end_trainer(None)

    @rule(home=homes)
    def daemon_dies(self, home: int) -> None:
        self.homes[home].kill_daemon()

    @precondition(lambda self: len(str(self.homes[0].folder)) < 90)
    @rule(home=homes)
    def home_is_lost(self, home: int) -> None:
        self.homes[home].lose(take_over=False)

    @rule(home=homes, wish=st.sampled_from(["hold", "cancel", "release", "retry"]))
    def wish(self, home: int, wish: str) -> None:
        queue, now = self.homes[home].queue, self.clock.now
        try:
            if wish in ("release", "retry"):
                {"release": jobs.release, "retry": jobs.retry}[wish](queue, "a", now)
            else:
                jobs.set_wish(queue, "a", Wish(wish), now)
        except RunnerError:
            pass  # the state does not allow it, or the home does not know the job

    @invariant()
    def logs_are_sound(self) -> None:
        if self.homes:
            for name, records in logs(self.homes[0]).items():
                check_log(name, records)

    @invariant()
    def one_attempt_a_card_and_one_row_a_step(self) -> None:
        for home in self.homes:
            assert len(open_attempts(home.queue)) <= 1
            for job in jobs.list_jobs(home.queue):
                steps = [row.step for row in ledger.list_metrics(home.queue, job.name)]
                assert steps == list(range(1, len(steps) + 1)), steps
                check_durable(home, job.name)

    def teardown(self) -> None:
        try:
            if self.homes:
                self.goes_on_to_the_end()
        finally:
            for home in self.homes:
                home.queue.close()
            shutil.rmtree(self.root, ignore_errors=True)

    def goes_on_to_the_end(self) -> None:
        """Whatever happened, one living home brings every job that nobody holds to its end."""
        home = self.homes[0]
        home.kill_daemon()
        for _ in range(80):
            waiting = [job for job in jobs.list_jobs(home.queue) if job.state in (State.QUEUED, State.RUNNING)]
            if not waiting:
                break
            home.rounds(1, seconds=10.0)
            home.obey()
            if home.trainers.living:
                home.train(6)
        else:
            raise AssertionError([(job.name, str(job.state), job.reason, home.problem(job.name)) for job in waiting])
        for job in jobs.list_jobs(home.queue):
            if job.state is State.SUCCEEDED:
                assert is_done(logs(home)[job.name])
        home.leave()
        self.a_new_home_confirms(home)

    def a_new_home_confirms(self, home: Home) -> None:
        """Every durable step, result and exit code 0 that is claimed, by one that knows nothing but the store."""
        said = claims(home)
        fresh = Home.new(self.root / "judge", self.root / "store", self.clock)
        try:
            faults = [fault for name, step in said.items() if (fault := judge(fresh, name, step))]
        finally:
            fresh.queue.close()
        assert not faults, faults


def logs(home: Home) -> dict[str, list[Any]]:
    root = open_root(home.store, holder="judge")
    return {name: open_job(root, entry).records for name, entry in entries_of(root.records).items()}


def check_log(name: str, records: list[Any]) -> None:
    """Epochs only grow, a commit is its lease holder's, nothing follows DONE."""
    epoch, holder, released = 0, "", True
    for record in records:
        assert not any(one.kind == "DONE" for one in records[: records.index(record)]), f"{name}: goes on after DONE"
        if record.kind == "LEASE":
            assert record.epoch == epoch + 1, f"{name}: epoch {record.epoch} after {epoch}"
            epoch, holder, released = record.epoch, record.holder, False
        elif record.kind in ("COMMIT", "REGIME", "RELEASE", "DONE"):
            assert (record.epoch, record.holder) == (epoch, holder), f"{name}: {record.kind} by {record.holder}"
            assert not released, f"{name}: {record.kind} after RELEASE"
            released = record.kind == "RELEASE"


def check_durable(home: Home, name: str) -> None:
    """What a home calls durable can be had from the store, as long as no other home has pruned it."""
    step = checkpoints.durable_step(home.queue, name)
    if step is not None:
        found = [one for one in logs(home)[name] if one.kind == "COMMIT" and one.commit.step == step]
        assert found, f"{name}: durable at {step}, but the log has no such COMMIT"


def state_machines(examples: int, *, steps: int = 12) -> dict[str, Any]:
    """The same, shared out to a process for each core; each draws its own examples."""
    workers = min(os.cpu_count() or 1, examples)
    share = partial(run_apart, "queue", "state_machine", examples=-(-examples // workers), steps=steps)
    with ThreadPoolExecutor(workers) as pool:
        found = [one.result() for one in [pool.submit(share) for _ in range(workers)]]
    return found[0] | {
        "runs": sum(one["runs"] for one in found),
        "wrong": sum(one["wrong"] for one in found),
        "details": [line for one in found for line in one["details"]],
    }


def state_machine(examples: int, *, steps: int = 50) -> dict[str, Any]:
    """Run so many examples of up to `steps` rules each."""
    started = time.monotonic()
    wrong: list[str] = []
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    try:
        run_state_machine_as_test(QueueLeaseCommit, settings=chosen)
    except Exception as error:
        wrong.append(repr(error)[-2000:])
    return {
        "runs": examples,
        "unstartable": 0,
        "wrong": len(wrong),
        "details": wrong,
        "steps_each": steps,
        "seconds": round(time.monotonic() - started, 1),
    }
