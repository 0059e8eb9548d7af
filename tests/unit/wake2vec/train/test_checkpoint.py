from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.zygote import python
from wake2vec.contract.errors import CheckpointCorrupt
from wake2vec.contract.manifest import Manifest, newest_verified, saved_steps, verify_checkpoint
from wake2vec.contract.rundir import RunDir
from wake2vec.model.device import copy_to_host
from wake2vec.train.checkpoint import TrainingState, Writer, load_strictly, read_checkpoint, write_checkpoint

FAILPOINTS = ("begin", "trainable", "optimizer", "state", "manifest", "rename")


def snapshot(step: int, value: float = 1.0) -> TrainingState:
    return TrainingState(
        job="j",
        step=step,
        fingerprint="f",
        parent=None,
        probe_loss=2.5,
        trainable={"rows": torch.full((4, 3), value)},
        optimizer={"rows.row": torch.zeros(4), "step": torch.tensor(step)},
        state={"step": step, "rows": [{"loss": 0.1 + 0.2}]},
    )


def test_what_was_written_is_read_back_to_the_bit(tmp_path: Path) -> None:
    run = RunDir(root=tmp_path)
    folder = write_checkpoint(run, snapshot(7, value=1 / 3))

    loaded = read_checkpoint(folder, verify_checkpoint(folder, "f"))

    assert torch.equal(loaded.trainable["rows"], torch.full((4, 3), 1 / 3))
    assert loaded.optimizer["step"] == 7
    assert loaded.state["rows"][0]["loss"] == 0.1 + 0.2
    assert loaded.manifest.probe_loss == 2.5


def test_a_checkpoint_that_exists_is_never_written_again(tmp_path: Path) -> None:
    run = RunDir(root=tmp_path)
    write_checkpoint(run, snapshot(7, value=1.0))

    folder = write_checkpoint(run, snapshot(7, value=2.0))

    assert read_checkpoint(folder, verify_checkpoint(folder)).trainable["rows"][0, 0] == 1.0


def test_a_copy_on_the_host_does_not_change_with_its_original() -> None:
    original = torch.zeros(3)

    copy = copy_to_host({"x": original})
    original += 1

    assert copy["x"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({}, "other tensors"),
        ({"a": torch.zeros(2), "b": torch.zeros(2)}, "other tensors"),
        ({"a": torch.zeros(3)}, "expected"),
        ({"a": torch.zeros(2, dtype=torch.float16)}, "expected"),
    ],
)
def test_loading_is_strict(source: dict[str, torch.Tensor], problem: str) -> None:
    target = {"a": torch.ones(2)}

    with pytest.raises(CheckpointCorrupt, match=problem):
        load_strictly(target, source, Path("checkpoint-1"))

    assert target["a"].tolist() == [1, 1]


@pytest.mark.parametrize("place", FAILPOINTS)
def test_a_kill_at_any_write_leaves_the_checkpoint_before_it(tmp_path: Path, place: str) -> None:
    environment = {**os.environ, "WAKE2VEC_FAILPOINTS": f"checkpoint.{place}=kill:2"}

    process = subprocess.run(python(__name__, tmp_path), env=environment, check=False)

    assert process.returncode == -9
    found = newest_verified(RunDir(root=tmp_path), "f")
    assert found is not None
    assert found[1].step == (2 if place in ("rename") else 1)


@pytest.mark.parametrize("place", FAILPOINTS[:-2])
def test_a_full_disk_at_any_write_is_told_and_leaves_the_checkpoint_before_it(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(root=tmp_path)
    writer = Writer(run)
    writer.submit(snapshot(1))
    writer.wait()
    monkeypatch.setattr("wake2vec.contract.failpoints._hits", Counter())
    monkeypatch.setenv("WAKE2VEC_FAILPOINTS", f"checkpoint.{place}=ENOSPC")

    writer.submit(snapshot(2))
    with pytest.raises(OSError, match="No space left"):
        writer.wait()

    assert saved_steps(run) == [1]
    assert writer.saved_step == 1


def test_nothing_of_a_checkpoint_is_ever_unpickled(tmp_path: Path) -> None:
    run = RunDir(root=tmp_path)
    folder = write_checkpoint(run, snapshot(3))
    marker = tmp_path / "executed"
    pickle_bomb = b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR."
    (folder / "trainable.safetensors").write_bytes(pickle_bomb)

    with pytest.raises(CheckpointCorrupt):
        read_checkpoint(folder, json_manifest(folder))

    assert not marker.exists()


def json_manifest(folder: Path) -> Manifest:
    return Manifest.from_json(json.loads((folder / "manifest.json").read_text()), folder)


if __name__ == "__main__":
    for step in (1, 2):
        write_checkpoint(RunDir(root=Path(sys.argv[1])), snapshot(step))
