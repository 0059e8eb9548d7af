"""What queued jobs will take of the store: told where it can be, and never in the way of queueing."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from runner.commands import enqueue
from runner.commands.store_room import Answer, StoreNeed, ask, foretell, lines_of, need_of
from runner.errors import SignInNeeded
from runner.jobfile.read import read_job
from runner.settings import read_settings
from runner.store.base import Quota
from runner.store.places.directory import DirectoryStore
from tests.drive_server.server import DriveServer
from tests.unit.runner.folders import write_jobs

JOBS = Path(__file__).parents[4] / "jobs"
GB = 1 << 30


def of(name: str, **more: object) -> StoreNeed | None:
    spec = read_job(JOBS / name)
    return need_of(spec.model_copy(update=more), JOBS / name)


def test_a_large_p1_is_told_before_it_costs_anything(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\n".join(f"word{number}" for number in range(44_000)))
    spec = read_job(JOBS / "qwen_p1.toml")
    spec = spec.model_copy(update={"vocab": spec.vocab.model_copy(update={"lexicon": str(tmp_path / "words.txt")})})  # type: ignore[union-attr]

    need = need_of(spec, JOBS / "qwen_p1.toml")

    assert need is not None
    sets = 1 if spec.vocab is not None and spec.vocab.rows == "shared" else 2
    assert need.checkpoint_bytes == pytest.approx(sets * 44_000 * 5120 * 4, rel=0.001)
    assert need.kept == 3


def test_rows_in_16_bits_take_half_the_room() -> None:
    spec = read_job(JOBS / "tiny_p1.toml")
    assert spec.vocab is not None
    in_bf16 = spec.vocab.model_copy(update={"dtype": "bf16"})

    wide, narrow = of("tiny_p1.toml"), of("tiny_p1.toml", vocab=in_bf16)

    assert wide is not None
    assert narrow is not None
    assert 0.5 < narrow.checkpoint_bytes / wide.checkpoint_bytes < 0.6


def test_p2_needs_no_count_of_words() -> None:
    need = of("qwen_p2.toml")

    assert need is not None
    assert 0.05 * GB < need.checkpoint_bytes < 0.5 * GB


def test_kept_milestones_are_counted() -> None:
    spec = read_job(JOBS / "tiny_p1.toml")
    kept = spec.checkpoint.model_copy(update={"keep_milestones": 1})

    need = need_of(spec.model_copy(update={"checkpoint": kept}), JOBS / "tiny_p1.toml")

    assert need is not None
    assert need.kept == 6


def test_nobody_can_tell_of_a_program_of_ones_own() -> None:
    assert need_of(read_job(JOBS / "command_hf.toml"), JOBS / "command_hf.toml") is None


def test_a_job_that_does_not_fit_is_warned_of_and_told_what_to_do() -> None:
    needs = [StoreNeed(job=name, checkpoint_bytes=GB, kept=3) for name in "ab"]

    lines = lines_of(needs, Answer(quota=Quota(free=5 * GB, total=15 * GB)), "Google Drive, folder w")

    assert lines[0] == "a will take up to 4 × 1.0 GiB of your 15.0 GiB in Google Drive, folder w; 5.0 GiB free"
    assert lines[1].startswith("b will take up to")
    assert "warning: b will not fit" in lines[2]
    assert "empty the bin too" in lines[2]


def test_a_store_that_hangs_or_refuses_is_said_not_to_answer(tmp_path: Path) -> None:
    release = threading.Event()

    class Hanging(DirectoryStore):
        def quota(self) -> Quota:
            release.wait(60)
            raise SignInNeeded("late")

    class Refusing(DirectoryStore):
        def quota(self) -> Quota:
            raise SignInNeeded("sign in")

    assert ask(Hanging(tmp_path), 0.05) == Answer(quota=None, problem="no answer in 0 s")
    release.set()
    assert ask(Refusing(tmp_path)) == Answer(quota=None, problem="sign in")


def test_queueing_says_what_drive_has_and_goes_on_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "__defaults__", (240.0,))  # a busy machine may not answer itself in eight seconds
    settings = read_settings(tmp_path / "home", "drive:wake2vec", {})
    enqueue.run(settings, [JOBS / "tiny_p1.toml"], enqueue.Asked(again=False), as_json=False)
    said = capsys.readouterr().out
    assert "queued tiny_p1" in said
    assert "could not be asked for" in said
    assert said.endswith("next: wake2vec-runner start\n")

    with DriveServer(tmp_path / "google") as server:
        for key, value in server.environ().items():
            monkeypatch.setenv(key, value)
        enqueue.run(settings, [JOBS / "tiny_p1.toml"], enqueue.Asked(again=True), as_json=False)

    assert "of your 15.0 GiB in Google Drive, folder wake2vec; 15.0 GiB free" in capsys.readouterr().out


def test_a_model_whose_shape_is_not_known_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    folder = write_jobs(tmp_path / "jobs")
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": "llama"}))

    settings = read_settings(tmp_path / "home", None, {})
    assert foretell(settings, [(read_job(folder / "a_p1.toml"), folder / "a_p1.toml")]) == []
