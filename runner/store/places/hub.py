"""A private dataset repository on the Hugging Face Hub as a store: a write is a commit, and only one can follow another.

Objects are LFS files, which the hub keeps by their sha256: bytes that it has are not sent again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from runner.errors import Damaged, NotStored, RunnerError, StoreBusy, StoreLost, StoreUnavailable
from runner.store.base import Progress, Properties, Quota, Stat
from runner.store.download import download
from runner.store.names import checked, fresh_id
from runner.store.places.hub_answers import Moved, meaning
from wake2vec.contract.files import FileDigest, digest_file

DATASET = "dataset"
BRANCH = "main"
SECONDS = 120.0  # without a byte; the library itself would wait for ever
CHUNK_BYTES = 16 << 20
TRIES = 8  # to be the next commit, where others commit too
PACE = 4.0
BARE = frozenset({".gitattributes", "README.md"})  # what the hub itself puts into a new repository
OURS = ("log/", "head.", "jobs/", "inputs/", "database/", ".doctor-")
OBJECTS = ("jobs/*/checkpoints/**", "jobs/*/files/**", "inputs/**", "database/**")  # LFS, whatever their size


class HubStore:
    """Ids are paths in the repository, below `folder` where there is one."""

    def __init__(self, repo: str, folder: str = "", *, endpoint: str | None = None, token: str | None = None) -> None:
        self._repo, self._folder, self._endpoint, self._token = repo, folder, endpoint, token
        self._place = "hub:" + "/".join(filter(None, [repo, folder]))
        self._together = _Together(self._commit)
        self._left: set[str] = set()  # sha256 of what was deleted and still takes room

    @property
    def properties(self) -> Properties:
        return Properties(place=self._place, remote=True, at_once=16, together=True, pace=PACE)

    def root_id(self) -> str:
        return "log/000000.json"

    def renew_root(self) -> None:
        self.make()
        self.delete(self.root_id())  # what is there cannot be read

    def new_ids(self, names: Sequence[str]) -> list[str]:
        fresh = secrets.token_hex(4)
        return [fresh_id(name, fresh) for name in names]

    def put(self, path: Path, *, id: str, name: str, digest: FileDigest, progress: Progress | None = None) -> None:
        if digest_file(path) != digest:
            raise Damaged(f"{path}: is not what its manifest says; it is not uploaded")
        found = self._look([id]).get(id)
        if found is None:
            self._together.add(lambda: self._sent(path, id, digest, progress))
            found = self._look([id]).get(id)
        if found is None or not _holds(found, path, digest):
            raise Damaged(f"{self._place}: {id}: holds other bytes than {path}")
        self._bytes(id, max(digest.size - 1, 0), digest.size)  # its last one: there, and not only spoken of
        if progress:
            progress(digest.size)

    def _sent(self, path: Path, id: str, digest: FileDigest, progress: Progress | None) -> Any:
        """The bytes on the hub, where nobody sees them before the operation that is returned is committed."""
        from huggingface_hub import CommitOperationAdd

        with _Told(path) as reading, self._translated():
            operation = CommitOperationAdd(path_in_repo=self._path(id), path_or_fileobj=reading)
            operation.upload_info.sha256 = bytes.fromhex(digest.sha256)
            reading.progress = progress
            self._api.preupload_lfs_files(self._repo, [operation], repo_type=DATASET)
            if operation.path_or_fileobj is reading:  # small enough to be part of the commit itself
                operation.path_or_fileobj = path.read_bytes()
        return operation

    def get(self, id: str, path: Path, *, digest: FileDigest, progress: Progress | None = None) -> None:
        stat = self.stat(id)
        if stat is None:
            raise NotStored(f"{self._place}: {id}: is not in the store")

        def chunks(start: int) -> Iterator[bytes]:
            for first in range(start, stat.size, CHUNK_BYTES):
                yield self._bytes(id, first, min(first + CHUNK_BYTES, stat.size))

        download(chunks, path, place=f"{self._place}: {id}", digest=digest, progress=progress)

    def stat(self, id: str) -> Stat | None:
        found = self._look([id], may_lack=True).get(id)
        return None if found is None else self._stat(found)

    def delete(self, *ids: str) -> None:
        from huggingface_hub import CommitOperationDelete

        for _ in range(TRIES):
            parent = self._head()
            found = self._look(ids, parent)
            try:
                if found:
                    gone = [CommitOperationDelete(path_in_repo=one.path, is_folder=False) for one in found.values()]
                    self._left |= {one.lfs.sha256 for one in found.values() if one.lfs}
                    self._commit(gone, parent)
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
        if not self._left:
            return
        with self._translated():
            there = self._api.list_repo_tree(self._repo, recursive=True, repo_type=DATASET)
            self._left -= {one.lfs.sha256 for one in there if getattr(one, "lfs", None)}
            unused = [SimpleNamespace(file_oid=sha256) for sha256 in sorted(self._left)]
            self._api.permanently_delete_lfs_files(self._repo, unused, rewrite_history=False, repo_type=DATASET)
        self._left.clear()

    def find(self, folder: str) -> Iterator[Stat]:
        path = self._path(folder)
        try:
            with self._translated():
                there = self._api.list_repo_tree(self._repo, path, recursive=True, expand=True, repo_type=DATASET)
                found = [one for one in there if hasattr(one, "blob_id")]
        except (NotStored, StoreLost):
            return
        yield from map(self._stat, found)

    def quota(self) -> Quota:
        return Quota(free=None)

    def create(self, id: str, body: bytes, *, name: str) -> bool:
        if id == self.root_id():
            self.make()
        return self._write(id, body, lambda found: found is None)

    def read(self, id: str) -> bytes | None:
        try:
            return self._response(id).content
        except NotStored:
            return None
        except StoreLost:
            return None  # no repository, no record: whoever knows that there was one says so

    def read_head(self, id: str) -> tuple[bytes, str] | None:
        try:
            head = self._head()
            found = self._look([id], head).get(id)
        except StoreLost:
            return None
        return None if found is None else (self._response(id, head).content, found.last_commit.oid)

    def silence(self, id: str) -> float | None:
        found = self._look([id]).get(id)
        now = self._response(id).headers.get("date") if found else None
        return None if found is None or now is None else (
            parsedate_to_datetime(now) - found.last_commit.date).total_seconds()  # fmt: skip

    def swap_head(self, id: str, body: bytes, tag: str | None, *, name: str) -> bool:
        return self._write(id, body, lambda found: (found and found.last_commit.oid) == tag)

    def make(self) -> None:
        """See that the repository is there, private, and nobody else's. Raises StoreUnavailable."""
        with self._translated():
            self._api.create_repo(self._repo, repo_type=DATASET, private=True, exist_ok=True)
            about = self._api.dataset_info(self._repo)
        if not about.private:
            raise StoreUnavailable(f"{self._place}: can be read by everybody; make it private in its settings there")
        names = {file.rfilename for file in about.siblings or ()}
        foreign = {name for name in names - BARE if not name.startswith(OURS)}
        if foreign and not self._folder:
            raise StoreUnavailable(f"{self._place}: holds something else ({min(foreign)}); choose another repository")

    def _write(self, id: str, body: bytes, is_due: Callable[[Any], bool]) -> bool:
        """Commit a small file behind the very commit in which it was seen that this is due: nobody came in between."""
        files = {self._path(id): body}
        if id == self.root_id():
            lines = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in OBJECTS)
            files[self._below(".gitattributes")] = lines.encode()
        for _ in range(TRIES):
            parent = self._head()
            found = self._look([id], parent).get(id)
            if not is_due(found) or (found and found.blob_id == _git_hash(body)):  # the same words are no new document
                return False
            try:
                self._commit_small(files, parent)
            except Moved:
                continue
            return True
        raise self._crowded()

    def _commit_small(self, files: Mapping[str, bytes], parent: str) -> None:
        """Asked by ourselves: create_commit leaves out what somebody else has just written, and says that it is done."""
        header = {"summary": next(iter(files)), "description": "", "parentCommit": parent}
        lines: list[dict[str, Any]] = [{"key": "header", "value": header}]
        for path, body in files.items():
            content = base64.b64encode(body).decode()
            lines.append({"key": "file", "value": {"content": content, "path": path, "encoding": "base64"}})
        body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        self._ask("post", f"{self._api.endpoint}/api/datasets/{self._repo}/commit/{BRANCH}", content=body)

    def _commit(self, operations: Sequence[Any], parent: str | None = None) -> None:
        first = operations[0].path_in_repo
        more = f" and {len(operations) - 1} more" if len(operations) > 1 else ""
        with self._translated():
            self._api.create_commit(
                self._repo, operations, commit_message=f"{first}{more}", parent_commit=parent, repo_type=DATASET
            )

    def _head(self) -> str:
        """The newest commit."""
        with self._translated():
            branches = self._api.list_repo_refs(self._repo, repo_type=DATASET).branches
        found = [branch.target_commit for branch in branches if branch.name == BRANCH]
        if not found:
            raise StoreLost(f"{self._place}: has no branch {BRANCH}")
        return str(found[0])

    def _look(self, ids: Sequence[str], revision: str = BRANCH, *, may_lack: bool = False) -> dict[str, Any]:
        """What lies under those of the ids that are there."""
        if not ids:
            return {}
        paths = {self._path(id): id for id in ids}
        try:
            with self._translated():
                found = self._api.get_paths_info(
                    self._repo, list(paths), revision=revision, expand=True, repo_type=DATASET
                )
        except StoreLost:
            if may_lack:
                return {}
            raise
        return {paths[one.path]: one for one in found if hasattr(one, "blob_id")}

    def _bytes(self, id: str, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        response = self._response(id, headers={"Range": f"bytes={start}-{end - 1}"})
        body: bytes = response.content
        return body if response.status_code == 206 else body[start:end]

    def _response(self, id: str, revision: str = BRANCH, headers: Mapping[str, str] | None = None) -> Any:
        from huggingface_hub import hf_hub_url

        path = self._path(id)
        url = hf_hub_url(self._repo, path, repo_type=DATASET, revision=revision, endpoint=self._api.endpoint)
        return self._ask("get", url, {"Accept-Encoding": "identity", **(headers or {})})

    def _ask(self, verb: str, url: str, headers: Mapping[str, str] | None = None, **more: Any) -> Any:
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        with self._translated():
            asked = {**build_hf_headers(token=self._token), "Content-Type": "application/x-ndjson", **(headers or {})}
            response = getattr(get_session(), verb)(url, headers=asked, **more)
            hf_raise_for_status(response)
        return response

    @property
    def _api(self) -> Any:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars, get_session, logging

        logging.set_verbosity_error()  # of each upload it would say that it is a plain one
        disable_progress_bars()
        get_session().timeout = SECONDS
        return HfApi(endpoint=self._endpoint, token=self._token)

    def _path(self, id: str) -> str:
        return self._below(checked(id))

    def _below(self, name: str) -> str:
        return "/".join(filter(None, [self._folder, name]))

    def _stat(self, found: Any) -> Stat:
        id = found.path.removeprefix(f"{self._folder}/") if self._folder else found.path
        written_at = found.last_commit.date.timestamp() if found.last_commit else None
        sha256 = found.lfs.sha256 if found.lfs else None
        return Stat(id=id, size=found.size, sha256=sha256, created_at=written_at)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except RunnerError:
            raise
        except Exception as error:
            raise meaning(self._place, error) from error

    def _crowded(self) -> StoreBusy:
        return StoreBusy(f"{self._place}: others commit there all the time; it is tried again")


class _Told(io.BufferedReader):
    """A file that tells how far it was read, once somebody listens."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.progress: Progress | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        if self.progress:
            self.progress(self.tell())
        return chunk


class _Together:
    """What threads bring at the same time, as one commit: whoever is ready last makes it, and the others wait."""

    def __init__(self, commit: Callable[[Sequence[Any]], None]) -> None:
        self._commit, self._lock = commit, threading.Lock()
        self._coming, self._ready = 0, list[tuple[Any, Future[None]]]()

    def add(self, prepare: Callable[[], Any]) -> None:
        """Returns once what `prepare` made is committed. Raises what kept it from that."""
        mine, made = Future[None](), None
        with self._lock:
            self._coming += 1
        try:
            made = prepare()
        finally:
            with self._lock:
                self._coming -= 1
                self._ready += [(made, mine)] if made is not None else []
                batch = [] if self._coming else self._ready
                self._ready = self._ready if self._coming else []
            if batch:
                self._conclude(batch)
        mine.result()

    def _conclude(self, batch: Sequence[tuple[Any, Future[None]]]) -> None:
        try:
            self._commit([made for made, _ in batch])
        except BaseException as error:
            for _, waiting in batch:
                waiting.set_exception(error)
        else:
            for _, waiting in batch:
                waiting.set_result(None)


def _holds(found: Any, path: Path, digest: FileDigest) -> bool:
    """By the hash that the hub keeps: of the bytes, or of a small file the one that git makes."""
    if found.lfs:
        return bool(found.lfs.sha256 == digest.sha256)
    return bool(found.blob_id == _git_hash(path.read_bytes()))


def _git_hash(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%b" % (len(body), body), usedforsecurity=False).hexdigest()


def open_hub(rest: str, environ: Mapping[str, str]) -> HubStore:
    """USER/REPO, and a folder in it where one follows. The token is HF_TOKEN, or what `hf auth login` keeps."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    user, _, more = rest.strip("/").partition("/")
    name, _, folder = more.partition("/")
    try:
        if not name:
            raise HFValidationError("no USER/REPO")
        validate_repo_id(f"{user}/{name}")
    except HFValidationError:
        raise RunnerError(f"--store hub:{rest}: expected hub:USER/REPO, a dataset repository of yours") from None
    return HubStore(
        f"{user}/{name}", folder, endpoint=environ.get("HF_ENDPOINT") or None, token=environ.get("HF_TOKEN") or None
    )
