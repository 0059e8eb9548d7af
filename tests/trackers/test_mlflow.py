"""MLflow's own server, with a database: every step once, whatever is cut, on either side."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.track.telling import AGAIN_SECONDS, Telling
from tests.trackers.told import Home, make_home

pytest.importorskip("mlflow", reason="needs mlflow, which `make test-trackers` installs")


@dataclass
class Server:
    """It can go away, and come back with what it held."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db",
                 "--artifacts-destination", str(self.folder / "artifacts"), "--host", "127.0.0.1",
                 "--port", str(self.port), "--workers", "1"],
                stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        give_up = time.monotonic() + 180
        while not self.is_up():
            assert time.monotonic() < give_up, (self.folder / "server.log").read_text()[-4000:]
            time.sleep(0.2)

    def is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def count(self) -> int:
        with closing(sqlite3.connect(self.folder / "mlflow.db")) as database:
            return int(database.execute("select count(*) from metrics").fetchone()[0])

    def rows(self, job: str, curve: str) -> list[tuple[int, float]]:
        from mlflow import MlflowClient

        client = MlflowClient(self.url)
        experiment = client.get_experiment_by_name("wake2vec")
        (run,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{job}'")
        return [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, curve)]

    def steps(self, job: str, curve: str = "train/loss") -> list[int]:
        return [step for step, _ in self.rows(job, curve)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = Server(tmp_path_factory.mktemp("mlflow"), free.getsockname()[1])
    server.start()
    yield server
    server.stop()


@pytest.fixture
def home(running: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Home]:
    """Its jobs have names of their own, since the server is shared."""
    here = {"MLFLOW_TRACKING_URI": running.url, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    home = make_home(tmp_path / "home", "mlflow", here, jobs=(f"a-{request.node.name}", f"b-{request.node.name}"))
    yield home
    home.queue.close()


def test_sessions_that_were_cut_make_one_curve(home: Home, running: Server) -> None:
    a, _ = home.jobs
    for number, seconds in enumerate([0.0, 0.02, 0.2]):
        home.train(a, range(1, 700 * (number + 1)), [20 * (number + 1)])
        child = home.telling(a)
        began = running.count()
        while child.poll() is None and running.count() == began:
            time.sleep(0.01)
        time.sleep(seconds)
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
    home.train(a, range(2000, 2201), [2200])

    assert f"{a}: mlflow knows it to step 2,200" in home.tell(a)
    assert "before: 2,200" in home.tell(a)

    assert running.rows(a, "train/loss") == [(step, 1 / step) for step in range(1, 2201)]
    assert running.steps(a, "eval/loss") == [20, 40, 60, 2200]


def test_jobs_have_a_run_each(home: Home, running: Server) -> None:
    a, b = home.jobs
    home.train(a, range(1, 4))
    home.train(b, range(1, 3))

    home.tell(a, b)

    assert (running.steps(a), running.steps(b)) == ([1, 2, 3], [1, 2])


def test_what_a_server_that_went_away_missed_is_told_when_it_is_back(
    home: Home, running: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    a, _ = home.jobs
    said: list[str] = []
    teller = Telling(home.settings, said.append)
    home.train(a, range(1, 6), [5])
    teller.look(home.queue, 0.0)

    running.stop()
    home.train(a, range(4, 11), [10])
    teller.look(home.queue, 1.0)
    mine = [line for line in said if line.startswith(f"{a}:")]
    assert len(mine) == 1
    assert f"{a}: mlflow does not take what it is told" in mine[0]
    assert f"error: {a}: mlflow does not take what it is told" in home.tell(a, expect=1)

    running.start()
    teller.look(home.queue, 1.0 + AGAIN_SECONDS)
    teller.close()

    assert any(f"{a}: mlflow is told again" in line for line in said)
    assert running.steps(a) == list(range(1, 11))
    assert running.steps(a, "eval/loss") == [5, 10]


def test_without_an_address_a_database_of_the_home_is_told(home: Home) -> None:
    a, _ = home.jobs
    home.environment["MLFLOW_TRACKING_URI"] = ""
    home.train(a, [1, 2])

    said = home.tell(a)

    database = home.settings.home / "track" / "mlflow.db"
    assert f"mlflow server --backend-store-uri sqlite:///{database}" in said
    with closing(sqlite3.connect(database)) as kept:
        rows = kept.execute("select step from metrics where key = 'train/loss' order by step").fetchall()
    assert rows == [(1,), (2,)]
    assert not list(Path.cwd().glob("mlruns")) + list(Path.cwd().glob("mlflow.db"))
