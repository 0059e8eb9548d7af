"""The protocols behind the store's guarantees: each tries to break one and returns its figures."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.store.base import Store
from runner.store.drive.store import DriveStore, open_drive
from runner.store.drive.transfer import UNIT_BYTES, Throttle
from runner.store.lease import Watch, acquire
from runner.store.log import Log
from runner.store.places.directory import DirectoryStore
from runner.store.publish import fetch_checkpoint, publish_checkpoint
from runner.store.records import Genesis, Record, commits
from runner.store.retry import Backoff, RetryingStore
from runner.store.root import add_job, open_root
from runner.store.transfer import Shipment, Transfer
from tests.drive_server.faults import Fault, Rule
from tests.drive_server.server import DriveServer
from tests.faults.simulation import World
from tests.unit.runner.store.suite import checkpoint
from wake2vec.contract.files import digest_file

SCALE = float(os.environ.get("FAULTS", "0.04"))  # 1 is the whole budget of `make faults`
MEMORY_MIB = 32  # above the process, whatever the file's size
ROOT = Path(__file__).resolve().parents[3]
NAME = "jobs/q/checkpoints/checkpoint-200.*/trainable.safetensors"
# one unit a chunk, never waiting: many chunks in a small file
SMALL_CHUNKS = Throttle(bytes_per_second=UNIT_BYTES / 2, sleep=lambda seconds: None)
MIDDLE_CHUNKS = Throttle(bytes_per_second=UNIT_BYTES * 2, sleep=lambda seconds: None)  # four units a chunk


def budget(full: int, least: int = 1) -> int:
    """A share of the full number of trials, by the environment variable FAULTS."""
    return max(least, round(full * SCALE))


@contextmanager
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="wake2vec-faults-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def opened(server: DriveServer, home: Path, throttle: Throttle = SMALL_CHUNKS) -> DriveStore:
    return open_drive("wake2vec", home, server.environ(), throttle)


def patient(store: Store) -> Store:
    """Tries for ever and never sleeps."""
    return RetryingStore(store, backoff=Backoff(give_up_seconds=float("inf")), sleep=lambda seconds: None)


def schedules(count: int, *, exclusive_create: bool = True) -> dict[str, Any]:
    """Random schedules of two and three runners with kills, freezes, skewed clocks, late requests and lost answers."""
    met: Counter[str] = Counter()
    calls, broken = 0, []
    for seed in range(count):
        world = World(seed=seed, runners=2 + seed % 2, exclusive_create=exclusive_create)
        broken += [f"seed {seed}: {fault}" for fault in world.run()]
        met += world.met
        calls += world.calls
    return {
        "schedules": count,
        "calls": calls,
        "faults": sum(met.values()),
        "faults_by_kind": dict(met),
        "broken": broken,
        "wrong": len(broken),
    }


def faulty_calls(faults: int, *, rate: float = 0.25, seed: int = 0) -> dict[str, Any]:
    """Publish checkpoint after checkpoint to a Drive that fails at random, until so many calls have met a fault.

    Every confirmed COMMIT must be in the log once and its files whole; Drive must hold those files and no others.
    """
    with scratch() as folder, DriveServer(folder / "google", etag_drift=0.1) as server:
        store = patient(opened(server, folder / "home"))
        log = add_job(open_root(store, holder="a"), "q", Genesis(fingerprint="f"))
        lease = acquire(log, Watch(), at=0.0)
        server.faults.random.seed(seed)
        server.faults.rate = rate
        confirmed: list[Record] = []
        while sum(server.faults.met.values()) < faults:
            source = checkpoint(folder / "run", len(confirmed) + 1, size=300_000)
            confirmed.append(
                publish_checkpoint(
                    store, log, source, epoch=lease.epoch, kind="milestone", journal=folder / "transfers"
                )
            )
            lease.beat()
        for record in confirmed[-3:]:
            fetch_checkpoint(store, record, folder / "back")
        server.faults.rate = 0.0
        return _verdict(server, log, confirmed, folder)


def _verdict(server: DriveServer, log: Log, confirmed: list[Record], folder: Path) -> dict[str, Any]:
    found = commits(Log.open(log.store, log.first_id, holder="judge").records)
    named = [file for record in found for file in record.files.values()]
    present = {stat.id: stat for stat in log.store.find("jobs/q/checkpoints")}
    whole = {one.id for one in named if one.id in present and present[one.id].md5 == one.md5}
    kept = {record.nonce for record in found}
    shas = Counter(record.commit.manifest.sha256 for record in found)
    wrong = {
        "lost": len([one for one in confirmed if one.nonce not in kept]) + len({one.id for one in named} - whole),
        "duplicate": len(present.keys() - {one.id for one in named}),
        "double_commits": sum(count - 1 for count in shas.values()),
    }
    return {
        "calls": server.faults.calls,
        "faults": sum(server.faults.met.values()),
        "faults_by_kind": dict(server.faults.met),
        "commits": len(found),
        "wrong": sum(wrong.values()),
        **wrong,
    }


UPLOADER = """
import os, sys
from pathlib import Path
from tests.faults.protocols.store import MIDDLE_CHUNKS, NAME, digest_file
from runner.store.drive.store import open_drive

home, source, id = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
store = open_drive("wake2vec", home, os.environ, MIDDLE_CHUNKS)
store.put(source, id=id, name=NAME, digest=digest_file(source))
"""


def killed_uploads(kills: int, *, units: int = 12, seed: int = 0) -> dict[str, Any]:
    """kill -9 an upload at a random byte, carry on in another process, and count what was sent twice."""
    draw = random.Random(seed)
    resent, wrong, before_the_first_chunk = [], 0, 0
    with scratch() as folder, DriveServer(folder / "google") as server:
        source = folder / "in"
        source.write_bytes(draw.randbytes(units * UNIT_BYTES + 12_345))
        digest = digest_file(source)
        for number in range(kills):
            home = folder / f"home-{number}"
            store = opened(server, home, MIDDLE_CHUNKS)
            [id] = store.new_ids([NAME])
            sessions, left = set(server.drive.sessions), draw.randrange(1, digest.size)
            command = [sys.executable, "-c", UPLOADER, str(home), str(source), id]
            victim = subprocess.Popen(command, env={**os.environ, **server.environ()}, cwd=ROOT)
            server.on_bytes = _killer(victim, left)
            victim.wait()
            server.on_bytes = lambda size: True
            [session] = [one for name, one in server.drive.sessions.items() if name not in sessions]
            _settle(session)
            held, sent = session.received, server.drive.counts["chunk_bytes"]
            before_the_first_chunk += held == 0
            patient(opened(server, home, MIDDLE_CHUNKS)).put(source, id=id, name=NAME, digest=digest)
            resent.append(server.drive.counts["chunk_bytes"] - sent - (digest.size - held))
            wrong += server.drive.files[id].md5 != digest.md5
        return {
            "kills": kills,
            "bytes_resent_max": max(resent),
            "chunk_bytes": MIDDLE_CHUNKS.chunk_bytes,
            "sessions": server.drive.counts["sessions"],
            "killed_before_anything_was_kept": before_the_first_chunk,
            "wrong": wrong + (max(resent) > MIDDLE_CHUNKS.chunk_bytes),
            "lost": wrong,
            "duplicate": server.drive.counts["inserted"] - len(server.drive.files),
        }


def _killer(victim: subprocess.Popen[bytes], after: int) -> Any:
    """Counts the bytes of chunks as they arrive; the process dies with byte number `after`."""
    arrived = 0

    def on_bytes(size: int) -> bool:
        nonlocal arrived
        arrived += size
        if arrived >= after:
            victim.kill()
        return arrived < after  # what the dead process had written ahead into the line is lost with it

    return on_bytes


def _settle(session: Any) -> None:
    """Wait until the server has read what the dead process left in the line."""
    before = -1
    while before != session.received:
        before = session.received
        time.sleep(0.05)


MEASURE = """
import os, sys
from pathlib import Path
from tests.faults.protocols.store import NAME, peak_mib, reset_peak
from runner.store.drive.store import open_drive
from runner.store.drive.transfer import Throttle
from wake2vec.contract.files import FileDigest, digest_file

folder, which, id = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
digest = FileDigest(size=int(sys.argv[4]), sha256=sys.argv[5], md5=sys.argv[6])
store = open_drive("wake2vec", folder / "home", os.environ, Throttle())
small = folder / "small"
small.write_bytes(b"x")
[warm] = store.new_ids([NAME])
store.put(small, id=warm, name=NAME, digest=digest_file(small))
store.get(warm, folder / "warm", digest=digest_file(small))
before = reset_peak()
if which == "put":
    store.put(folder / "in", id=id, name=NAME, digest=digest)
else:
    store.get(id, folder / "out", digest=digest)
print(peak_mib() - before)
"""


def memory(size_mib: int) -> dict[str, Any]:
    """How much memory a transfer takes above what the process had, whatever the file's size. Linux only."""
    with scratch() as folder, DriveServer(folder / "google") as server:
        source = folder / "in"
        with open(source, "wb") as file:
            for number in range(size_mib):
                file.write(bytes([number % 256]) * (1 << 20))
        digest = digest_file(source)
        [id] = opened(server, folder / "home").new_ids([NAME])
        told = [str(digest.size), digest.sha256, digest.md5]
        peaks = {}
        for which in ("put", "get"):
            command = [sys.executable, "-c", MEASURE, str(folder), which, id, *told]
            said = subprocess.run(
                command, env={**os.environ, **server.environ()}, cwd=ROOT, capture_output=True, text=True, check=True
            )
            peaks[which] = float(said.stdout)
        assert digest_file(folder / "out") == digest
        return {
            "size_mib": size_mib,
            "peak_rss_mib": max(peaks.values()),
            "wrong": int(max(peaks.values()) > MEMORY_MIB),
            "put_mib": peaks["put"],
            "get_mib": peaks["get"],
        }


def reset_peak() -> float:
    """Forget the highest memory so far; returns what is in use now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_mib() -> float:
    return _status("VmHWM")


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def races(rounds: int, *, runners: int = 3, kind: str = "drive") -> dict[str, Any]:
    """Real processes race for one job, round after round; in every second round each takes over from the others."""
    winners: Counter[int] = Counter()
    with scratch() as folder, DriveServer(folder / "google") as server:
        url = f"dir:{folder / 'store'}" if kind == "dir" else "drive:wake2vec"
        racers = [_racer(folder / f"home-{number}", url, server) for number in range(runners)]
        store = patient(opened(server, folder / "judge")) if kind == "drive" else DirectoryStore(folder / "store")
        root = open_root(store, holder="judge")
        counts = []
        try:
            for number in range(rounds):
                log = add_job(root, f"job-{number}", Genesis(fingerprint="f"))
                say = f"{log.first_id} {'take-over' if number % 2 else 'acquire'}\n".encode()
                taking_part = racers[: 2 + number % (runners - 1)]
                for racer in taking_part:
                    _stdin(racer).write(say)
                    _stdin(racer).flush()
                answers = [_stdout(racer).readline() for racer in taking_part]
                log.refresh()
                counts.append(len(commits(log.records)))
                winners[answers.count(b"committed\n")] += 1
        finally:
            for racer in racers:
                _stdin(racer).close()
                racer.wait()
                _stdout(racer).close()
    return {
        "races": rounds,
        "exactly_one": counts.count(1),
        "wrong": rounds - counts.count(1),
        "winners_told": dict(winners),
        "double_commits": sum(max(0, one - 1) for one in counts),
    }


def _racer(home: Path, url: str, server: DriveServer) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.faults.racer", url, str(home)]
    return subprocess.Popen(
        command, env={**os.environ, **server.environ()}, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def _stdin(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdin is not None
    return process.stdin


def _stdout(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    return process.stdout


@contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def stuck_transfer() -> dict[str, Any]:
    """An upload into a Drive that answers nothing: how long asking after it, and ending it, hold the daemon up."""
    with scratch() as folder, DriveServer(folder / "google") as server:
        store = opened(server, folder / "home")
        log = add_job(open_root(patient(store), holder="a"), "q", Genesis(fingerprint="f"))
        lease = acquire(log, Watch(), at=0.0)
        server.faults.rules = [Rule(Fault("stall"), "PUT /session", times=1000)]
        shipment = Shipment(
            store_url="drive:wake2vec", home=str(folder / "home"), first_id=log.first_id, holder="a", epoch=lease.epoch,
            folder=str(checkpoint(folder / "run", 1)), kind="milestone",
        )  # fmt: skip
        held_up = 0.0
        with _environment(server.environ()):
            transfer = Transfer.start(shipment, folder / "running")
        while server.faults.met["stall"] == 0:
            began = time.monotonic()
            assert transfer.poll() is None
            held_up = max(held_up, time.monotonic() - began)
            time.sleep(0.01)
        began = time.monotonic()
        transfer.kill()
        held_up = max(held_up, time.monotonic() - began)
        server.faults.rules = []
        publish_checkpoint(
            patient(store),
            log,
            folder / "run" / "checkpoint-1",
            epoch=lease.epoch,
            kind="milestone",
            journal=folder / "home" / "transfers",
        )
        lost = 1 - len(commits(log.records))
        return {"blocked_seconds_max": held_up, "lost": lost, "wrong": lost + (held_up > 1.0)}
