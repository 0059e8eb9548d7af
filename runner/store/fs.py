"""Any fsspec file system as a store: S3, GCS, the HF Hub and the rest, as far as their own promises carry."""

from __future__ import annotations

import base64
import datetime
import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.errors import Damaged, NotStored, SignInNeeded, StoreBusy, StoreFull
from runner.store.base import Progress, Properties, Quota, Stat
from runner.store.download import download
from runner.store.names import checked, fresh_id
from wake2vec.files import FileDigest, digest_file

CHUNK_BYTES = 8 << 20
# Their pipe_file(mode="create") is one conditional request (If-None-Match, ifGenerationMatch); elsewhere it looks first
# and writes then, which lets two writers both believe that they were alone.
CONDITIONAL = {"s3", "s3a", "gs", "gcs"}


class FsStore:
    """Ids are paths below a root. Without conditional create it is for one writer only, and says so."""

    def __init__(self, fs: Any, root: str, *, conditional: bool) -> None:
        self._fs = fs
        self._root = root.rstrip("/")
        self._conditional = conditional

    @property
    def properties(self) -> Properties:
        note = "" if self._conditional else " (for one runner at a time: it cannot refuse a second writer)"
        place = f"{self._fs.unstrip_protocol(self._root)}{note}"
        return Properties(place=place, single_writer=not self._conditional, firm_head=False, remote=True)

    def root_id(self) -> str:
        return "log/000000.json"

    def new_ids(self, names: Sequence[str]) -> list[str]:
        fresh = secrets.token_hex(4)
        return [fresh_id(name, fresh) for name in names]

    def put(self, path: Path, *, id: str, name: str, digest: FileDigest, progress: Progress | None = None) -> None:
        if digest_file(path) != digest:
            raise Damaged(f"{path}: is not what its manifest says; it is not uploaded")
        with self._told(id):
            found = self._info(id)
            if (
                found is None or int(found["size"]) < digest.size
            ):  # shorter: torn by a kill where uploads are not atomic
                self._make_parent(id)
                self._fs.put_file(str(path), self._path(id), callback=_callback(progress))
                found = self._info(id)
            if found is None or not self._is(found, id, digest):
                raise Damaged(f"{self._path(id)}: holds other bytes than {path}")
        if progress:
            progress(digest.size)

    def get(self, id: str, path: Path, *, digest: FileDigest, progress: Progress | None = None) -> None:
        if self.stat(id) is None:
            raise NotStored(f"{self._path(id)}: is not in the store")
        download(lambda start: self._chunks(id, start), path, place=self._path(id), digest=digest, progress=progress)

    def stat(self, id: str) -> Stat | None:
        with self._told(id):
            found = self._info(id)
        return None if found is None else _stat(id, found)

    def delete(self, id: str) -> None:
        with self._told(id):
            if self._info(id) is not None:
                self._fs.rm_file(self._path(id))

    def find(self, folder: str) -> Iterator[Stat]:
        with self._told(folder):
            found = self._fs.find(f"{self._root}/{checked(folder)}", detail=True)
        for path, info in sorted(found.items()):
            yield _stat(str(path)[len(self._root) :].lstrip("/"), info)

    def quota(self) -> Quota:
        return Quota(free=None)

    def create(self, id: str, body: bytes, *, name: str) -> bool:
        with self._told(id):
            self._make_parent(id)
            try:
                self._fs.pipe_file(self._path(id), body, mode="create")
            except FileExistsError:
                return False
        return True

    def read(self, id: str) -> bytes | None:
        with self._told(id):
            try:
                return bytes(self._fs.cat_file(self._path(id)))
            except FileNotFoundError:
                return None

    def read_head(self, id: str) -> tuple[bytes, str] | None:
        body = self.read(id)
        return None if body is None else (body, hashlib.sha256(body).hexdigest())

    def swap_head(self, id: str, body: bytes, tag: str | None, *, name: str) -> bool:
        if tag is None:
            return self.create(id, body, name=name)
        current = self.read_head(id)
        if current is None or current[1] != tag:
            return False
        with self._told(id):
            self._fs.pipe_file(self._path(id), body)
        return True

    def _path(self, id: str) -> str:
        return f"{self._root}/{checked(id)}"

    def _make_parent(self, id: str) -> None:
        self._fs.makedirs(self._path(id).rpartition("/")[0], exist_ok=True)

    def _info(self, id: str) -> Mapping[str, Any] | None:
        try:
            found = self._fs.info(self._path(id))
        except FileNotFoundError:
            return None
        return found if found["type"] == "file" else None

    def _is(self, info: Mapping[str, Any], id: str, digest: FileDigest) -> bool:
        """By the hash that the server keeps, or by reading every byte back where it keeps none."""
        if int(info["size"]) != digest.size:
            return False
        for kind, value in server_hashes(info):
            return value == (digest.md5 if kind == "md5" else digest.sha256)
        sha256 = hashlib.sha256()
        for chunk in self._chunks(id, 0):
            sha256.update(chunk)
        return sha256.hexdigest() == digest.sha256

    def _chunks(self, id: str, start: int) -> Iterator[bytes]:
        while True:
            with self._told(id):
                chunk = bytes(self._fs.cat_file(self._path(id), start=start, end=start + CHUNK_BYTES))
            if chunk:
                yield chunk
            if len(chunk) < CHUNK_BYTES:
                return
            start += len(chunk)

    @contextmanager
    def _told(self, id: str) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise SignInNeeded(f"{self._root}: {error}; give this machine credentials that may write there") from error
        except FileNotFoundError as error:
            raise NotStored(f"{self._path(id)}: {error}") from error
        except OSError as error:
            kind = StoreFull if error.errno == 28 else StoreBusy  # ENOSPC
            raise kind(f"{self._path(id)}: {type(error).__name__} {error}") from error


def open_fs(url: str) -> FsStore:
    """A store at an fsspec URL; its package (s3fs, gcsfs, huggingface_hub …) brings its own credentials."""
    from fsspec.core import url_to_fs

    fs, root = url_to_fs(url, use_listings_cache=False)
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    return FsStore(fs, str(root), conditional=bool(protocols & CONDITIONAL))


def server_hashes(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Hashes of the content among what back ends tell: HF's LFS sha256, GCS's md5Hash, S3's ETag of a single part."""
    found = []
    if isinstance(info.get("lfs"), Mapping) and "sha256" in info["lfs"]:
        found.append(("sha256", str(info["lfs"]["sha256"])))
    if "md5Hash" in info:
        found.append(("md5", base64.b64decode(info["md5Hash"]).hex()))
    etag = str(info.get("ETag", "")).strip('"')
    if len(etag) == 32 and info.get("ServerSideEncryption") != "aws:kms":
        found.append(("md5", etag))
    return found


def _stat(id: str, info: Mapping[str, Any]) -> Stat:
    created = info.get("LastModified") or info.get("created") or info.get("mtime")
    stamp = created.timestamp() if isinstance(created, datetime.datetime) else created
    hashes = dict(server_hashes(info))
    return Stat(
        id=id,
        size=int(info["size"]),
        md5=hashes.get("md5"),
        sha256=hashes.get("sha256"),
        created_at=float(stamp) if isinstance(stamp, int | float) else None,
    )


def _callback(progress: Progress | None) -> Any:
    from fsspec.callbacks import Callback

    class Passing(Callback):
        def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
            if progress is not None:
                progress(self.value)

    return Passing()
