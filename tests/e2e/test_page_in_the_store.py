"""By choice the report of a job lies in its store too, under one address, as it was at the newest evaluation."""

from __future__ import annotations

from pathlib import Path

from runner.store.drive.store import _media
from tests.machine import JOBS, quick_machine

QUICK = ("--set", "evaluate.hopes=false", "--set", "evaluate.samples=0")


def test_the_page_in_the_store_shows_the_last_evaluation(tmp_path: Path) -> None:
    machine = quick_machine(home=tmp_path / "home", store=tmp_path / "store")
    more = ("--set", "train.steps=28", "--set", "evaluate.every_steps=14")
    machine.run("enqueue", str(JOBS / "tiny_p1.toml"), "--set", "track.page=true", *QUICK, *more)
    machine.run("enqueue", str(JOBS / "tiny_p1.toml"), "--name", "without", "--again", *QUICK, "--set", "train.steps=4")
    machine.run("start", "--until-empty")

    [page] = (tmp_path / "store" / "jobs" / "tiny_p1").glob("report.*.html")
    body = page.read_text("utf-8")
    assert "<h1>tiny_p1</h1>" in body
    assert ">28<" in body
    assert not list((tmp_path / "store" / "jobs" / "without").glob("report.*.html"))


def test_a_page_that_cannot_be_made_is_told_and_the_job_ends_all_the_same(tmp_path: Path) -> None:
    machine = quick_machine(home=tmp_path / "home", store=tmp_path / "store")
    machine.run("enqueue", str(JOBS / "tiny_p1.toml"), "--set", "track.page=true", *QUICK, "--set", "train.steps=4")
    (machine.home / "runs" / "tiny_p1" / "report.html").mkdir(parents=True)  # where the page would be
    said = machine.run("start", "--until-empty")

    assert "tiny_p1: its page in the store stays as it was: " in said
    assert "tiny_p1: succeeded" in said
    assert not list((tmp_path / "store" / "jobs" / "tiny_p1").glob("report.*.html"))


def test_drive_is_told_that_it_is_a_page() -> None:
    assert _media(b"", "jobs/q/report.*.html").mimetype() == "text/html"
    assert _media(b"", "jobs/q/head.*.json").mimetype() == "application/json"
