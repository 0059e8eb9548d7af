"""What records say, and that they survive the way to a store and back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import Damaged
from runner.store.records import (
    Body,
    Commit,
    Done,
    Genesis,
    JobEntry,
    Kind,
    Record,
    StateNote,
    StoredFile,
    VocabularyNote,
    commits,
    condense,
    is_done,
    is_released,
    lease_epoch,
    newest_commit,
    stored_ids,
)
from wake2vec.contract.order import InputFile

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def record(seq: int, kind: Kind = "COMMIT", epoch: int = 1, /, **payload: Any) -> Record:
    return Record(
        log="first", seq=seq, kind=kind, epoch=epoch, nonce=f"n{seq}", payload=payload, next_id=f"id-{seq + 1}",
        written_at=0.0, holder="me",
    )  # fmt: skip


@given(st.dictionaries(st.text(max_size=8), PLAIN, max_size=4), st.text(max_size=30))
def test_a_record_comes_back_as_it_was_written(payload: dict[str, Any], holder: str) -> None:
    inner = record(3)
    written = Record(
        log="a", seq=64, kind="REGIME", epoch=2, nonce="n", payload=payload, next_id="b", written_at=1.5, holder=holder,
        carried=(inner,),
    )  # fmt: skip

    assert Record.from_bytes(written.to_bytes(), "here") == written


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'"x"', record(1).to_bytes().replace(b'"format": 1', b'"format": 2')]
)
def test_what_is_no_record_is_named_with_its_place(body: bytes) -> None:
    with pytest.raises(Damaged, match="here"):
        Record.from_bytes(body, "here")


CORPUS = InputFile(role="corpus", name="text.txt", sha256="c" * 64, size=10)
FILE = StoredFile(id="i", size=1, sha256="s", md5="m")


@pytest.mark.parametrize(
    "body",
    [
        Genesis(fingerprint="f", job={"name": "a"}, inputs=[CORPUS], stored_inputs={"s": FILE}, created_at=1.0),
        JobEntry(job="a", fingerprint="f", genesis_id="g", head_id="h"),
        Commit(step=3, kind="rolling", attempt=2, manifest=FILE, parts={"state.json": FILE}),
        Done(files={"final/a": FILE}, step=3, best_step=None),
        StateNote(state="held", reason="r", remedy="m"),
        VocabularyNote(files={"vocab/a": FILE}),
    ],
)
def test_what_a_record_says_comes_back_whatever_else_a_newer_version_adds(body: Body) -> None:
    said = json.loads(json.dumps(body.to_payload() | {"of_a_newer_version": 1}))

    assert type(body).from_payload(said) == body


def test_what_an_older_version_did_not_say_has_its_default() -> None:
    commit = Commit.from_payload({"step": 3, "manifest": asdict(FILE), "parts": {}})

    assert (commit.attempt, commit.object_ids, commit.size) == (0, ["i"], 0)
    assert Done.from_payload({"step": 3, "files": {}}).best_step is None


def test_the_newest_commit_is_the_last_of_the_log_not_the_highest_step() -> None:
    records = [
        record(0, "GENESIS", 0),
        record(1, step=200),
        record(2, step=250),
        record(3, "LEASE", 2),
        record(4, step=210),
    ]

    newest = newest_commit(records)

    assert newest is not None
    assert newest.payload["step"] == 210


def test_a_lease_is_in_force_until_it_is_released_or_taken() -> None:
    records = [record(0, "GENESIS", 0)]
    assert (lease_epoch(records), is_released(records)) == (0, True)

    records.append(record(1, "LEASE", 1))
    assert (lease_epoch(records), is_released(records)) == (1, False)

    records.append(record(2, "RELEASE", 1))
    assert (lease_epoch(records), is_released(records)) == (1, True)

    records.append(record(3, "LEASE", 2))
    assert (lease_epoch(records), is_released(records)) == (2, False)


def test_every_object_that_a_record_names_is_found() -> None:
    part = {"id": "a", "size": 1, "sha256": "s", "md5": "m"}
    records = [
        record(0, "GENESIS", 0, inputs=[{"file": part | {"id": "d"}}]),
        record(1, manifest=part, parts={"x": part | {"id": "b"}}),
        record(2, "JOB", 0, genesis_id="c"),
    ]

    assert stored_ids(records) == {"a", "b", "c", "d"}


@given(st.lists(st.sampled_from(["COMMIT", "REGIME", "LEASE", "RELEASE"]), max_size=60))
def test_condensed_records_say_the_same_about_the_present(kinds: list[Kind]) -> None:
    epoch, records = 0, [record(0, "GENESIS", 0)]
    for seq, kind in enumerate(kinds, 1):
        epoch += kind == "LEASE"
        records.append(record(seq, kind, epoch, kind="rolling" if seq % 3 else "milestone", step=seq))

    short = condense(records)

    assert short[0] == records[0]
    assert lease_epoch(short) == lease_epoch(records)
    assert is_released(short) == is_released(records)
    assert newest_commit(short) == newest_commit(records)
    assert is_done(short) == is_done(records)
    assert commits(short) == commits(records)
    assert len([one for one in short if one.kind in ("LEASE", "RELEASE")]) <= 2
