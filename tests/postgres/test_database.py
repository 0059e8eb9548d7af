"""A queue in PostgreSQL: what its columns hold, and each thing that can be wrong with its address as one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runner.errors import HomeUnusable, JobExists, QueueUnavailable, RunnerError
from runner.queue import attempts, checkpoints, jobs, ledger
from runner.queue.database import Queue, open_queue
from runner.queue.moving import copy_queue
from runner.settings import Server
from tests.postgres_server import PASSWORD, PostgresServer, free_port
from tests.unit.runner.conftest import CORPUS, job_spec


def opened(url: str) -> Queue:
    return open_queue(Server(url=url, home="here"))


def test_times_sizes_and_texts_come_back_as_they_went_in(postgres: PostgresServer) -> None:
    with opened(postgres.new_database()) as queue:
        now = 1_764_380_123.123456
        jobs.add_job(queue, job_spec("a"), [CORPUS], "print", now)
        checkpoints.mark_durable(queue, "a", 200, manifest_sha256="x", size=30 << 30, now=now)
        ledger.add_event(queue, now, "odd", "a\0b")
        ledger.import_ledger(queue, "a", [{"kind": "step", "step": 1, "loss": float("nan")}], now, from_start=True)

        (one,) = checkpoints.list_checkpoints(queue, "a")
        assert (one.size, one.durable_at, jobs.get_job(queue, "a").created_at) == (30 << 30, now, now)
        assert ledger.list_events(queue)[-1].text == "a\ufffdb"
        assert str(ledger.list_metrics(queue, "a")[0].loss) == "nan"


def test_a_server_that_is_away_is_one_sentence_without_the_password(postgres: PostgresServer) -> None:
    url = f"postgresql+psycopg://wake:{PASSWORD}@127.0.0.1:{free_port()}/queue"
    with pytest.raises(QueueUnavailable) as told:
        opened(url)

    said = str(told.value)
    assert "refused" in said
    assert "claims wait" in said
    assert PASSWORD not in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("wake:", "anna:"), "authentication failed"),
        (("/queue", "/nowhere/queue"), "does not exist"),
    ],
)
def test_a_wrong_user_or_database_is_told(postgres: PostgresServer, change: tuple[str, str], words: str) -> None:
    with pytest.raises(QueueUnavailable, match=words) as told:
        opened(postgres.new_database().replace(*change))
    assert PASSWORD not in str(told.value)


def test_an_address_that_is_none_is_told_without_the_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(RunnerError, match="is no address of a database") as told:
        opened(f"postgresql+psycopg://wake:{PASSWORD}@host:port/queue")
    assert PASSWORD not in str(told.value)


def test_tables_of_another_program_are_left_alone(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    postgres.sql("CREATE TABLE jobs (id int)", url.rsplit("/", 1)[1])

    with pytest.raises(HomeUnusable, match="tables of another program"):
        opened(url)


def test_a_queue_of_a_newer_format_is_refused(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    opened(url).close()
    postgres.sql("UPDATE wake2vec_queue SET format = 99", url.rsplit("/", 1)[1])

    with pytest.raises(HomeUnusable, match="newer wake2vec-runner"):
        opened(url)


def test_a_server_that_stops_and_comes_back_loses_nothing(postgres: PostgresServer) -> None:
    with opened(postgres.new_database()) as queue:
        jobs.add_job(queue, job_spec("a"), [CORPUS], "print", 1.0)
        postgres.stop()
        for _ in range(2):
            with pytest.raises(QueueUnavailable):
                jobs.list_jobs(queue)
        postgres.start()

        assert [job.name for job in jobs.list_jobs(queue)] == ["a"]
        jobs.add_job(queue, job_spec("b"), [CORPUS], "other", 1.0)


def test_without_the_package_the_remedy_is_named(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["psycopg"] = None
from runner.cli import main
main(["status", "--once"])
"""
    environment = {"WAKE2VEC_HOME": str(tmp_path), "WAKE2VEC_DB": f"postgresql://wake:{PASSWORD}@nowhere/queue"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "pip install 'wake2vec-runner[postgres]'" in done.stderr
    assert PASSWORD not in done.stderr + done.stdout


def fill(queue: Queue) -> None:
    for name in ("a", "b"):
        jobs.add_job(queue, job_spec(name), [CORPUS], f"print-{name}", 1.0)
        lines = [{"kind": "step", "step": step, "loss": 1 / step} for step in range(1, 1200)]
        ledger.import_ledger(queue, name, lines, 2.0, from_start=True)
    checkpoints.mark_durable(queue, "a", 200, manifest_sha256="x", size=5, now=3.0)
    attempts.open_session(queue, machine="m", platform="plain", gpu="", started_at=1.0, now=1.0)


def test_a_queue_moves_to_the_server_and_back_whole(postgres: PostgresServer, tmp_path: Path) -> None:
    with (
        open_queue(tmp_path / "old" / "runner.db") as old,
        opened(postgres.new_database()) as shared,
        open_queue(tmp_path / "new" / "runner.db") as new,
    ):
        fill(old)
        assert copy_queue(old, shared, "here", 9.0) == 2
        assert copy_queue(shared, new, "here", 9.0) == 2

        for queue in (shared, new):
            assert jobs.list_jobs(queue) == jobs.list_jobs(old)
            assert ledger.list_metrics(queue, "b") == ledger.list_metrics(old, "b")
            assert ledger.list_events(queue) == ledger.list_events(old)
            assert checkpoints.list_checkpoints(queue, "a") == checkpoints.list_checkpoints(old, "a")
            assert jobs.list_segments(queue, "a") == jobs.list_segments(old, "a")
        ledger.add_event(shared, 9.0, "new", "numbered after those that came")
        assert ledger.list_events(shared)[-1].kind == "new"
        with pytest.raises(JobExists, match="has jobs already"):
            copy_queue(old, shared, "here", 9.0)
