"""Bring files into a store and out again, in the order that makes them durable: parts, manifest, proof, COMMIT."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from runner.errors import Damaged, NotStored, StoreFull
from runner.store import journal as journals
from runner.store.base import Progress, Stat, Store
from runner.store.log import Log
from runner.store.names import safe_path
from runner.store.records import Commit, Record, StoredFile, commits, stored_ids
from runner.store.space import orphans, room_for
from wake2vec.contract.files import FileDigest, digest_file, put_in_place
from wake2vec.contract.manifest import KNOWN_FILES, MANIFEST, read_manifest, verify_checkpoint

OBJECTS = ("checkpoints", "files")  # what a job stores; beside these folders lie its log and its HEAD


def publish_checkpoint(
    store: Store,
    log: Log,
    folder: Path,
    *,
    epoch: int,
    kind: str,
    journal: Path,
    attempt: int = 0,
    progress: Progress | None = None,
) -> Record:
    """Make a saved checkpoint durable and return its COMMIT. Calling it again, after whatever, does the rest only.

    `kind` is rolling, milestone or final. `attempt` is the newest attempt at the job, so that another home goes on
    counting from there. `journal` is a folder that outlives this process: ids are written there
    before the first byte, so that a repetition continues instead of storing twice. Raises CheckpointCorrupt, Fenced
    (nothing was committed), StoreUnavailable.
    """
    manifest = verify_checkpoint(folder)
    proof = digest_file(folder / MANIFEST)
    log.refresh()
    record = committed(log.records, proof.sha256)
    if record is not None and all(is_there(store, file) for file in record.files.values()):
        return record
    log.check(epoch)  # a fenced runner uploads nothing
    place = f"{log.name}/checkpoints/{folder.name}"
    files = {**manifest.files, MANIFEST: proof}  # the manifest goes last
    stored = publish_files(
        store,
        {name: folder / name for name in files},
        files,
        folder=place,
        known=stored_parts(log.records),
        journal=journal,
        progress=progress,
    )
    for name, file in stored.items():
        if not is_there(store, file):
            forget(journal, place)
            raise NotStored(f"{folder / name}: was stored as {file.id} and is not there; the next try stores it anew")
    proof_there = stored.pop(MANIFEST)
    body = Commit(step=manifest.step, kind=kind, attempt=attempt, manifest=proof_there, parts=stored)
    record = commit(log, body, epoch=epoch)
    forget(journal, place)
    return record


def commit(log: Log, body: Commit, *, epoch: int) -> Record:
    """Append the COMMIT of a manifest unless it is there: after lost answers and restarts a checkpoint counts once."""
    log.refresh()
    known = committed(log.records, body.manifest.sha256)
    if known is not None and (known.commit.manifest, known.commit.parts) == (body.manifest, body.parts):
        return known
    return log.append("COMMIT", body.to_payload(), epoch=epoch)  # the first, or of objects that were stored anew


def publish_files(
    store: Store,
    paths: Mapping[str, Path],
    digests: Mapping[str, FileDigest] | None = None,
    *,
    folder: str,
    known: Mapping[str, StoredFile],
    journal: Path,
    progress: Progress | None = None,
) -> dict[str, StoredFile]:
    """Store files as `<folder>/<name>`, except those whose sha256 is among `known`; returns where each one is.

    The last one after all others, unless the store has them land together; a known file that the store has lost is
    stored again. `forget` the journal once the result is recorded in a log. Raises StoreFull, with nothing sent, when
    there is not room for all of them.
    `digests` that are known need not be made again.
    """
    digests = digests or {name: digest_file(path) for name, path in paths.items()}
    found = {name: known[digests[name].sha256] for name in paths if digests[name].sha256 in known}
    found = {name: file for name, file in found.items() if is_there(store, file)}
    names = {name: f"{folder}.*/{name}" for name in paths if name not in found}
    place = journal_of(journal, folder)
    ids = journals.take_ids(store, place, {digests[name].sha256: pattern for name, pattern in names.items()})
    _make_sure_of_room(store, sum(digests[name].size for name in names))
    moved, lock = _Together(progress), threading.Lock()

    def put(name: str) -> None:
        digest = digests[name]
        id, report = ids[digest.sha256], moved.of(name)
        try:
            store.put(paths[name], id=id, name=names[name], digest=digest, progress=report)
        except (Damaged, NotStored):
            with lock:
                journals.drop_id(place, digest.sha256)  # the id is spent: the next call stores under a new one
            raise
        report(digest.size)

    once = list({digests[name].sha256: name for name in names}.values())  # equal files are one object
    early = len(once) if store.properties.together else -1
    _side_by_side(put, once[:early], store.properties.at_once)
    _side_by_side(put, once[early:], 1)
    found |= {name: StoredFile.of(ids[digests[name].sha256], digests[name]) for name in names}
    return {name: found[name] for name in paths}


def _side_by_side(work: Callable[[str], None], names: Sequence[str], at_once: int) -> None:
    """All of them, or the first error once those that had begun have ended."""
    if at_once == 1 or len(names) < 2:
        for name in names:
            work(name)
        return
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for done in as_completed([pool.submit(work, name) for name in names]):
                done.result()
        finally:
            pool.shutdown(cancel_futures=True)


class _Together:
    """Progress of files that move at the same time, as progress of one."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> Progress:
        def report(size: int) -> None:
            with self._lock:
                self._sizes[name] = size
                if self._progress:
                    self._progress(sum(self._sizes.values()))

        return report


def fetch_checkpoint(store: Store, record: Record, into: Path, *, progress: Progress | None = None) -> Path:
    """Bring the checkpoint of a COMMIT to `<into>/checkpoint-<step>` and return it, verified and durable.

    Raises NotStored, Damaged or CheckpointCorrupt when it cannot be had; the COMMIT before is then the one to try.
    """
    commit = record.commit
    target, manifest, parts = into / f"checkpoint-{commit.step}", commit.manifest, commit.parts
    if target.exists():
        if verify_checkpoint(target) and digest_file(target / MANIFEST).sha256 != manifest.sha256:
            raise Damaged(f"{target}: is another checkpoint than the log names; it is left alone")
        return target
    if foreign := parts.keys() - KNOWN_FILES:
        raise Damaged(f"{target.name}: its record names foreign files {', '.join(sorted(foreign))}; nothing is fetched")
    arriving = into / f"{target.name}.tmp" / target.name
    fetch_files(store, {**parts, MANIFEST: manifest}, arriving, progress=progress)
    if read_manifest(arriving).files != {name: part.digest for name, part in parts.items()}:
        raise Damaged(f"{target.name}: its manifest lists other files than its record; try the checkpoint before")
    put_in_place(arriving, target)
    shutil.rmtree(arriving.parent)
    return target


def fetch_files(
    store: Store, files: Mapping[str, StoredFile], into: Path, *, progress: Progress | None = None
) -> dict[str, Path]:
    """Bring files into a folder; what is there and right already is not fetched again."""
    done, paths = 0, {}
    for name, file in files.items():
        paths[name] = safe_path(into, name)
        if not (paths[name].is_file() and digest_file(paths[name]) == file.digest):
            store.get(file.id, paths[name], digest=file.digest, progress=shifted(progress, done))
        done += file.size
    return paths


def sweep(store: Store, log: Log, *, journal: Path, now: float) -> list[Stat]:
    """Delete what killed uploads left among a job's objects, and return it. For the holder of the lease only."""
    named = stored_ids(log.records) | journals.set_aside(journal)
    found = [stat for folder in OBJECTS for stat in orphans(store.find(f"{log.name}/{folder}"), named, now=now)]
    if found:
        store.delete(*(stat.id for stat in found))
    return found


def committed(records: Sequence[Record], manifest_sha256: str) -> Record | None:
    """The newest COMMIT of that manifest, if there is one."""
    return next((one for one in reversed(commits(records)) if one.commit.manifest.sha256 == manifest_sha256), None)


def stored_parts(records: Sequence[Record]) -> dict[str, StoredFile]:
    """Parts that earlier commits hold, by sha256."""
    return {part.sha256: part for one in commits(records) for part in one.commit.parts.values()}


def journal_of(journal: Path, folder: str) -> Path:
    """The file that remembers, across kills, under which ids the files of a folder are being stored."""
    return journal / f"{folder.replace('/', '--')}.json"


def forget(journal: Path, folder: str) -> None:
    """Drop the ids that were set aside for a folder: its files are recorded, or never will be."""
    journal_of(journal, folder).unlink(missing_ok=True)


def shifted(progress: Progress | None, base: int) -> Progress | None:
    """Progress of one file as progress of many, of which `base` bytes came before."""
    return None if progress is None else lambda size: progress(base + size)


def _make_sure_of_room(store: Store, size: int) -> None:
    room = room_for(size, store.quota(), place=store.properties.place) if size else None
    if room is not None and not room.is_enough:
        raise StoreFull(room.text)


def is_there(store: Store, file: StoredFile) -> bool:
    stat = store.stat(file.id)
    if stat is None or stat.in_bin:
        return False
    kept = (stat.size, stat.md5 or file.md5, stat.sha256 or file.sha256)
    return kept == (file.size, file.md5, file.sha256)
