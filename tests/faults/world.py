"""A small world for fault tests: homes, a store, jobs, daemons and trainers as real processes, and an oracle."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from runner.machine.launcher import end_group
from runner.queue import checkpoints, jobs, ledger
from runner.queue.database import open_queue
from runner.settings import Numbers, Settings, read_settings
from wake2vec.contract.files import read_json, write_atomic
from wake2vec.contract.lock import read_lock
from wake2vec.contract.order import InputFile
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.spec import JOB_SPEC

ROOT = Path(__file__).resolve().parents[2]
FAKE = [sys.executable, str(ROOT / "tests" / "fake_trainer.py")]
TEXT = b"riverrun, past Eve and Adam's, from swerve of shore to bend of bay\n"
DRIVER = """
import faulthandler
import os
import sys
import time
from pathlib import Path
from runner.daemon.main import Wanted, run_daemon
from runner.errors import RunnerError
from runner.settings import read_settings
faulthandler.enable()
if host := os.environ.get("AS_HOST"):  # another one than this
    import platform
    platform.node = lambda: host
if ahead := os.environ.get("CLOCK_AHEAD"):  # in seconds
    true = time.time
    time.time = lambda: true() + float(ahead)
if shadow := os.environ.get("FORGETFUL_DISK"):
    from tests.faults import power
    power.install(Path(sys.argv[2].removeprefix("dir:")), Path(shadow))
try:
    sys.exit(run_daemon(read_settings(Path(sys.argv[1]), sys.argv[2]), Wanted(until_empty="-e" in sys.argv)))
except RunnerError as error:
    print("error:", error)
    sys.exit(error.exit_code)
"""
PATIENCE_SECONDS = 240.0  # nothing here is timed: a busy machine may need minutes for what takes a second at rest
QUICK = {
    "tick_seconds": 0.05,
    "sync_seconds": 0.05,
    "grace_seconds": 15.0,
    "backoff_first_seconds": 0.05,
    "backoff_last_seconds": 0.2,
    "lease_seconds": 4.0,  # a daemon that gets no turn for so long is taken for dead
}


def fake_spec(name="a", *, steps=60, every=20, phase="p1", **extra):
    table = {
        "name": name,
        "phase": phase,
        "model": {"base": "tiny"},
        "data": {"corpus": "text.txt"},
        "train": {"steps": steps, "lr": 1e-3},
        "checkpoint": {"every_steps": every},
    }
    if phase == "p1":
        table["vocab"] = {"lexicon": "words.txt"}
    return JOB_SPEC.validate_python(table | extra)


def expected_weights(fingerprint, steps):
    """What the fake trainer ends with when every step is taken exactly once."""
    weights = fingerprint
    for step in range(1, steps + 1):
        weights = hashlib.sha256(f"{weights}{step}".encode()).hexdigest()
    return weights


class World:
    """Homes that share one store below `root`."""

    def __init__(self, root, *, trainer=FAKE, url=None, queue_url=None, **numbers):
        self.root = Path(root)
        self.store = self.root / "store"
        self.url = url or f"dir:{self.store}"
        self.command = trainer
        self.variables = {"WAKE2VEC_DB": queue_url} if queue_url else {}
        self.numbers = QUICK | numbers
        self.daemons = []

    def home(self, name="home"):
        home = self.root / name
        home.mkdir(parents=True, exist_ok=True)
        lines = [f"{key} = {json.dumps(value)}" for key, value in (self.numbers | {"trainer": self.command}).items()]
        if not (home / "settings.toml").exists() or not self.daemons:  # never while a daemon may read it
            write_atomic(home / "settings.toml", ("\n".join(lines) + "\n").encode())
        return home

    def settings(self, name="home"):
        return read_settings(self.home(name), self.url, self.variables)

    def add(self, spec, *, fingerprint=None, home="home", told=None):
        settings = self.settings(home)
        digest = hashlib.sha256(TEXT).hexdigest()
        settings.inputs.mkdir(parents=True, exist_ok=True)
        (settings.inputs / digest).write_bytes(TEXT)
        item = InputFile(role="corpus", name="text.txt", sha256=digest, size=len(TEXT))
        with self.queue(home) as queue:
            job = jobs.add_job(queue, spec, [item], fingerprint or f"print-{spec.name}", time.time())
        if told:
            run = settings.runs / spec.name
            run.mkdir(parents=True)
            (run / "fake.json").write_text(json.dumps(told))
        return job

    @contextmanager
    def queue(self, home="home"):
        queue = open_queue(self.settings(home).database)
        try:
            yield queue
        finally:
            queue.close()

    def start(self, home="home", *, until_empty=True, environment=None, told=None):
        """A daemon in a process of its own; its output goes to `<home>/out.txt`."""
        command = [sys.executable, "-c", DRIVER, str(self.home(home)), self.url, *(["-e"] * until_empty)]
        variables = os.environ | self.variables | {"FAKE_TRAINER": json.dumps(told or {})} | (environment or {})
        with open(self.root / home / "out.txt", "ab") as out:
            daemon = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=variables, start_new_session=True)
        self.daemons.append(daemon)
        return daemon

    def run(self, home="home", *, seconds=PATIENCE_SECONDS, environment=None, told=None):
        """Run a daemon until nothing is left to do; returns its exit code."""
        return self.wait(self.start(home, environment=environment, told=told), home, seconds=seconds)

    def wait(self, daemon, home="home", *, seconds=PATIENCE_SECONDS):
        """The exit code of a daemon; one that does not end shows where its threads stand."""
        try:
            return daemon.wait(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            daemon.send_signal(signal.SIGABRT)
            daemon.wait()
            log = "".join(path.read_text() for path in (self.root / home / "runs").glob("*/trainer.log"))
            raise AssertionError(f"a daemon does not end:\n{self.output(home)[-6000:]}\n{log[-1500:]}") from error

    def output(self, home="home"):
        return (self.root / home / "out.txt").read_text(errors="replace")

    def run_dir(self, job="a", home="home"):
        return RunDir(root=self.root / home / "runs" / job)

    def trainer(self, home="home"):
        """pid of the trainer that lives in this home."""
        holder = read_lock(self.root / home / "locks" / "gpu0.lock")
        return int(holder["pid"]) if holder and holder.get("pid") else None

    def kill_trainer(self, home="home"):
        if pid := self.trainer(home):
            end_group(pid, signal.SIGKILL)

    def job(self, name="a", home="home"):
        with self.queue(home) as queue:
            return jobs.get_job(queue, name)

    def durable_step(self, name="a", home="home"):
        with self.queue(home) as queue:
            return checkpoints.durable_step(queue, name) or 0

    def step(self, name="a", home="home"):
        heartbeat = read_json(self.run_dir(name, home).heartbeat)
        return heartbeat["step"] if heartbeat else 0

    def metrics(self, name="a", home="home"):
        with self.queue(home) as queue:
            return [(row.step, row.loss) for row in ledger.list_metrics(queue, name)]

    def events(self, home="home", job=None):
        with self.queue(home) as queue:
            return [event.text for event in ledger.list_events(queue, job=job, limit=1000)]

    def weights(self, name="a", home="home"):
        return (self.run_dir(name, home).final / "weights.txt").read_text()

    def close(self):
        for daemon in self.daemons:
            with suppress(ProcessLookupError):
                daemon.kill()
            daemon.wait()
        for home in (place for place in self.root.iterdir() if (place / "locks").is_dir()):
            self.kill_trainer(home.name)


def wait_until(condition, seconds=PATIENCE_SECONDS, what="the condition"):
    """Poll; used only where a process of its own must get somewhere."""
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > give_up:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        time.sleep(0.01)
    return found


def assert_whole(world, name="a", steps=60, home="home", fingerprint=None):
    """The job ended as if nothing had happened: same bits, each step once, everything in the store."""
    assert str(world.job(name, home).state) == "succeeded", world.output(home)[-3000:]
    assert [step for step, _ in world.metrics(name, home)] == list(range(1, steps + 1))
    assert world.metrics(name, home) == [(step, 1 / step) for step in range(1, steps + 1)]
    if world.run_dir(name, home).final.is_dir():
        assert world.weights(name, home) == expected_weights(fingerprint or f"print-{name}", steps)


def plain_settings(root):
    return Settings(home=Path(root) / "home", store_url=f"dir:{Path(root) / 'store'}", numbers=Numbers(**QUICK))
