"""A job ended on a machine that is gone: its result can be used on one that has nothing but the store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.machine import Machine, job_file, quick_machine


@pytest.fixture(scope="module")
def two_machines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, Path]:
    """A machine on which P1 and P2 ended, and the store that it shares with others."""
    folder = tmp_path_factory.mktemp("two-machines")
    short = {
        "model__load": "fp32", "train__steps": 6, "checkpoint__every_steps": 3, "evaluate__every_steps": 3,
        "evaluate__max_windows": 4, "evaluate__samples": 0,
    }  # fmt: skip
    p1 = job_file(folder, "p1", of="tiny_p1", **short)
    p2 = job_file(folder, "p2", of="tiny_p2", after="p1", **short)
    first = quick_machine(home=folder / "home", store=folder / "store")
    first.run("enqueue", str(p1), str(p2))
    first.finish()
    return first, folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("job", "words"), [("p1", []), ("p2", ["--merge"]), ("p2", ["--step", "3"])])
def test_an_empty_machine_exports_the_same_bytes(
    two_machines: tuple[Machine, Path], tmp_path: Path, job: str, words: list[str]
) -> None:
    first, folder = two_machines
    new = quick_machine(home=tmp_path / "new", store=folder / "store")
    out = tmp_path / "out"  # one place for both: an adapter names the folder of its base
    first.run("export", job, "--to", str(out), *words)
    there = files(out)
    shutil.rmtree(out)

    said = new.run("export", job, "--to", str(out), *words)

    assert f"{job}: fetching its result from" in said
    assert files(out) == there
    assert "fetching" not in new.run("export", job, "--to", str(tmp_path / "again"), *words)


def test_it_writes_texts_and_measures_there_too(two_machines: tuple[Machine, Path], tmp_path: Path) -> None:
    first, folder = two_machines
    new = quick_machine(home=tmp_path / "new", store=folder / "store")
    asked = ("generate", "p2", "--step", "best", "--tokens", "8", "--seed", "3", "--json")

    def sample(said: str) -> str:
        return next(line for line in said.splitlines() if line.startswith("{"))

    assert sample(new.run(*asked)) == sample(first.run(*asked))
    new.run("geometry", "p1")

    assert (new.run_dir("p1").root / "eval").is_dir()


def test_a_step_that_the_store_has_not_is_told_with_those_it_has(
    two_machines: tuple[Machine, Path], tmp_path: Path
) -> None:
    _, folder = two_machines
    new = quick_machine(home=tmp_path / "new", store=folder / "store")

    said = new.run("export", "p1", "--to", str(tmp_path / "out"), "--step", "5", expect=1)

    assert "p1: the store has no checkpoint of step 5; committed were 3, 6" in said


def test_a_word_that_is_no_step_is_refused_where_the_run_is(two_machines: tuple[Machine, Path], tmp_path: Path) -> None:
    first, _ = two_machines

    said = first.run("export", "p1", "--to", str(tmp_path / "out"), "--step", "foo", expect=1)

    assert "step: " in said
    assert "Traceback" not in said


def test_an_unknown_job_is_refused_on_an_empty_machine(two_machines: tuple[Machine, Path], tmp_path: Path) -> None:
    _, folder = two_machines
    new = quick_machine(home=tmp_path / "new", store=folder / "store")

    said = new.run("export", "p3", "--to", str(tmp_path / "out"), expect=1)

    assert "p3: there is no such job; known are p1, p2" in said


def test_a_result_that_somebody_removed_from_the_store_is_no_result(
    two_machines: tuple[Machine, Path], tmp_path: Path
) -> None:
    _, folder = two_machines
    shutil.copytree(folder / "store", tmp_path / "store")
    for path in (tmp_path / "store").glob("jobs/p1/checkpoints/checkpoint-6.*/trainable.safetensors"):
        path.unlink()  # the same bytes as the final rows, which are stored once
    new = quick_machine(home=tmp_path / "new", store=tmp_path / "store")

    said = new.run("export", "p1", "--to", str(tmp_path / "out"), expect=12)

    assert "has lost final/embed_tokens.safetensors" in said
    assert "what can still be had: --step 3" in said
    assert not (tmp_path / "out").exists()
