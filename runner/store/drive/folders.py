"""Folders of the Drive store: the root by a pinned id, and folders for a person's eyes that nothing depends on."""

from __future__ import annotations

import functools
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.errors import Loss, NotStored, StoreBusy, StoreLost, StoreUnavailable
from runner.store.drive.api import FIELDS, FOLDER_TYPE, DriveApi
from runner.store.names import shown
from wake2vec.contract.files import read_json, write_json

BIN_REMEDY = "restore it in the bin of Google Drive (within 30 days), and everything goes on by itself"
LAG_SECONDS = 60.0  # after so long a search shows what was made
LISTED = f"nextPageToken,items({FIELDS})"
VALUE_BYTES = 90  # of the 124 that Drive allows for key and value of a property together


@dataclass(frozen=True, kw_only=True)
class Root:
    """The folder that everything lies in, and the id that its root log begins with."""

    folder_id: str
    first_id: str


class Folders:
    """Where things are put. Two folders of one name do no harm: whatever is in them is only ever reached by id."""

    def __init__(
        self, api: DriveApi, name: str, *, memory: Path, pinned_id: Callable[[], str | None], pin: Callable[[str], None]
    ) -> None:
        self.name = name
        self._api = api
        self._memory = memory  # the root as this home knows it
        self._pinned_id = pinned_id  # the root folder as the token knows it
        self._pin = pin
        self._root: Root | None = None
        self._ids: dict[str, str] = {}
        self._lock = threading.RLock()

    def root(self) -> Root:
        """By what this home remembers, by the id pinned in the token, by search, and only then a new one."""
        with self._lock:
            if self._root is None and (found := self._remembered()) is not None:
                self._root = found
                if self._pinned_id() is None:  # a second sign-in brought a token that does not know it yet
                    self._pin(found.folder_id)
            if self._root is None:
                self._root = self._keep(self._pinned() or self._searched() or self._made())
            return self._root

    def renew(self) -> None:
        """Give the root folder a new root log, and make another folder where it is gone for good."""
        with self._lock:
            self._ids.clear()
            before = self._root or self._remembered()
            self._root = self._keep(self._renewed(before) or self._searched() or self._made())

    def forget(self) -> None:
        """Look for every folder again: one that was deleted by hand is made anew."""
        with self._lock:
            self._ids.clear()

    def _keep(self, root: Root) -> Root:
        write_json(self._memory, asdict(root))
        self._pin(root.folder_id)
        return root

    def folder(self, path: str) -> str:
        """The id of a folder to put things in, made when it is not found."""
        if not path:
            return self.root().folder_id
        with self._lock:
            if path not in self._ids:
                parent, _, title = path.rpartition("/")
                self._ids[path] = next(iter(self.known(path)), "") or self._insert(
                    title, self.folder(parent), private(kind="folder", path=_value(path))
                )
            return self._ids[path]

    def known(self, path: str) -> list[str]:
        """Ids of the folders of that path that a search finds, oldest first."""
        asked = f"{_has('path', _value(path))} and mimeType = '{FOLDER_TYPE}' and trashed = false"
        return [found["id"] for found in sorted(self.search(asked), key=_age)]

    def search(self, query: str) -> Iterator[Mapping[str, Any]]:
        page: str | None = None
        while True:
            found = self._api.call("list", functools.partial(_list, query, page))
            yield from found.get("items", [])
            page = found.get("nextPageToken")
            if page is None:
                return

    def _remembered(self) -> Root | None:
        found = read_json(self._memory)
        return Root(**found) if isinstance(found, dict) and "making" not in found else None

    def _pinned(self) -> Root | None:
        id = self._pinned_id()
        if id is None:
            return None
        try:
            found = self._get(id)
        except NotStored as error:
            raise StoreLost(f"Google Drive: the folder {self.name} that the token names is gone: {error}") from error
        return _root_of(self._not_in_bin(found))

    def _searched(self) -> Root | None:
        found = list(self.search(_has("root", _value(self.name))))
        alive = [one for one in found if not one["labels"]["trashed"]] or found
        return _root_of(self._not_in_bin(min(alive, key=_age))) if alive else None

    def _not_in_bin(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        if found["labels"]["trashed"]:
            raise StoreLost(f"Google Drive: the folder {self.name} is in the bin", loss=Loss.BIN, remedy=BIN_REMEDY)
        return found

    def _renewed(self, before: Root | None) -> Root | None:
        """Another home may have been here first: then its root log is the new one."""
        try:
            place = None if before is None else self._get(before.folder_id)
        except NotStored:
            return None
        if before is None or place is None or place["labels"]["trashed"]:
            return None
        if (now := _root_of(place)).first_id != before.first_id:
            return now
        root = Root(folder_id=before.folder_id, first_id=self._fresh_id())
        properties = private(kind="root", root=_value(self.name), first=root.first_id)
        self._api.call(
            "renew the root log",
            lambda drive: drive.files.patch(fileId=root.folder_id, body={"properties": properties}, fields="id"),
        )
        return root

    def _get(self, id: str) -> Any:
        return self._api.call("look at the root folder", lambda drive: drive.files.get(fileId=id, fields=FIELDS))

    def _fresh_id(self) -> str:
        ids = self._api.call("make ids", lambda drive: drive.files.generateIds(maxResults=1, space="drive"))["ids"]
        if not ids:
            raise StoreBusy("Google Drive: make ids: the answer has none")
        return str(ids[0])

    def _made(self) -> Root:
        """What is about to be made is written down first: after a kill a search may not show it for a while."""
        before = read_json(self._memory)
        if isinstance(before, dict) and abs(time.time() - before.get("making", 0.0)) < LAG_SECONDS:
            raise StoreBusy(f"Google Drive: the folder {self.name} may have been made a moment ago; asking again")
        write_json(self._memory, {"making": time.time()})
        first_id = self._fresh_id()
        properties = private(kind="root", root=_value(self.name), first=first_id)
        return Root(folder_id=self._insert(self.name, "root", properties), first_id=first_id)

    def _insert(self, title: str, parent: str, properties: list[dict[str, str]]) -> str:
        body = {"title": title, "mimeType": FOLDER_TYPE, "parents": [{"id": parent}], "properties": properties}
        return str(
            self._api.call(f"make the folder {title}", lambda drive: drive.files.insert(body=body, fields="id"))["id"]
        )


def _list(query: str, page: str | None, drive: Any) -> Any:
    return drive.files.list(q=query, maxResults=1000, pageToken=page, fields=LISTED)


def placed(name: str) -> tuple[str, str]:
    """Folder and title for a name: what comes before the part with the star, and the rest."""
    shown(name)  # before it is taken apart: no part of it may lead elsewhere
    parts = name.split("/")
    fresh = next((index for index, part in enumerate(parts) if "*" in part), len(parts) - 1)
    return "/".join(parts[:fresh]), shown("/".join(parts[fresh:]))


def private(*, kind: str, **more: str) -> list[dict[str, str]]:
    """Properties that only this OAuth client can see, and search for."""
    table = {"wake2vec": kind, **more}
    return [{"key": key, "value": value, "visibility": "PRIVATE"} for key, value in table.items()]


def _has(key: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"properties has {{ key='{key}' and value='{escaped}' and visibility='PRIVATE' }}"


def _value(path: str) -> str:
    """The path where it fits into a property, a hash of it where it does not."""
    return path if len(path.encode()) <= VALUE_BYTES else hashlib.sha256(path.encode()).hexdigest()


def _age(found: Mapping[str, Any]) -> tuple[str, str]:
    return found["createdDate"], found["id"]


def _root_of(found: Mapping[str, Any]) -> Root:
    properties = {one["key"]: one["value"] for one in found.get("properties", [])}
    if "first" not in properties:
        raise StoreUnavailable(f"Google Drive: {found['id']} is not a folder of this runner; remove it from the token")
    return Root(folder_id=found["id"], first_id=properties["first"])
