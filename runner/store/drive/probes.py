"""What only Google Drive can be asked: sessions across connections, ids a day old, ids of what was deleted."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

from runner.children import TOKEN_VARIABLE
from runner.errors import RunnerError
from runner.store.drive.auth import COLAB, load_token
from runner.store.drive.store import open_drive
from runner.store.drive.transfer import UNIT_BYTES, Throttle
from runner.store.probes import NAME, PROBES, Broken, Probe, Scratch, deleted
from runner.store.retry import RetryingStore
from wake2vec.contract.files import digest_file, read_json, write_json

OLD_SECONDS = 20 * 3600.0
# chunks of one unit, without waiting: only to have a session with several of them
SMALL_CHUNKS = Throttle(bytes_per_second=UNIT_BYTES / 2, sleep=lambda seconds: None)


class _Stopped(Exception):
    """Ends an upload after its first chunk, as a kill would."""


@contextmanager
def drive_scratch(home: Path, environ: Mapping[str, str], folder: Path) -> Iterator[tuple[Scratch, tuple[Probe, ...]]]:
    """A scratch folder in the person's own Drive, and the probes to try there; it is deleted with all that is in it.

    `home` is where the token is, `folder` an empty local one.
    """
    token = load_token(home, environ)
    signed_in = {**environ, TOKEN_VARIABLE: COLAB if token is None else json.dumps(asdict(token))}
    name = f"wake2vec-doctor-{secrets.token_hex(4)}"
    owner = open_drive(name, folder, signed_in, SMALL_CHUNKS)
    owner.root_id()
    own = (
        Probe(name="sessions", run=_sessions_survive, meaning="a killed upload goes on where it stopped"),
        Probe(
            name="ids keep",
            run=partial(_ids_keep, home / "doctor-id.json"),
            meaning="a log may rest between two records",
        ),
        Probe(name="ids of the deleted", run=_spent_ids, meaning="for the curious: the runner never uses one again"),
    )
    try:
        yield (
            Scratch(open=lambda: RetryingStore(open_drive(name, folder, signed_in, SMALL_CHUNKS)), folder=folder),
            (*PROBES, *own),
        )
    finally:
        owner.delete(owner.folder_id)


def _sessions_survive(scratch: Scratch) -> str:
    path = scratch.folder / "long"
    path.write_bytes(secrets.token_bytes(4 * UNIT_BYTES))
    digest = digest_file(path)
    [id] = scratch.open().new_ids([NAME])
    with suppress(_Stopped):
        scratch.open().put(path, id=id, name=NAME, digest=digest, progress=_stop)
    sent: list[int] = []
    scratch.open().put(path, id=id, name=NAME, digest=digest, progress=sent.append)
    if sent[0] <= UNIT_BYTES:
        raise Broken("another connection began the upload anew: Drive had forgotten the session")
    return "another connection went on at the byte where the first one stopped"


def _ids_keep(place: Path, scratch: Scratch, now: Callable[[], float] = time.time) -> str:
    known = read_json(place)
    if isinstance(known, dict) and now() - known["made_at"] < OLD_SECONDS:
        return "an id is set aside for tomorrow: ask again then"
    [fresh] = scratch.open().new_ids([NAME])
    write_json(place, {"id": fresh, "made_at": now()})
    if known is None:
        return "an id was set aside: ask again tomorrow whether it can still be used"
    hours = (now() - known["made_at"]) / 3600
    if not scratch.open().create(known["id"], b"old", name=NAME):
        raise Broken(f"an id made {hours:.0f} h ago is taken")
    return f"an id made {hours:.0f} h ago was accepted"


def _spent_ids(scratch: Scratch) -> str:
    store, id = deleted(scratch)
    try:
        return "Drive takes it again" if store.create(id, b"y", name=NAME) else "Drive says that it is in use"
    except RunnerError as error:
        return f"Drive refuses it: {error}"


def _stop(size: int) -> None:
    raise _Stopped
