from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from wake2vec.contract.errors import CheckpointCorrupt
from wake2vec.contract.files import digest_file, write_json
from wake2vec.contract.manifest import (
    CHECKPOINT_FILES,
    MANIFEST,
    Manifest,
    newest_verified,
    saved_steps,
    verify_checkpoint,
)
from wake2vec.contract.rundir import RunDir


def make_checkpoint(run: RunDir, step: int, fingerprint: str = "f") -> Path:
    folder = run.checkpoint(step)
    folder.mkdir(parents=True)
    for name in CHECKPOINT_FILES:
        (folder / name).write_bytes(f"{name} of step {step}".encode() * 10)
    files = {name: digest_file(folder / name) for name in CHECKPOINT_FILES}
    manifest = Manifest(job="j", step=step, fingerprint=fingerprint, parent=None, probe_loss=1.5, files=files)
    write_json(folder / MANIFEST, manifest.to_json())
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(root=tmp_path)


def test_the_newest_checkpoint_that_verifies_is_chosen(run: RunDir) -> None:
    make_checkpoint(run, 9)
    make_checkpoint(run, 10)

    found = newest_verified(run, "f")

    assert found is not None
    assert found[1].step == 10


@pytest.mark.parametrize("name", [*CHECKPOINT_FILES, MANIFEST])
def test_one_flipped_bit_is_found_and_the_checkpoint_before_is_used(run: RunDir, name: str) -> None:
    make_checkpoint(run, 9)
    broken = make_checkpoint(run, 10)
    body = bytearray((broken / name).read_bytes())
    # a manifest may change harmlessly in its white space, so the bit is flipped in a digest
    place = body.index(b'"sha256": "') + 11 if name == MANIFEST else len(body) // 2
    body[place] ^= 1
    (broken / name).write_bytes(body)
    report: list[str] = []

    found = newest_verified(run, "f", report)

    assert found is not None
    assert found[1].step == 9
    assert "set aside" in report[0]
    assert saved_steps(run) == [9]
    assert (run.checkpoints / "checkpoint-10.corrupt-1").is_dir()


@pytest.mark.parametrize("name", [*CHECKPOINT_FILES, MANIFEST])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_named(run: RunDir, name: str, share: float) -> None:
    folder = make_checkpoint(run, 10)
    body = (folder / name).read_bytes()
    (folder / name).write_bytes(body[: int(len(body) * share)])

    with pytest.raises(CheckpointCorrupt, match=name):
        verify_checkpoint(folder)


@pytest.mark.parametrize("name", CHECKPOINT_FILES)
def test_a_missing_file_is_named(run: RunDir, name: str) -> None:
    folder = make_checkpoint(run, 10)
    (folder / name).unlink()

    with pytest.raises(CheckpointCorrupt, match=f"{name}: missing"):
        verify_checkpoint(folder)


def test_a_folder_without_a_manifest_does_not_exist(run: RunDir) -> None:
    (make_checkpoint(run, 10) / MANIFEST).unlink()

    assert saved_steps(run) == []
    assert newest_verified(run, "f") is None


def test_files_swapped_between_steps_are_found(run: RunDir) -> None:
    older, newer = make_checkpoint(run, 9), make_checkpoint(run, 10)
    os.replace(older / "state.json", newer / "state.json")

    with pytest.raises(CheckpointCorrupt, match=r"state\.json"):
        verify_checkpoint(newer)


def test_a_checkpoint_under_another_steps_name_is_refused(run: RunDir) -> None:
    make_checkpoint(run, 9).rename(run.checkpoint(12))

    with pytest.raises(CheckpointCorrupt, match="holds step 9"):
        verify_checkpoint(run.checkpoint(12))


def test_a_checkpoint_of_other_inputs_is_refused(run: RunDir) -> None:
    with pytest.raises(CheckpointCorrupt, match="other inputs"):
        verify_checkpoint(make_checkpoint(run, 3, fingerprint="g"), "f")


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "state.json/../../x", "a\x00b", ""])
def test_a_manifest_cannot_name_a_file_outside_its_folder(run: RunDir, name: str) -> None:
    folder = make_checkpoint(run, 3)
    table = json.loads((folder / MANIFEST).read_text())
    table["files"][name] = table["files"]["state.json"]
    (folder / MANIFEST).write_text(json.dumps(table))

    with pytest.raises(CheckpointCorrupt, match="foreign file"):
        verify_checkpoint(folder)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"files": 3}', b'{"step": 3}', b"\xff\xfe", b"null"])
def test_a_manifest_that_is_not_one_is_refused(run: RunDir, body: bytes) -> None:
    folder = make_checkpoint(run, 3)
    (folder / MANIFEST).write_bytes(body)

    with pytest.raises(CheckpointCorrupt):
        verify_checkpoint(folder)
