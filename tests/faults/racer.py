"""A runner reduced to its race: for every line on stdin, take the job if it can be had and commit its first step."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from runner.errors import Fenced, LeaseHeld
from runner.store.base import Store
from runner.store.lease import Watch, acquire
from runner.store.log import Log
from runner.store.open import open_store
from runner.store.publish import commit
from runner.store.records import Commit, StoredFile, newest_commit


def race(store: Store, holder: str, first_id: str, *, take_over: bool) -> str:
    log = Log.open(store, first_id, holder=holder)
    try:
        lease = acquire(log, Watch(), at=time.monotonic(), take_over=take_over)
        if newest_commit(log.records) is not None:
            return "late"
        manifest = StoredFile(id=holder, size=1, sha256=holder, md5="")
        commit(log, Commit(step=1, kind="milestone", manifest=manifest, parts={}), epoch=lease.epoch)
    except (Fenced, LeaseHeld):
        return "lost"
    return "committed"


def main(url: str, home: Path) -> None:
    store = open_store(url, home)
    for line in sys.stdin:
        first_id, how = line.split()
        print(race(store, home.name, first_id, take_over=how == "take-over"), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
