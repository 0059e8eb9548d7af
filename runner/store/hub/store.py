"""A private dataset repository on the Hugging Face Hub as a store: a write is a commit, and one alone can come next.

Objects are LFS files, which the hub keeps by their sha256: bytes that it has are not sent again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from runner.errors import Damaged, NotStored, RunnerError, StoreBusy, StoreLost, StoreUnavailable
from runner.store.base import Progress, Properties, Quota, Stat
from runner.store.download import download
from runner.store.hub.answers import Moved
from runner.store.hub.api import Repository, git_hash, is_name
from runner.store.hub.sending import Together
from runner.store.names import checked, fresh_id
from wake2vec.contract.files import FileDigest, digest_file

CHUNK_BYTES = 16 << 20
TRIES = 8  # to be the next commit, where others commit too
PACE = 4.0
OURS = (".", "log/", "head.", "jobs/", "inputs/", "database/", "README.md")  # names of what may lie there at the start
# LFS, whatever their size; the endings too, as the hub itself has them in a new repository
OBJECTS = ("jobs/*/checkpoints/**", "jobs/*/files/**", "inputs/**", "database/**", "*.safetensors", "*.gz", "*.png")


class HubStore:
    """Ids are paths in the repository, below `folder` where there is one."""

    def __init__(self, name: str, folder: str = "", *, endpoint: str | None = None, token: str | None = None) -> None:
        self._folder, self._place = folder, "hub:" + "/".join(filter(None, [name, folder]))
        self._repository = Repository(name, self._place, endpoint=endpoint, token=token)
        self._together = Together(self._repository.add)
        self._left: set[str] = set()  # sha256 of what was deleted and still takes room

    @property
    def properties(self) -> Properties:
        return Properties(place=self._place, remote=True, at_once=16, together=True, pace=PACE)

    def root_id(self) -> str:
        return "log/000000.json"

    def renew_root(self) -> None:
        self._make()
        self.delete(self.root_id())  # what is there cannot be read

    def new_ids(self, names: Sequence[str]) -> list[str]:
        fresh = secrets.token_hex(4)
        return [fresh_id(name, fresh) for name in names]

    def put(self, path: Path, *, id: str, name: str, digest: FileDigest, progress: Progress | None = None) -> None:
        there = self._path(id)
        if digest_file(path) != digest:
            raise Damaged(f"{path}: is not what its manifest says; it is not uploaded")
        found = self._repository.look([there]).get(there)
        if found is None:
            self._together.add(lambda: self._repository.send(path, there, digest.sha256, progress))
            found = self._repository.look([there]).get(there)
        if found is None or not _holds(found, path, digest):
            raise Damaged(f"{self._place}: {id}: holds other bytes than {path}")
        self._repository.part(there, max(digest.size - 1, 0), digest.size)  # the last one is there, not only named
        if progress:
            progress(digest.size)

    def get(self, id: str, path: Path, *, digest: FileDigest, progress: Progress | None = None) -> None:
        there, stat = self._path(id), self.stat(id)
        if stat is None:
            raise NotStored(f"{self._place}: {id}: is not in the store")

        def chunks(start: int) -> Iterator[bytes]:
            for first in range(start, stat.size, CHUNK_BYTES):
                yield self._repository.part(there, first, min(first + CHUNK_BYTES, stat.size))

        download(chunks, path, place=f"{self._place}: {id}", digest=digest, progress=progress)

    def stat(self, id: str) -> Stat | None:
        path = self._path(id)
        with suppress(StoreLost):  # no repository, no object: whoever knows that there was one says so
            if id == self.root_id():  # which is looked at once a minute
                self._refuse_what_all_can_read(self._repository.is_private())
            if found := self._repository.look([path]).get(path):
                return self._stat(found)
        return None

    def delete(self, *ids: str) -> None:
        paths = [self._path(id) for id in ids]
        for _ in range(TRIES):
            parent = self._repository.head()
            found = self._repository.look(paths, parent)
            try:
                if found:
                    self._left |= {one.lfs.sha256 for one in found.values() if one.lfs}
                    self._repository.remove(list(found), parent)
            except Moved:
                continue
            with suppress(StoreUnavailable):  # the next one does it too
                self._free()
            return
        raise self._crowded()

    def _free(self) -> None:
        """Give back the room of what no path leads to any more: a commit that deletes keeps it in the history.

        A kill before it leaves the bytes where only the account's quota sees them.
        """
        if self._left:
            self._left -= {one.lfs.sha256 for one in self._repository.tree() if one.lfs}
            self._repository.drop(self._left)
            self._left.clear()

    def find(self, folder: str) -> Iterator[Stat]:
        with suppress(NotStored, StoreLost):
            yield from map(self._stat, self._repository.tree(self._path(folder), expand=True))

    def quota(self) -> Quota:
        return Quota(free=None)

    def create(self, id: str, body: bytes, *, name: str) -> bool:
        if id == self.root_id():
            self._make()
        return self._write(id, body, lambda found: found is None)

    def read(self, id: str) -> bytes | None:
        with suppress(NotStored, StoreLost):
            body: bytes = self._repository.answer(self._path(id)).content
            return body
        return None

    def read_head(self, id: str) -> tuple[bytes, str] | None:
        path = self._path(id)
        with suppress(StoreLost):
            head = self._repository.head()
            if found := self._repository.look([path], head).get(path):
                return self._repository.answer(path, head).content, found.last_commit.oid
        return None

    def silence(self, id: str) -> float | None:
        path = self._path(id)
        found = self._repository.look([path]).get(path)
        now = self._repository.answer(path).headers.get("date") if found else None
        return None if found is None or now is None else _seconds(found.last_commit.date, parsedate_to_datetime(now))

    def swap_head(self, id: str, body: bytes, tag: str | None, *, name: str) -> bool:
        return self._write(id, body, lambda found: (found and found.last_commit.oid) == tag)

    def _write(self, id: str, body: bytes, is_due: Callable[[Any], bool]) -> bool:
        """Commit a small file behind the very commit in which it was seen that this is due: nobody came in between."""
        path = self._path(id)
        files = {path: body}
        if id == self.root_id():
            lines = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in OBJECTS)
            files[self._below(".gitattributes")] = lines.encode()
        for _ in range(TRIES):
            parent = self._repository.head()
            found = self._repository.look([path], parent).get(path)
            if not is_due(found) or (found and found.blob_id == git_hash(body)):  # the same words are no new document
                return False
            try:
                self._repository.write(files, parent)
            except Moved:
                continue
            return True
        raise self._crowded()

    def _make(self) -> None:
        """See that the repository is there, private, and nobody else's. Raises StoreUnavailable."""
        about = self._repository.make()
        self._refuse_what_all_can_read(about.private)
        foreign = [file.rfilename for file in about.siblings or () if not file.rfilename.startswith(OURS)]
        if foreign and not self._folder:
            raise StoreUnavailable(f"{self._place}: holds something else ({min(foreign)}); choose another repository")

    def _refuse_what_all_can_read(self, is_private: bool) -> None:
        if not is_private:
            raise StoreUnavailable(f"{self._place}: can be read by everybody; make it private in its settings there")

    def _path(self, id: str) -> str:
        return self._below(checked(id))

    def _below(self, name: str) -> str:
        return "/".join(filter(None, [self._folder, name]))

    def _stat(self, found: Any) -> Stat:
        id = found.path.removeprefix(f"{self._folder}/") if self._folder else found.path
        sha256 = found.lfs.sha256 if found.lfs else None
        return Stat(id=id, size=found.size, sha256=sha256, created_at=found.last_commit.date.timestamp())

    def _crowded(self) -> StoreBusy:
        return StoreBusy(f"{self._place}: others commit there all the time; it is tried again")


def _holds(found: Any, path: Path, digest: FileDigest) -> bool:
    """By the hash that the hub keeps: of the bytes, or of a small file the one that git makes."""
    if found.lfs:
        return bool(found.lfs.sha256 == digest.sha256)
    return bool(found.blob_id == git_hash(path.read_bytes()))


def _seconds(since: Any, until: Any) -> float:
    return float((until - since).total_seconds())


def open_hub(rest: str, environ: Mapping[str, str]) -> HubStore:
    """USER/REPO, and a folder in it where one follows. The token is HF_TOKEN, or what `hf auth login` keeps."""
    user, name, folder = (*rest.strip("/").split("/", 2), "", "")[:3]
    if not name or not is_name(f"{user}/{name}"):
        raise RunnerError(f"--store hub:{rest}: expected hub:USER/REPO, a dataset repository of yours")
    endpoint, token = environ.get("HF_ENDPOINT") or None, environ.get("HF_TOKEN") or None
    return HubStore(f"{user}/{name}", folder, endpoint=endpoint, token=token)
