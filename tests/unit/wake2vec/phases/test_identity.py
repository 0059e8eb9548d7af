"""What makes two models the same one, and how little it costs to know."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.machine import JOBS
from wake2vec.contract.errors import ModelChanged, ModelError
from wake2vec.model.published_files import Origin
from wake2vec.phases import identity
from wake2vec.phases.identity import Digests, Identity, commit_of, identify, require_same
from wake2vec.phases.inputs import load_tokenizer

MODEL = JOBS / "tiny" / "model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def copied(folder: Path) -> Path:
    shutil.copytree(MODEL, folder)
    return folder


def identity_of(folder: Path, **options: Any) -> Identity:
    origin = Origin(path=str(folder), **options)
    return identify(origin, load_tokenizer(str(folder), None), Digests(folder.parent / "digests.json"))


def changed_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_an_equal_copy_elsewhere_is_the_same_model(tmp_path: Path) -> None:
    there = copied(tmp_path / "elsewhere" / "model")

    require_same(identity_of(copied(tmp_path / "here" / "model")), identity_of(there))


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("generation_config.json", {"temperature": 0.1}),
        ("config.json", {"transformers_version": "9.9", "_name_or_path": "elsewhere", "dtype": "bfloat16"}),
    ],
)
def test_what_decides_nothing_may_change(tmp_path: Path, file: str, values: dict[str, Any]) -> None:
    there = copied(tmp_path / "model")
    was = identity_of(there)
    changed_json(there / file, **values)

    require_same(was, identity_of(there))


def test_other_weights_are_named_with_both_hashes(tmp_path: Path) -> None:
    there = copied(tmp_path / "model")
    was = identity_of(there)
    flip_last_byte(there / "model.safetensors")
    now = identity_of(there)

    with pytest.raises(ModelChanged) as caught:
        require_same(was, now)

    said = str(caught.value)
    assert f"model.base = {there}" in said
    assert was.weights["model.safetensors"][:12] in said
    assert now.weights["model.safetensors"][:12] in said


def test_a_setting_is_named_with_both_values(tmp_path: Path) -> None:
    there = copied(tmp_path / "model")
    was = identity_of(there)
    changed_json(there / "config.json", rope_theta=500000.0)

    with pytest.raises(ModelChanged, match=r"rope_theta in config\.json was .*, is 500000\.0"):
        require_same(was, identity_of(there))


def test_a_tokenizer_that_only_cuts_otherwise_is_another_one(tmp_path: Path) -> None:
    there = copied(tmp_path / "model")
    was = identity_of(there)
    rules = json.loads((there / "tokenizer.json").read_text())
    rules["model"]["merges"] = rules["model"]["merges"][:-1]  # the vocabulary stays
    (there / "tokenizer.json").write_text(json.dumps(rules))

    with pytest.raises(ModelChanged, match="sha256 of its tokenizer was"):
        require_same(was, identity_of(there))


def test_code_counts_only_where_the_job_runs_it(tmp_path: Path) -> None:
    there = copied(tmp_path / "model")
    plain, trusting = identity_of(there), identity_of(there, trust_remote_code=True)
    (there / "modeling.py").write_text("SCALE = 2\n")

    require_same(plain, identity_of(there))
    with pytest.raises(ModelChanged, match="sha256 of its code was"):
        require_same(trusting, identity_of(there, trust_remote_code=True))


def test_what_a_job_of_an_older_version_began_with_is_not_known_and_no_reason_to_stop(tmp_path: Path) -> None:
    require_same(None, identity_of(copied(tmp_path / "model")))


def test_a_name_on_the_hub_that_points_to_the_same_files_at_another_commit_is_the_same_model(tmp_path: Path) -> None:
    first, second = hub_snapshot(tmp_path / "hub", COMMIT), hub_snapshot(tmp_path / "hub", COMMIT[::-1])
    was, now = identity_of(first), identity_of(second)

    require_same(was, now)
    assert was.weights == {"model.safetensors": identity.sha256_of(MODEL / "model.safetensors")}


def test_a_file_of_the_hubs_cache_is_not_read_for_its_hash(tmp_path: Path) -> None:
    there = hub_snapshot(tmp_path / "hub", COMMIT)
    blob = (there / "model.safetensors").resolve()
    os.truncate(blob, 0)

    assert Digests(tmp_path / "digests.json").of(there / "model.safetensors") == blob.name


def hub_snapshot(hub: Path, commit: str) -> Path:
    """As the hub's client lays it out: files named by their hashes, and a folder of links for each commit."""
    blobs, snapshot = hub / "blobs", hub / "snapshots" / commit
    blobs.mkdir(parents=True, exist_ok=True)
    snapshot.mkdir(parents=True)
    for path in MODEL.iterdir():
        name = identity.sha256_of(path) if path.suffix == ".safetensors" else path.name
        shutil.copy(path, blobs / name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / name)
    return snapshot


def test_a_folder_of_ones_own_has_no_commit(tmp_path: Path) -> None:
    there = copied(tmp_path / COMMIT)

    assert commit_of(Origin(path=str(there))) is None


class Counting:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times, real = 0, identity.sha256_of

        def sha256_of(path: Path) -> str:
            self.times += 1
            return real(path)

        monkeypatch.setattr(identity, "sha256_of", sha256_of)


def old_file(path: Path, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it had been written long ago: no program can set the time of a file's last change back."""
    path.write_bytes(body)
    later = time.time_ns() + 10 * identity.YOUNG_NS
    monkeypatch.setattr(identity.time, "time_ns", lambda: later)


def test_a_file_is_hashed_once_on_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting, path = Counting(monkeypatch), tmp_path / "shard"
    old_file(path, b"weights", monkeypatch)

    found = {Digests(tmp_path / "digests.json").of(path) for _ in range(3)}

    assert (counting.times, len(found)) == (1, 1)


def test_a_file_that_was_written_a_moment_ago_is_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting, path = Counting(monkeypatch), tmp_path / "shard"
    path.write_bytes(b"weights")

    for _ in range(2):
        Digests(tmp_path / "digests.json").of(path)

    assert counting.times == 2


def test_other_bytes_of_the_same_size_and_time_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, digests = tmp_path / "shard", Digests(tmp_path / "digests.json")
    old_file(path, b"weights", monkeypatch)
    status, was = path.stat(), digests.of(path)
    time.sleep(0.02)  # a tick of the file system's clock
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert digests.of(path) != was


def test_a_torn_memory_is_none(tmp_path: Path) -> None:
    (tmp_path / "digests.json").write_text('{"a')

    assert len(Digests(tmp_path / "digests.json").of(MODEL / "model.safetensors")) == 64


def test_a_file_that_changes_while_it_is_hashed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shard"
    path.write_bytes(b"weights")
    real = identity.sha256_of

    def meddled(path: Path) -> str:
        found = real(path)
        path.write_bytes(b"others of another size")
        return found

    monkeypatch.setattr(identity, "sha256_of", meddled)

    with pytest.raises(ModelError, match="changed while it was read"):
        Digests(tmp_path / "digests.json").of(path)


def flip_last_byte(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
