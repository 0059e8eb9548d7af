"""Google Drive as a store: objects under ids made beforehand, records that only one writer can create, HEAD by ETag."""

from __future__ import annotations

import datetime
import hashlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runner.errors import Damaged, NotStored, StoreBusy
from runner.store.base import Progress, Properties, Quota, Stat
from runner.store.download import download
from runner.store.drive.api import FIELDS, FOLDER_TYPE, ROOT_URL, DriveApi
from runner.store.drive.auth import load_token, pin_folder, pinned_folder
from runner.store.drive.errors import IdTaken, TagMoved
from runner.store.drive.folders import Folders, placed, private
from runner.store.drive.transfer import FILES_AT_ONCE, Throttle, Upload, ranged
from runner.store.names import checked, shown
from wake2vec.contract.files import FileDigest

IDS_AT_ONCE = 20
ROOT_VARIABLE = "WAKE2VEC_DRIVE_ROOT"  # another root URL: a mirror, a proxy of one's own, a test


class DriveStore:
    """Everything below one folder of a person's Drive. Names are for that person; only ids are ever looked up."""

    def __init__(self, api: DriveApi, folders: Folders, journal: Path, throttle: Throttle) -> None:
        self._api = api
        self._folders = folders
        self._journal = journal
        self._throttle = throttle
        self._ids: deque[str] = deque()
        self._lock = threading.Lock()

    @property
    def properties(self) -> Properties:
        place, at_once = f"Google Drive, folder {self._folders.name}", self._throttle.at_once(FILES_AT_ONCE)
        return Properties(place=place, remote=True, ids_once=True, at_once=at_once)

    @property
    def folder_id(self) -> str:
        return self._folders.root().folder_id

    def root_id(self) -> str:
        return self._folders.root().first_id

    def renew_root(self) -> None:
        self._folders.renew()

    def new_ids(self, names: Sequence[str]) -> list[str]:
        for name in names:
            shown(name)
        with self._lock:
            if len(self._ids) < len(names):
                wanted = max(IDS_AT_ONCE, len(names))
                found = self._api.call(
                    "make ids", lambda drive: drive.files.generateIds(maxResults=wanted, space="drive")
                )
                self._ids.extend(found["ids"] or ())
                if len(self._ids) < len(names):
                    raise StoreBusy("Google Drive: make ids: the answer has too few")
            return [self._ids.popleft() for _ in names]

    def put(self, path: Path, *, id: str, name: str, digest: FileDigest, progress: Progress | None = None) -> None:
        body = {**self._describe(id, name, "object"), "mimeType": "application/octet-stream"}
        with self._placed():
            Upload(
                self._api, self._journal, path, body=body, digest=digest, throttle=self._throttle, progress=progress
            ).run()

    def get(self, id: str, path: Path, *, digest: FileDigest, progress: Progress | None = None) -> None:
        chunks = ranged(self._api, id, digest.size, self._throttle)
        try:
            download(chunks, path, place=f"Google Drive: {id}", digest=digest, progress=progress)
        except Damaged as error:
            found = self.stat(id)
            if found is not None and (found.size, found.md5) == (digest.size, digest.md5):
                raise StoreBusy(f"{error}; Drive has the right ones, they changed on the way") from error
            raise

    def stat(self, id: str) -> Stat | None:
        found = self._metadata(id)
        stat = None if found is None else _stat(found)
        if stat is not None and stat.in_bin:
            self._folders.forget()  # nothing new shall go into a folder in the bin
        return stat

    def delete(self, *ids: str) -> None:
        for id in ids:
            with suppress(NotStored):
                self._api.delete(id)  # for good: what is in the bin still takes room

    def find(self, folder: str) -> Iterator[Stat]:
        waiting = self._folders.known(folder)
        while waiting:
            parent = waiting.pop()
            for found in self._folders.search(f"'{parent}' in parents and trashed = false"):
                if found["mimeType"] == FOLDER_TYPE:
                    waiting.append(found["id"])
                else:
                    yield _stat(found)

    def quota(self) -> Quota:
        fields = "quotaBytesTotal,quotaBytesUsedAggregate,quotaType"
        about = self._api.call("ask for the quota", lambda drive: drive.about.get(fields=fields))
        if about.get("quotaType") == "UNLIMITED":
            return Quota(free=None)
        total, used = _number(about["quotaBytesTotal"]), _number(about["quotaBytesUsedAggregate"])
        return Quota(free=max(0, total - used), total=total)

    def create(self, id: str, body: bytes, *, name: str) -> bool:
        metadata = self._describe(id, name, "record")
        try:
            with self._placed():
                self._api.call(
                    f"create {name}",
                    lambda drive: drive.files.insert(body=metadata, media_body=_media(body, name), fields="id"),
                )
        except IdTaken:
            return False
        return True

    @contextmanager
    def _placed(self) -> Iterator[None]:
        """A folder may have been deleted since it was found: the next try finds or makes another."""
        try:
            yield
        except NotStored:
            self._folders.forget()
            raise

    def read(self, id: str) -> bytes | None:
        try:
            return self._api.media(id, {})[2]
        except NotStored:
            return None

    def read_head(self, id: str) -> tuple[bytes, str] | None:
        found, body = self._metadata(id), self.read(id)
        if found is None or body is None:
            return None
        if hashlib.md5(body, usedforsecurity=False).hexdigest() != found["md5Checksum"]:
            raise StoreBusy(f"Google Drive: {id}: was replaced while it was read")
        return body, str(found["etag"])

    def silence(self, id: str) -> float | None:
        written_at, now = self._api.written_at(id)
        return None if written_at is None or now is None else now - written_at

    def swap_head(self, id: str, body: bytes, tag: str | None, *, name: str) -> bool:
        if tag is None:
            return self.create(id, body, name=name)
        try:
            self._api.call(
                f"replace {name}",
                lambda drive: drive.files.update(fileId=id, media_body=_media(body, name), fields="id"),
                headers={"If-Match": tag},
            )
        except TagMoved:
            return False
        return True

    def _describe(self, id: str, name: str, kind: str) -> dict[str, Any]:
        folder, title = placed(name)
        return {
            "id": id,
            "title": title,
            "parents": [{"id": self._folders.folder(folder)}],
            "properties": private(kind=kind),
        }

    def _metadata(self, id: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self._api.call(
                f"look at {id}", lambda drive: drive.files.get(fileId=id, fields=FIELDS)
            )
        except NotStored:
            return None
        return found


def _media(body: bytes, name: str) -> Any:
    from googleapiclient.http import MediaInMemoryUpload

    kind = "text/html" if name.endswith(".html") else "application/json"
    return MediaInMemoryUpload(body, mimetype=kind, resumable=False)


def _stat(found: Mapping[str, Any]) -> Stat:
    try:
        created = datetime.datetime.fromisoformat(found["createdDate"].replace("Z", "+00:00"))
        in_bin = bool(found["labels"]["trashed"])
    except (ValueError, AttributeError, TypeError) as error:
        raise StoreBusy(f"Google Drive: the answer is not Google's ({error})") from error
    return Stat(
        id=found["id"],
        size=_number(found["fileSize"]),
        md5=found.get("md5Checksum"),
        sha256=found.get("sha256Checksum"),
        created_at=created.timestamp(),
        in_bin=in_bin,
    )


def _number(said: Any) -> int:
    try:
        return int(said)
    except (ValueError, TypeError) as error:
        raise StoreBusy(f"Google Drive: the answer is not Google's ({error})") from error


def open_drive(folder: str, home: Path, environ: Mapping[str, str], throttle: Throttle) -> DriveStore:
    """The store of a folder. Nothing is asked of Google, and no token is needed, before the first call."""
    api = DriveApi(lambda refused: load_token(home, environ, refused), root_url=environ.get(ROOT_VARIABLE, ROOT_URL))
    memory = home / "drive"
    folders = Folders(
        api,
        folder,
        memory=memory / f"{checked(folder)}.json",
        pinned_id=lambda: pinned_folder(load_token(home, environ), folder),
        pin=lambda id: pin_folder(home, folder, id),
    )
    return DriveStore(api, folders, memory / "uploads", throttle)
