"""G1 and G2 with the store on a hub: the machine vanishes, an empty one with a token carries on, with the same bits."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import StoreLost
from tests.hub import Hub, running_hub
from tests.hub_repository import Repository
from tests.machine import JOBS, Machine, job_file, quick_machine, short_text, slowly_from

REPO = "me/wake-store"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        hub.tokens["hf_me"] = {"read", "write"}
        yield hub


def a_machine(hub: Hub, home: Path) -> Machine:
    here = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home.parent / "hf"), "HF_TOKEN": "hf_me", "HF_HUB_OFFLINE": "0"}
    return quick_machine(home=home, store=f"hub:{REPO}", environment=here)


def unneeded(store: Repository) -> set[str]:
    """Bytes that no path leads to, which would fill the account."""
    return store.blobs.keys() - {entry.sha256 for entry in store.files.values()}


def test_a_job_half_done_is_finished_by_an_empty_machine(hub: Hub, tmp_path: Path) -> None:
    job = job_file(
        tmp_path, "p1", of="tiny_p1", model__load="fp32", train__steps=40, checkpoint__every_steps=5,
        evaluate__every_steps=20, evaluate__max_windows=4, evaluate__samples=0, **short_text(tmp_path),
    )  # fmt: skip
    uncut = quick_machine(home=tmp_path / "uncut", store=tmp_path / "store")
    uncut.run("enqueue", str(job))
    uncut.finish()
    hub.rate = 0.02
    machine = a_machine(hub, tmp_path / "home")
    machine.environment |= (slow := slowly_from(12))
    machine.run("enqueue", str(job))
    machine.start("--until-empty")
    give_up = time.monotonic() + 300
    while not any(path.endswith("/manifest.json") for path in stored(hub)):
        assert machine.is_alive, machine.start_log.read_text()[-4000:]
        assert time.monotonic() < give_up, machine.start_log.read_text()[-4000:]
        time.sleep(0.02)
    machine.power_cut()
    shutil.rmtree(machine.home)
    for name in slow:
        del machine.environment[name]

    machine.start("--until-empty", "--take-over")
    machine.finish()

    assert f"restoring p1 from hub:{REPO}" in machine.start_log.read_text()
    assert machine.outcome("p1") == uncut.outcome("p1")
    assert not unneeded(hub.stores[REPO]) or machine.start_log.read_text().count("trouble")


def stored(hub: Hub) -> set[str]:
    return set(hub.stores[REPO].files) if REPO in hub.stores else set()


def test_what_was_trained_is_used_and_put_back_from_any_machine(hub: Hub, tmp_path: Path) -> None:
    first = a_machine(hub, tmp_path / "home")
    short = ("evaluate.hopes=false", "evaluate.samples=0", "train.steps=8")
    first.run("enqueue", str(JOBS / "tiny_p1.toml"), *(f"--set={one}" for one in short))
    first.run("start", "--until-empty")
    assert not unneeded(hub.stores[REPO])
    second = a_machine(hub, tmp_path / "second")
    said = second.run("start", "--until-empty")
    assert "restored 1 job" in said
    assert "succeeded" in second.run("status", "--once")
    second.run("export", "tiny_p1", "--to", str(tmp_path / "export"))
    assert (tmp_path / "export" / "model.safetensors").is_file()

    hub.stores.clear()  # somebody deletes the repository
    assert "is gone" in first.run("start", "--until-empty", expect=StoreLost.exit_code)
    assert not hub.stores  # nothing was begun anew in its place
    assert "the store holds it again, read back and verified" in first.run("repair", "--yes")

    third = a_machine(hub, tmp_path / "third")
    assert "restored 1 job" in third.run("start", "--until-empty")
    third.run("export", "tiny_p1", "--to", str(tmp_path / "again"))
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "export" / "model.safetensors"
    ).read_bytes()


def test_a_token_that_is_not_known_is_said_before_anything_is_queued_to_run(hub: Hub, tmp_path: Path) -> None:
    machine = a_machine(hub, tmp_path / "home")
    machine.run("enqueue", str(JOBS / "tiny_p1.toml"))
    machine.environment["HF_TOKEN"] = "hf_wrong"

    said = machine.run("start", "--until-empty", expect=17)

    assert "the hub does not know this token" in said
    assert "hf_wrong" not in said
