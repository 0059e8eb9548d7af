"""A dataset repository of the loopback hub: commits that follow one another, LFS blobs, and what the hub refuses."""

from __future__ import annotations

import base64
import datetime
import fnmatch
import hashlib
import secrets
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any


class Refused(Exception):
    def __init__(self, status: int, said: str, **headers: str) -> None:
        self.status, self.said, self.headers = status, said, headers
        super().__init__(said)


@dataclass(frozen=True)
class Entry:
    path: str
    body: bytes | None  # None where it is an LFS file
    sha256: str = ""
    size: int = 0
    commit: str = ""
    title: str = ""
    at: float = 0.0

    def to_json(self) -> dict[str, Any]:
        when = datetime.datetime.fromtimestamp(self.at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        shown = {
            "type": "file",
            "path": self.path,
            "size": self.size,
            "oid": git_hash(b"pointer" if self.body is None else self.body),
        }
        if self.body is None:
            shown["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 130}
        return shown | {"lastCommit": {"id": self.commit, "title": self.title, "date": when}}


def git_hash(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%b" % (len(body), body), usedforsecurity=False).hexdigest()


@dataclass
class Repository:
    is_private: bool = True
    blobs: dict[str, bytes] = field(default_factory=dict)
    commits: list[tuple[str, dict[str, Entry]]] = field(default_factory=list)  # oldest first
    titles: list[str] = field(default_factory=list)
    commits_an_hour: int | None = None
    limit_headers: dict[str, str] = field(default_factory=dict)
    made_at: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        body = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.gz filter=lfs diff=lfs merge=lfs -text\n"
        first = Entry(path=".gitattributes", body=body, size=len(body), commit="0" * 40, at=time.time())
        self.commits.append(("0" * 40, {first.path: first}))

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, Entry]:
        return self.commits[-1][1]

    def tree(self, revision: str) -> dict[str, Entry]:
        if revision == "main":
            return self.files
        found = next((tree for oid, tree in self.commits if oid == revision), None)
        if found is None:
            raise Refused(404, "no such revision", **{"X-Error-Code": "RevisionNotFound"})
        return found

    def body(self, entry: Entry) -> bytes:
        if entry.body is not None:
            return entry.body
        if entry.sha256 not in self.blobs:
            raise Refused(404, "the bytes of this file were deleted for good")
        return self.blobs[entry.sha256]

    def mode(self, path: str, size: int) -> str:
        there = self.files.get(".gitattributes")
        rules = ((there and there.body) or b"").decode().splitlines()
        patterns = [rule.split()[0] for rule in rules if "filter=lfs" in rule]
        names = (path, path.rpartition("/")[2])
        large = size > 10 << 20
        return "lfs" if large or any(fnmatch.fnmatch(name, one) for name in names for one in patterns) else "regular"

    def commit(self, lines: list[dict[str, Any]]) -> str:
        with self.lock:
            header = lines[0]["value"]
            if header.get("parentCommit") not in (None, self.head):
                raise Refused(412, "A commit has happened since. Please refresh and try again.")
            self._within_the_limit()
            oid, tree = secrets.token_hex(20), dict(self.files)
            for line in lines[1:]:
                self._apply(
                    tree, line["key"], line["value"], Entry("", None, "", 0, oid, header["summary"], time.time())
                )
            self.commits.append((oid, tree))
            self.titles.append(header["summary"])
            return oid

    def squash(self) -> None:
        """What a person does to be rid of the history: one commit, with the files of the last."""
        with self.lock:
            oid = secrets.token_hex(20)
            files = {path: replace(entry, commit=oid, at=time.time()) for path, entry in self.files.items()}
            self.commits[:] = [(oid, files)]

    def rewind(self, commits: int) -> None:
        """A force-push of what was there before."""
        with self.lock:
            del self.commits[-commits:]

    def remove(self, path: str) -> None:
        """On the web page."""
        self.commit(
            [{"key": "header", "value": {"summary": f"Delete {path}"}}, {"key": "deletedFile", "value": {"path": path}}]
        )

    def _within_the_limit(self) -> None:
        self.made_at = [at for at in self.made_at if time.time() - at < 3600]
        if self.commits_an_hour is not None and len(self.made_at) >= self.commits_an_hour:
            said = f"You have exceeded the rate limit for repository commits ({self.commits_an_hour} per hour)."
            raise Refused(429, said, RateLimit='"api";r=949;t=271', **self.limit_headers)
        self.made_at.append(time.time())

    def _apply(self, tree: dict[str, Entry], key: str, value: dict[str, Any], made: Entry) -> None:
        path = value["path"]
        if key == "deletedFile":
            if path not in tree:
                raise Refused(404, "A file with this name doesn't exist", **{"X-Error-Code": "EntryNotFound"})
            del tree[path]
        elif key == "file":
            body = base64.b64decode(value["content"])
            tree[path] = replace(made, path=path, body=body, size=len(body))
        elif value["oid"] not in self.blobs:
            raise Refused(400, "an LFS pointer pointed to a file that does not exist")
        else:
            tree[path] = replace(made, path=path, sha256=value["oid"], size=len(self.blobs[value["oid"]]))
