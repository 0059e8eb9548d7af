"""What Google Drive v2 remembers: files, sessions, ids, tokens, quota, and its habits that hurt. No HTTP here."""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

UNIT_BYTES = 256 << 10
FOLDER_TYPE = "application/vnd.google-apps.folder"


class Refused(Exception):
    """An answer other than success, in Google's own form."""

    def __init__(self, status: int, reason: str, message: str = "", headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.headers = headers or {}
        error = {
            "errors": [{"domain": "global", "reason": reason, "message": message}],
            "code": status,
            "message": message,
        }
        self.body = json.dumps({"error": error}).encode()
        super().__init__(f"{status} {reason} {message}")


@dataclass
class File:
    id: str
    metadata: dict[str, Any]
    path: Path
    created_at: float
    version: int = 1
    modified_at: float = 0.0
    md5: str = ""
    size: int = 0


@dataclass
class Session:
    metadata: dict[str, Any]
    size: int
    path: Path
    received: int = 0
    expired: bool = False
    finished: str | None = None


@dataclass
class Drive:
    """One account. Everything that time or chance decides is a field, so that a test can set it."""

    folder: Path
    now: Callable[[], float] = time.time
    quota_bytes: int = 15 << 30
    list_lag_seconds: float = 0.0
    etag_drift: float = 0.0  # chance that a tag moves by itself when it is looked at
    token_seconds: float = 3600.0
    revoked: bool = False
    random: random.Random = field(default_factory=lambda: random.Random(0))
    files: dict[str, File] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    tokens: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.RLock = field(default_factory=threading.RLock)

    # -- tokens -----------------------------------------------------------------------------------------------------

    def token(self, form: dict[str, str]) -> dict[str, Any]:
        if self.revoked or (form.get("grant_type") == "authorization_code" and form.get("code") != "good-code"):
            raise TokenRefused({"error": "invalid_grant", "error_description": "Token has been expired or revoked."})
        access = f"access-{len(self.tokens)}"
        self.tokens[access] = self.now() + self.token_seconds
        self.counts["token"] += 1
        answer = {"access_token": access, "expires_in": int(self.token_seconds), "token_type": "Bearer"}
        return {**answer, "refresh_token": "refresh"} if form.get("grant_type") == "authorization_code" else answer

    def authorise(self, header: str) -> None:
        if self.tokens.get(header.removeprefix("Bearer "), 0.0) <= self.now():
            raise Refused(401, "authError", "Invalid Credentials")

    # -- plain calls ------------------------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        used = sum(file.size for file in self.files.values())
        return {"quotaBytesTotal": str(self.quota_bytes), "quotaBytesUsedAggregate": str(used), "quotaType": "LIMITED"}

    def generate_ids(self, count: int) -> dict[str, Any]:
        fresh = [f"1{self.random.getrandbits(128):032x}" for _ in range(count)]
        self.ids.update(fresh)
        return {"kind": "drive#generatedIds", "ids": fresh, "space": "drive"}

    def list(self, query: str, limit: int, page: str) -> dict[str, Any]:
        found = sorted((file for file in self.files.values() if self._matches(file, query)), key=lambda file: file.id)
        start = int(page or 0)
        answer: dict[str, Any] = {"items": [self.describe(file) for file in found[start : start + limit]]}
        return {**answer, "nextPageToken": str(start + limit)} if len(found) > start + limit else answer

    def get(self, id: str) -> File:
        if id not in self.files:
            raise Refused(404, "notFound", f"File not found: {id}")
        return self.files[id]

    def delete(self, id: str) -> None:
        self.get(id).path.unlink(missing_ok=True)
        for child in [file.id for file in self.files.values() if {"id": id} in file.metadata.get("parents", [])]:
            self.delete(child)
        del self.files[id]  # the id stays spent: whether Drive lets it be used again is not documented
        self.ids.discard(id)
        self.counts["deleted"] += 1

    def throw_away(self, id: str, *, back: bool = False) -> None:
        """To the bin, with all that lies below, or back from it."""
        self.get(id).metadata["labels"] = {"trashed": not back}

    def in_bin(self, file: File) -> bool:
        """Whether it, or a folder above it, was thrown away."""
        above = [self.files[one["id"]] for one in file.metadata.get("parents", []) if one["id"] in self.files]
        return bool(file.metadata.get("labels", {}).get("trashed")) or any(self.in_bin(one) for one in above)

    def insert(self, metadata: dict[str, Any], body: bytes) -> File:
        self._has_parents(metadata)
        id = self._free_id(metadata)
        self._room_for(len(body))
        path = self.folder / id
        path.write_bytes(body)
        return self._add(id, metadata, path, hashlib.md5(body).hexdigest(), len(body))

    def update(self, id: str, metadata: dict[str, Any], body: bytes | None, if_match: str | None) -> File:
        file = self.get(id)
        if if_match is not None and if_match != self._etag(file):
            raise Refused(412, "conditionNotMet", "Precondition Failed")
        if body is not None:
            file.path.write_bytes(body)
            file.md5, file.size = hashlib.md5(body).hexdigest(), len(body)
        file.metadata.update(metadata)
        file.version += 1
        file.modified_at = self.now()
        self.counts["updated"] += 1
        return file

    def describe(self, file: File) -> dict[str, Any]:
        if self.random.random() < self.etag_drift:
            file.version += 1
        plain = {
            "id": file.id,
            "createdDate": _date(file.created_at),
            "modifiedDate": _date(file.modified_at or file.created_at),
            "etag": self._etag(file),
            "mimeType": "application/octet-stream",
            **file.metadata,
            "labels": {"trashed": self.in_bin(file)},
        }
        if file.metadata.get("mimeType") == FOLDER_TYPE:
            return plain
        return {**plain, "fileSize": str(file.size), "md5Checksum": file.md5}

    # -- resumable uploads ------------------------------------------------------------------------------------------

    def begin(self, metadata: dict[str, Any], size: int) -> str:
        self._has_parents(metadata)
        self._free_id(metadata)
        self._room_for(size)
        name = f"{self.random.getrandbits(64):016x}"
        path = self.folder / f"{name}.session"
        path.touch()
        self.sessions[name] = Session(metadata=metadata, size=size, path=path)
        self.counts["sessions"] += 1
        return name

    def session(self, name: str) -> Session:
        session = self.sessions.get(name)
        if session is None or session.expired:
            raise Refused(404, "notFound", "upload session not found")
        return session

    def receive(self, session: Session, start: int, chunk: bytes, *, is_whole: bool) -> None:
        """Keep what arrived; of a chunk that was cut only whole units survive."""
        if start != session.received:
            raise Refused(400, "invalidContentRange", f"expected {session.received}, got {start}")
        kept = chunk if is_whole else chunk[: len(chunk) // UNIT_BYTES * UNIT_BYTES]
        if is_whole and start + len(chunk) < session.size and len(chunk) % UNIT_BYTES:
            raise Refused(400, "badRequest", "chunks are multiples of 256 KiB")
        with open(session.path, "ab") as file:
            file.write(kept)
        session.received += len(kept)

    def finish(self, session: Session) -> File | None:
        """The file once every byte is there; None before."""
        if session.finished is not None:
            return self.get(session.finished)
        if session.received < session.size:
            return None
        id = self._free_id(session.metadata)
        with open(session.path, "rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        path = session.path.rename(self.folder / id)
        session.finished = id
        return self._add(id, session.metadata, path, md5, session.size)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _add(self, id: str, metadata: dict[str, Any], path: Path, md5: str, size: int) -> File:
        self.files[id] = File(id=id, metadata=metadata, path=path, created_at=self.now(), md5=md5, size=size)
        self.counts["inserted"] += 1
        return self.files[id]

    def _free_id(self, metadata: dict[str, Any]) -> str:
        if "id" not in metadata:  # without one every insert is another file, whatever its name
            metadata["id"] = self.generate_ids(1)["ids"][0]
        id = str(metadata["id"])
        if id in self.files:
            raise Refused(409, "fileIdInUse", "A file already exists with the provided ID.")
        if id not in self.ids:
            raise Refused(400, "invalid", "The provided file ID is not usable.")
        return id

    def _has_parents(self, metadata: dict[str, Any]) -> None:
        for parent in metadata.get("parents", []):
            if parent["id"] != "root":
                self.get(parent["id"])

    def _room_for(self, size: int) -> None:
        if int(self.about()["quotaBytesUsedAggregate"]) + size > self.quota_bytes:
            raise Refused(403, "storageQuotaExceeded", "The user's Drive storage quota has been exceeded.")

    def _etag(self, file: File) -> str:
        return f'"{file.id[:8]}/{file.version}"'

    def _matches(self, file: File, query: str) -> bool:
        is_fresh = self.now() - file.created_at < self.list_lag_seconds
        for key, value in re.findall(
            r"properties has \{ key='([^']*)' and value='((?:[^'\\]|\\.)*)' and visibility='PRIVATE' \}", query
        ):
            plain = re.sub(r"\\(.)", r"\1", value)
            if is_fresh or not any(
                (one["key"], one["value"]) == (key, plain) for one in file.metadata.get("properties", [])
            ):
                return False
        for parent in re.findall(r"'([^']*)' in parents", query):
            if parent not in [one["id"] for one in file.metadata.get("parents", [])]:
                return False
        if "trashed = false" in query and self.in_bin(file):
            return False
        return all(file.metadata.get("mimeType") == kind for kind in re.findall(r"mimeType = '([^']*)'", query))


class TokenRefused(Exception):
    """An answer of the token endpoint, which has a form of its own."""

    def __init__(self, table: dict[str, str]) -> None:
        self.body = json.dumps(table).encode()
        super().__init__(table["error"])


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z"
