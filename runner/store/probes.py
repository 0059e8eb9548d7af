"""Is the store what the runner takes it for? Each probe tries one assumption and says what it means."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from runner.errors import RunnerError
from runner.figures import size
from runner.store.base import Store
from wake2vec.contract.files import digest_file

RACERS = 4
NAME = "doctor/probe.*.json"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a probe found; `meaning` says what follows for the runner, whichever way it went."""

    name: str
    passed: bool
    detail: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """A place to try things in: `open` gives another client of the same store, `folder` is local and empty."""

    open: Callable[[], Store]
    folder: Path
    monotonic: Callable[[], float] = time.monotonic


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Returns a detail when the assumption holds, raises Broken when it does not."""

    name: str
    meaning: str
    run: Callable[[Scratch], str]


class Broken(RunnerError):
    """The store does not do what the runner relies on."""


def examine(scratch: Scratch, probes: tuple[Probe, ...]) -> Iterator[Finding]:
    """One finding after another, each as soon as it is there; an error of the store is a finding too."""
    for probe in probes:
        try:
            detail, passed = probe.run(scratch), True
        except RunnerError as error:
            detail, passed = str(error), False
        yield Finding(name=probe.name, passed=passed, detail=detail, meaning=probe.meaning)


def one_author(scratch: Scratch) -> str:
    [id] = scratch.open().new_ids([NAME])
    clients = [scratch.open() for _ in range(RACERS)]
    with ThreadPoolExecutor(RACERS) as pool:
        won = list(pool.map(lambda number: clients[number].create(id, b"%d" % number, name=NAME), range(RACERS)))
    body = scratch.open().read(id)
    _expect(won.count(True) == 1, f"{won.count(True)} of {RACERS} writers were told that they created the same record")
    _expect(body == b"%d" % won.index(True), "the record holds the words of one that was refused")
    _expect(not scratch.open().create(id, b"late", name=NAME), "a second create of the same id was accepted")
    return f"{RACERS} writers at once: one created it, the others were refused"


def read_after_create(scratch: Scratch) -> str:
    began = scratch.monotonic()
    for number in range(3):
        [id] = scratch.open().new_ids([NAME])
        _expect(scratch.open().create(id, b"%d" % number, name=NAME), "a fresh id was refused")
        _expect(scratch.open().read(id) == b"%d" % number, "a record that was just created cannot be read by its id")
    return f"three records, each read back at once by another client; {(scratch.monotonic() - began) / 3:.1f} s each"


def head_refuses_an_old_tag(scratch: Scratch) -> str:
    store = scratch.open()
    [id] = store.new_ids([NAME])
    _expect(store.swap_head(id, b"0", None, name=NAME), "the document could not be created")
    _, old = _head(store, id)
    _expect(_swapped(store, id, b"1"), "the document could not be replaced with its own tag")
    _expect(not scratch.open().swap_head(id, b"2", old, name=NAME), "an old tag was accepted")
    _expect(_head(store, id)[0] == b"1", "the document does not hold what was written last")
    return "a write with an old tag was refused"


def tags_stand_still(scratch: Scratch) -> str:
    store = scratch.open()
    [id] = store.new_ids([NAME])
    store.swap_head(id, b"0", None, name=NAME)
    tags = {_head(store, id)[1] for _ in range(5)}
    return (
        "the tag stood still over five reads" if len(tags) == 1 else f"{len(tags)} tags in five reads: they move alone"
    )


def bytes_come_back(scratch: Scratch) -> str:
    path = scratch.folder / "bytes"
    path.write_bytes(secrets.token_bytes(1 << 20))
    digest, began = digest_file(path), scratch.monotonic()
    store = scratch.open()
    [id] = store.new_ids([NAME])
    store.put(path, id=id, name=NAME, digest=digest)
    scratch.open().get(id, scratch.folder / "back", digest=digest)
    stat = scratch.open().stat(id)
    _expect(stat is not None and stat.size == digest.size, "the store tells another size")
    assert stat is not None
    kept = "md5" if stat.md5 else "sha256" if stat.sha256 else "no hash; every upload is read back"
    return f"1 MiB there and back in {scratch.monotonic() - began:.1f} s; the store keeps {kept}"


def deleted_is_gone(scratch: Scratch) -> str:
    _, id = deleted(scratch)
    _expect(scratch.open().stat(id) is None, "a deleted object is still there")
    return "a deleted object is gone at once"


def deleted(scratch: Scratch) -> tuple[Store, str]:
    """An id under which something lay, and the store that it was deleted from."""
    store = scratch.open()
    [id] = store.new_ids([NAME])
    store.create(id, b"x", name=NAME)
    store.delete(id)
    return store, id


def listing_lag(scratch: Scratch, limit_seconds: float = 60.0) -> str:
    store = scratch.open()
    [id] = store.new_ids([NAME])
    store.create(id, b"x", name=NAME)
    began = scratch.monotonic()
    while not any(stat.id == id for stat in scratch.open().find("doctor")):
        _expect(scratch.monotonic() - began < limit_seconds, f"not listed within {limit_seconds:.0f} s")
    return f"a new object was listed after {scratch.monotonic() - began:.1f} s"


def quota_is_known(scratch: Scratch) -> str:
    quota = scratch.open().quota()
    _expect(quota.free is None or quota.free > 0, "there is no room left")
    return "no limit is told" if quota.free is None else f"{size(quota.free)} free"


PROBES = (
    Probe(name="one author", run=one_author, meaning="two runners can never both write to a job's log"),
    Probe(name="read after create", run=read_after_create, meaning="the log can be walked by ids alone"),
    Probe(
        name="HEAD refuses an old tag",
        run=head_refuses_an_old_tag,
        meaning="the second lock; without it the log decides",
    ),
    Probe(name="tags", run=tags_stand_still, meaning="moving tags cost the heartbeat a second try, nothing else"),
    Probe(name="bytes come back", run=bytes_come_back, meaning="checkpoints are proved by the store's own hash"),
    Probe(name="delete", run=deleted_is_gone, meaning="pruning frees room"),
    Probe(name="listing lag", run=listing_lag, meaning="only the sweep of orphans lists, and it waits an hour"),
    Probe(name="room", run=quota_is_known, meaning="uploads ask for room first"),
)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)


def _head(store: Store, id: str) -> tuple[bytes, str]:
    found = store.read_head(id)
    if found is None:
        raise Broken("a document that was just written cannot be read")
    return found


def _swapped(store: Store, id: str, body: bytes) -> bool:
    """With a few tries: tags may move by themselves."""
    return any(store.swap_head(id, body, _head(store, id)[1], name=NAME) for _ in range(5))
