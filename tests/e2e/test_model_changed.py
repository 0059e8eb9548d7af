"""Other weights under the same path, through the real command line: the job waits, loses nothing, and goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.faults.world import wait_until
from tests.machine import JOBS, Machine, job_file, quick_machine, sha256, slowly_from
from wake2vec.contract.manifest import saved_steps

QUICK: dict[str, Any] = {
    "train__steps": 40, "evaluate__every_steps": 40, "evaluate__max_windows": 4, "evaluate__samples": 0,
    "checkpoint__every_steps": 8,
}  # fmt: skip


def queued(machine: Machine, folder: Path, model: Path) -> None:
    machine.run("enqueue", str(job_file(folder, "p1", of="tiny_p1", model__base=str(model), **QUICK)))


def train_others(model: Path) -> None:
    path = model / "model.safetensors"
    tensors = {name: tensor * (1.3 if "layers" in name else 1) for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def job_of(machine: Machine) -> dict[str, Any]:
    (found,) = json.loads(machine.run("status", "--json"))["jobs"]
    return dict(found)


def wait_for_the_end(machine: Machine) -> None:
    assert machine.daemon is not None
    machine.daemon.wait(240)


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the job comes to where nothing happens."""
    folder = tmp_path_factory.mktemp("uncut")
    machine = quick_machine(home=folder / "home", store=folder / "store")
    queued(machine, folder, JOBS / "tiny" / "model")
    machine.finish()
    return machine.outcome("p1")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    shutil.copytree(JOBS / "tiny" / "model", tmp_path / "model")
    return tmp_path / "model"


def test_a_job_waits_for_its_model_in_every_home_and_then_ends_as_if_nothing_had_happened(
    tmp_path: Path, model: Path, uncut: dict[str, Any]
) -> None:
    cut = quick_machine(home=tmp_path / "home", store=tmp_path / "store", environment=slowly_from(12))
    queued(cut, tmp_path, model)
    cut.start()
    cut.wait_for_step("p1", 12)
    # the daemon lives on: only the trainer dies, and the next attempt finds another model
    train_others(model)
    cut.kill_trainer()
    wait_until(lambda: job_of(cut)["state"] == "held", 120, "the job to wait")
    saved = saved_steps(cut.run_dir("p1"))
    wait_until(lambda: job_of(cut)["durable"] == max(saved), 60, "the checkpoint to be durable")
    cut.power_cut()
    fresh = quick_machine(home=tmp_path / "fresh", store=tmp_path / "store")
    fresh.start("--until-empty", "--take-over")
    wait_for_the_end(fresh)
    again = json.loads(fresh.run("status", "--json"))
    fresh.run("release", "p1")
    fresh.start("--until-empty")
    wait_for_the_end(fresh)

    assert max(saved) >= 8
    assert not list(fresh.run_dir("p1").checkpoints.glob("*.corrupt-*"))
    for told in (again, json.loads(fresh.run("status", "--json"))):
        (need,) = [need for need in told["needs"] if need["job"] == "p1"]
        assert f"model.base = {model}: is not the model that this job began with" in need["cause"]
        assert need["command"] == "wake2vec-runner release p1"
    assert job_of(fresh)["durable"] == max(saved)

    shutil.rmtree(model)
    shutil.copytree(JOBS / "tiny" / "model", model)
    fresh.run("release", "p1")
    fresh.finish()

    assert fresh.outcome("p1") == uncut


def test_a_name_on_the_hub_that_points_elsewhere_later_is_read_at_the_commit_the_job_began_with(
    tmp_path: Path, model: Path, uncut: dict[str, Any]
) -> None:
    hub = tmp_path / "hf" / "hub" / "models--org--tiny"
    published(hub, model, "a" * 40)
    there = {"HF_HOME": str(tmp_path / "hf")}
    cut = quick_machine(home=tmp_path / "home", store=tmp_path / "store", environment=there | slowly_from(12))
    cut.run("enqueue", str(job_file(tmp_path, "p1", of="tiny_p1", model__base="org/tiny", **QUICK)))
    cut.start()
    cut.wait_for_step("p1", 12)
    train_others(model)
    published(hub, model, "b" * 40)
    cut.power_cut()
    cut.environment = there
    cut.finish()

    assert cut.outcome("p1") == uncut
    newest = cut.run_dir("p1").checkpoint(saved_steps(cut.run_dir("p1"))[0])
    assert json.loads((newest / "state.json").read_text())["model"]["commit"] == "a" * 40


def published(hub: Path, model: Path, commit: str) -> None:
    """As the hub's client lays out what it has fetched; `main` points to the newest commit."""
    (hub / "blobs").mkdir(parents=True, exist_ok=True)
    (hub / "refs").mkdir(exist_ok=True)
    (hub / "refs" / "main").write_text(commit)
    for path in model.iterdir():
        name = sha256(path)
        shutil.copy(path, hub / "blobs" / name)
        link = hub / "snapshots" / commit / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path("../../blobs") / name)


def test_weights_that_are_no_numbers_are_refused_at_the_first_start(tmp_path: Path, model: Path) -> None:
    path = model / "model.safetensors"
    save_file({name: tensor * float("nan") for name, tensor in load_file(path).items()}, path)
    machine = quick_machine(home=tmp_path / "home", store=tmp_path / "store")
    queued(machine, tmp_path, model)
    machine.start("--until-empty")
    wait_for_the_end(machine)

    job = job_of(machine)
    assert (job["state"], job["trained"]) == ("failed", 0)
    assert "holds NaN" in job["says"]
