"""Any fsspec file system as a store: S3, GCS, the HF Hub and the rest, as far as their own promises carry."""

from __future__ import annotations

import base64
import datetime
import difflib
import errno
import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.discretion import hide
from runner.errors import Damaged, NotStored, RunnerError, SignInNeeded, StoreBusy, StoreFull
from runner.store.base import Progress, Properties, Quota, Stat
from runner.store.download import download
from runner.store.names import checked, fresh_id
from wake2vec.contract.files import FileDigest, digest_file

CHUNK_BYTES = 8 << 20
# Their pipe_file(mode="create") is one conditional request (If-None-Match, ifGenerationMatch); elsewhere it looks first
# and writes then, which lets two writers both believe that they were alone.
CONDITIONAL = {"s3", "s3a", "gs", "gcs"}
PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "sftp": "paramiko",
    "ssh": "paramiko", "abfs": "adlfs", "az": "adlfs", "abfss": "adlfs", "webdav": "webdav4", "oss": "ossfs",
    "dropbox": "dropboxdrivefs", "box": "boxfs", "smb": "smbprotocol", "oci": "ocifs",
}  # fmt: skip
OUR_OWN = {"builtins", "runner", "wake2vec"}  # errors of a mistake of ours, not of the file system


class FsStore:
    """Ids are paths below a root. Without conditional create it is for one writer only, and says so."""

    def __init__(self, fs: Any, root: str, *, conditional: bool, url: str = "") -> None:
        self._fs = fs
        self._root = root.rstrip("/")
        self._conditional = conditional
        self._url = url  # its passwords are kept out of every message

    @property
    def properties(self) -> Properties:
        note = "" if self._conditional else " (for one runner at a time: it cannot refuse a second writer)"
        place = f"{hide(self._fs.unstrip_protocol(self._root), self._url)}{note}"
        return Properties(place=place, single_writer=not self._conditional, firm_head=False, remote=True)

    def root_id(self) -> str:
        return "log/000000.json"

    def renew_root(self) -> None:
        self.delete(self.root_id())  # what is there cannot be read

    def new_ids(self, names: Sequence[str]) -> list[str]:
        fresh = secrets.token_hex(4)
        return [fresh_id(name, fresh) for name in names]

    def put(self, path: Path, *, id: str, name: str, digest: FileDigest, progress: Progress | None = None) -> None:
        if digest_file(path) != digest:
            raise Damaged(f"{path}: is not what its manifest says; it is not uploaded")
        with self._translated_errors(id):
            found = self._info(id)
            if (
                found is None or int(found["size"]) < digest.size
            ):  # shorter: torn by a kill where uploads are not atomic
                self._make_parent(id)
                self._fs.put_file(str(path), self._path(id), callback=_callback(progress))
                found = self._info(id)
            if found is None or not self._is(found, id, digest):
                raise Damaged(f"{self._shown(id)}: holds other bytes than {path}")
        if progress:
            progress(digest.size)

    def get(self, id: str, path: Path, *, digest: FileDigest, progress: Progress | None = None) -> None:
        if self.stat(id) is None:
            raise NotStored(f"{self._shown(id)}: is not in the store")
        download(lambda start: self._chunks(id, start), path, place=self._shown(id), digest=digest, progress=progress)

    def stat(self, id: str) -> Stat | None:
        with self._translated_errors(id):
            found = self._info(id)
        return None if found is None else _stat(id, found)

    def delete(self, *ids: str) -> None:
        for id in ids:
            with self._translated_errors(id):
                if self._info(id) is not None:
                    self._fs.rm_file(self._path(id))

    def find(self, folder: str) -> Iterator[Stat]:
        with self._translated_errors(folder):
            found = self._fs.find(f"{self._root}/{checked(folder)}", detail=True)
        for path, info in sorted(found.items()):
            yield _stat(str(path)[len(self._root) :].lstrip("/"), info)

    def quota(self) -> Quota:
        return Quota(free=None)

    def create(self, id: str, body: bytes, *, name: str) -> bool:
        with self._translated_errors(id):
            self._make_parent(id)
            try:
                self._fs.pipe_file(self._path(id), body, mode="create")
            except FileExistsError:
                return False
        return True

    def read(self, id: str) -> bytes | None:
        with self._translated_errors(id):
            try:
                return bytes(self._fs.cat_file(self._path(id)))
            except FileNotFoundError:
                return None

    def read_head(self, id: str) -> tuple[bytes, str] | None:
        body = self.read(id)
        return None if body is None else (body, hashlib.sha256(body).hexdigest())

    def silence(self, id: str) -> float | None:
        return None  # the times of files are of whichever machine wrote them

    def swap_head(self, id: str, body: bytes, tag: str | None, *, name: str) -> bool:
        if tag is None:
            return self.create(id, body, name=name)
        current = self.read_head(id)
        if current is None or current[1] != tag:
            return False
        with self._translated_errors(id):
            self._fs.pipe_file(self._path(id), body)
        return True

    def _path(self, id: str) -> str:
        return f"{self._root}/{checked(id)}"

    def _shown(self, id: str) -> str:
        return hide(self._path(id), self._url)

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
            with self._translated_errors(id):
                chunk = bytes(self._fs.cat_file(self._path(id), start=start, end=start + CHUNK_BYTES))
            if chunk:
                yield chunk
            if len(chunk) < CHUNK_BYTES:
                return
            start += len(chunk)

    @contextmanager
    def _translated_errors(self, id: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if type(error).__module__.partition(".")[0] in OUR_OWN and not isinstance(error, OSError):
                raise
            raise self._error(id, error) from error

    def _error(self, id: str, error: Exception) -> RunnerError:
        """What a file system's own error means; each package has errors of its own for a line that is down."""
        said = hide(f"{self._root}/{id}: {type(error).__name__} {error}", self._url)
        if isinstance(error, PermissionError):
            return SignInNeeded(f"{said}; give this machine credentials that may write there")
        if isinstance(error, FileNotFoundError):
            return NotStored(said)
        return (StoreFull if getattr(error, "errno", None) == errno.ENOSPC else StoreBusy)(said)


def open_fs(url: str) -> FsStore:
    """A store at an fsspec URL; its package (s3fs, gcsfs, huggingface_hub …) brings its own credentials."""
    from fsspec.core import url_to_fs

    try:
        fs, root = url_to_fs(url, use_listings_cache=False)
    except Exception as error:
        raise _no_store(url, error) from None  # the error of a library may show the whole address
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    return FsStore(fs, str(root), conditional=bool(protocols & CONDITIONAL), url=url)


def _no_store(url: str, error: Exception) -> RunnerError:
    protocol = url.partition("://")[0].rpartition("::")[2]
    said = f"--store fs:{hide(url)}"
    if isinstance(error, ImportError):
        package = PACKAGES.get(protocol, getattr(error, "name", None) or f"the package for {protocol}")
        return RunnerError(f"{said}: {protocol} needs a package that is not installed; pip install {package}")
    if isinstance(error, ValueError):
        nearest = difflib.get_close_matches(protocol, PACKAGES, n=1, cutoff=0.5)
        meant = f"did you mean fs:{nearest[0]}://?" if nearest else "fsspec knows s3, gs, hf, sftp, abfs and more"
        return RunnerError(f"{said}: there is no file system {protocol!r}; {meant}")
    return StoreBusy(f"{said}: {hide(f'{type(error).__name__} {error}', url)}")


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
