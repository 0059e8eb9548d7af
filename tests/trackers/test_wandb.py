"""W&B's own library, against a server on the loopback and with files alone: every step once, whatever is cut."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.track import following
from tests.trackers.told import Home, make_home
from tests.trackers.wandb_server import Server, running_wandb

pytest.importorskip("wandb", reason="needs wandb, which `make test-trackers` installs")


@pytest.fixture
def server() -> Iterator[Server]:
    with running_wandb() as server:
        yield server


@pytest.fixture
def home(server: Server, tmp_path: Path) -> Iterator[Home]:
    here = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "k" * 40, "HOME": str(tmp_path), "WANDB_MODE": "online"}
    home = make_home(tmp_path / "home", "wandb", here)
    yield home
    home.queue.close()


def wait_for(seen: Callable[[], object], seconds: float = 120.0) -> None:
    give_up = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def cut(home: Home, begun: Callable[[], object], after_seconds: float) -> None:
    """SIGKILL in the middle of telling, or behind it."""
    child = home.telling("a")
    wait_for(begun)
    time.sleep(after_seconds)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()


def test_sessions_that_were_cut_make_one_curve(home: Home, server: Server) -> None:
    for number, seconds in enumerate([0.0, 0.1, 0.4, 1.0]):
        home.train("a", range(1, 40 * (number + 1)), [20 * (number + 1)])
        server.said.clear()
        cut(home, lambda: any("UpsertBucket" in said for said in server.said), seconds)
    home.train("a", range(150, 201), [200])

    assert "a: wandb knows it to step 200" in home.tell("a")
    assert "before: 200" in home.tell("a")

    assert server.runs["a"].steps("train") == list(range(1, 201))
    assert server.runs["a"].steps("eval") == [20, 40, 60, 80, 200]


def test_jobs_of_one_process_have_a_run_each(home: Home, server: Server) -> None:
    home.train("a", range(1, 4))
    home.train("b", range(1, 3))

    home.tell("a", "b")

    assert (server.runs["a"].steps("train"), server.runs["b"].steps("train")) == ([1, 2, 3], [1, 2])


def test_nothing_of_the_machine_is_told(home: Home, server: Server) -> None:
    home.train("a", [1])

    home.tell("a")

    told = "\n".join(server.said)
    assert "train/loss" in told
    for word in (platform.node(), str(home.settings.home), "requirements", "diff.patch", "output.log", "kkkk"):
        assert word not in told, word


def test_what_a_server_that_went_away_missed_is_told_when_it_is_back(home: Home, server: Server) -> None:
    home.train("a", range(1, 6), [5])
    home.tell("a")
    server.is_away = True
    home.train("a", range(4, 11), [10])
    said = home.tell("a", expect=1)
    assert "error: a: wandb does not take what it is told" in said
    assert "bug" not in said

    server.is_away = False
    home.tell("a")

    assert server.runs["a"].steps("train") == list(range(1, 11))
    assert server.runs["a"].steps("eval") == [5, 10]


@pytest.mark.parametrize(
    ("here", "said"),
    [
        ({"WANDB_API_KEY": ""}, "error: wandb: has no key here: `wandb login`, or set WANDB_API_KEY"),
        ({"WANDB_API_KEY": "short"}, "error: a: wandb does not take what it is told: WANDB_API_KEY invalid"),
        ({"WANDB_MODE": "disabled"}, "error: wandb is told nothing: WANDB_MODE is disabled"),
    ],
)
def test_without_a_key_nobody_is_asked_and_one_sentence_says_so(home: Home, here: dict[str, str], said: str) -> None:
    home.environment |= here
    home.train("a", [1])

    assert said in home.tell("a", expect=1)


def test_a_start_that_ends_does_not_wait_for_a_server_that_is_away(
    home: Home, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next session tells what never arrived."""
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(following, "LEAVING", ((10.0, "slow"), (10.0, "left")))
    home.train("a", range(1, 6))
    said: list[str] = []

    with following.Following(home.settings, said.append) as begun:
        wait_for(lambda: "a" in server.runs)
        server.is_away = True
        home.train("a", range(6, 9))
    assert said == ["slow", "left"]
    assert not begun._thread.is_alive()

    server.is_away = False
    home.tell("a")

    assert server.runs["a"].steps("train") == list(range(1, 9))


class TestOffline:
    @pytest.fixture
    def home(self, home: Home) -> Home:
        home.environment["WANDB_MODE"] = "offline"
        return home

    def folders(self, home: Home) -> list[Path]:
        return sorted((home.settings.home / "track" / "wandb").glob("offline-run-*"))

    def rows(self, home: Home) -> list[dict[str, float]]:
        """By W&B's own reader."""
        found: list[dict[str, float]] = []
        for folder in self.folders(home):
            shown = subprocess.run(
                [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(folder)],
                capture_output=True, text=True, check=False, env={**os.environ, **home.environment},
            ).stdout  # fmt: skip
            lines = [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
            found += [line["history"]["item"] for line in lines if line["type"] == "history"]
        return found

    def test_files_of_sessions_that_were_cut_hold_each_step_once(self, home: Home, server: Server) -> None:
        for number, seconds in enumerate([0.0, 0.2, 0.6]):
            home.train("a", range(1, 400 * (number + 1)), [20 * (number + 1)])
            cut(home, lambda number=number: len(self.folders(home)) > number, seconds)
        home.train("a", range(1200, 1500), [1499])
        home.tell("a")
        home.train("a", range(1500, 1600))
        home.tell("a")

        rows = self.rows(home)
        steps = Counter(row["train/step"] for row in rows if "train/step" in row)
        assert steps == Counter(range(1, 1600))
        assert [row["eval/step"] for row in rows if "eval/step" in row] == [20, 40, 60, 1499]
        assert not server.said

    def test_what_is_sent_later_is_one_curve(self, home: Home, server: Server) -> None:
        for last in (5, 9, 14):
            home.train("a", range(1, last + 1), [last])
            home.tell("a")
        home.environment["WANDB_MODE"] = "online"
        sent = subprocess.run(
            [str(Path(sys.executable).parent / "wandb"), "sync", "--yes"], cwd=home.settings.home / "track",
            capture_output=True, text=True, check=False, env={**os.environ, **home.environment},
        )  # fmt: skip

        assert sent.returncode == 0, sent.stdout + sent.stderr
        assert server.runs["a"].steps("train") == list(range(1, 15))
        assert server.runs["a"].steps("eval") == [5, 9, 14]
