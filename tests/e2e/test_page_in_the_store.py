"""By choice the report of a job lies in its store too, under one address, as it was at the newest evaluation."""

from __future__ import annotations

import json
from pathlib import Path

from tests.drive_server.server import DriveServer
from tests.machine import JOBS, Machine


def test_the_page_in_drive_is_a_page_and_shows_the_last_evaluation(tmp_path: Path) -> None:
    with DriveServer(tmp_path / "google") as server:
        machine = Machine(home=tmp_path / "home", store="drive:wake2vec", environment=server.environ())
        machine.run("enqueue", str(JOBS / "tiny_p1.toml"), "--set", "track.page=true")
        machine.run("start", "--until-empty")

        pages = [file for file in server.drive.files.values() if str(file.metadata["title"]).endswith("report.html")]
        [page] = [file for file in pages if file.metadata["mimeType"] == "text/html"]
        body = page.content.decode()

    assert "tiny_p1" in body
    steps = [json.loads(line) for line in machine.run_dir("tiny_p1").metrics.read_text().splitlines()]
    last = max(row["step"] for row in steps if row["kind"] == "evaluation")
    assert body.count(f">{last}<") >= 1


def test_without_the_choice_there_is_none(tmp_path: Path) -> None:
    machine = Machine(home=tmp_path / "home", store=tmp_path / "store")
    machine.run("enqueue", str(JOBS / "tiny_p1.toml"))
    machine.run("start", "--until-empty")

    assert not list((tmp_path / "store").rglob("report*.html"))
