"""Ship one checkpoint in a process of its own: whatever it hangs in, it can be killed and repeated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import runner.errors
from runner.children import NOTIFY_VARIABLE, STORE_VARIABLE, importing_safely, python
from runner.errors import RunnerError, StoreBusy, StoreUnavailable
from runner.settings import TRANSFERS
from runner.store.base import Progress
from runner.store.lease import Watch
from runner.store.log import Log
from runner.store.open import open_store
from runner.store.publish import publish_checkpoint
from runner.store.records import Record
from wake2vec.contract.errors import CheckpointCorrupt
from wake2vec.contract.files import read_json, write_json

PROGRESS_SECONDS = 0.5
POLL_SECONDS = 0.2
STUCK_SECONDS = 420.0  # longer than the patience of the retries inside
NICE = 10  # the trainer's data loading goes first


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """What is to be made durable, in words that survive a change of process."""

    store_url: str
    home: str
    first_id: str  # of the job's log
    holder: str
    epoch: int
    folder: str
    kind: str
    attempt: int = 0
    hint: str | None = None  # where reading the log may start
    bandwidth_mib_per_second: float | None = None


class Transfer:
    """The process that ships. Ask `poll` now and then; nothing here ever waits."""

    def __init__(self, shipment: Shipment, process: subprocess.Popen[bytes], place: Path) -> None:
        self.shipment = shipment
        self._process = process
        self._place = place
        self._watch = Watch()

    @classmethod
    def start(cls, shipment: Shipment, place: Path) -> Transfer:
        """`place` is a folder of its own for this transfer's order, progress, result and output."""
        place.mkdir(parents=True, exist_ok=True)
        for name in ("progress.json", "result.json"):
            (place / name).unlink(missing_ok=True)
        told = asdict(shipment)
        environment = importing_safely(os.environ) | {STORE_VARIABLE: told.pop("store_url")}  # not into a file
        environment.pop(NOTIFY_VARIABLE, None)
        write_json(place / "order.json", told)
        with open(place / "output.log", "wb") as output:
            process = subprocess.Popen(
                python("runner.store.transfer", place),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
            )
        return cls(shipment, process, place)

    @property
    def sent_bytes(self) -> int:
        return int((read_json(self._place / "progress.json") or {}).get("bytes", 0))

    def silent_seconds(self, at: float) -> float:
        """For how long no byte has moved; `at` is the monotonic time of this call. Kill it when that is too long."""
        return self._watch.look(self.sent_bytes, at)

    def poll(self) -> Record | None:
        """None while it is under way, then the COMMIT. Raises what stopped it; StoreUnavailable when it was killed."""
        code = self._process.poll()
        if code is None:
            return None
        result = read_json(self._place / "result.json") or {}
        if "record" in result:
            return Record.from_bytes(result["record"].encode(), str(self._place))
        raise _error(result, code, self._place)

    def kill(self) -> None:
        """End it at once. Safe at any instant: the next transfer of the same checkpoint goes on from there."""
        self._process.kill()
        self._process.wait()


def ship_in_a_process(
    shipment: Shipment,
    place: Path,
    *,
    progress: Progress,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Record:
    """Ship, pass progress on a few times a second, and return the COMMIT. A transfer that stands still is killed.

    Raises what stopped it, StoreBusy when it was killed, and whatever `progress` raises, which ends it too.
    """
    transfer = Transfer.start(shipment, place)
    try:
        while (record := transfer.poll()) is None:
            progress(transfer.sent_bytes)
            if transfer.silent_seconds(monotonic()) > STUCK_SECONDS:
                raise StoreBusy(f"{shipment.folder}: no byte moved for {STUCK_SECONDS:.0f} s; it is tried again")
            sleep(POLL_SECONDS)
        return record
    finally:
        transfer.kill()


def _error(result: dict[str, Any], code: int, place: Path) -> Exception:
    name, message = result.get("error"), str(result.get("message", ""))
    if name == "CheckpointCorrupt":
        return CheckpointCorrupt(result.get("place", ""), message)
    kind = getattr(runner.errors, str(name), None)
    if kind is None:
        return StoreUnavailable(f"the upload process ended with {code}; {place / 'output.log'} tells more")
    assert issubclass(kind, RunnerError), kind
    found = kind(message)
    found.command = result.get("command", "")
    if isinstance(found, StoreBusy):
        found.retry_after_seconds = result.get("pause")
    return found


def ship(shipment: Shipment, place: Path) -> Record:
    """The work of the process: open everything anew, publish, commit."""
    store = open_store(
        shipment.store_url, Path(shipment.home), bandwidth_mib_per_second=shipment.bandwidth_mib_per_second
    )
    log = Log.open(store, shipment.first_id, holder=shipment.holder, hint=shipment.hint)
    last, parent = 0.0, os.getppid()

    def progress(size: int) -> None:
        nonlocal last
        if os.getppid() != parent:
            sys.exit("the daemon that wanted this is gone; the next one goes on from here")
        if time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            write_json(place / "progress.json", {"bytes": size}, durable=False)

    return publish_checkpoint(
        store,
        log,
        Path(shipment.folder),
        epoch=shipment.epoch,
        kind=shipment.kind,
        attempt=shipment.attempt,
        journal=Path(shipment.home) / TRANSFERS,
        progress=progress,
    )


def main(place: Path) -> int:
    """Do what `order.json` in `place` says, and leave `result.json` however it ends short of a kill."""
    os.nice(NICE)
    shipment = Shipment(store_url=os.environ[STORE_VARIABLE], **json.loads((place / "order.json").read_bytes()))
    result: dict[str, Any]
    try:
        record = ship(shipment, place)
    except CheckpointCorrupt as error:
        result = {"error": "CheckpointCorrupt", "place": error.place, "message": error.problem}
    except RunnerError as error:
        name = "StoreBusy" if isinstance(error, StoreBusy) else type(error).__name__
        pause = getattr(error, "retry_after_seconds", None)
        result = {"error": name, "message": str(error), "command": error.command, "pause": pause}
    else:
        result = {"record": record.to_bytes().decode()}
    write_json(place / "result.json", result)
    return 0 if "record" in result else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
