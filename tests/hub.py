"""A model hub on the loopback: as much of huggingface.co's protocol as pushing, and a store that lives there, need."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.hub_repository import Refused, Repository

DRAWN = re.compile(r"/refs$|/paths-info/|/commit/|/resolve/")  # where the library itself never tries again


class Hub:
    """What it holds: files by repository and path, and how often it was asked for what."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.datasets: dict[str, dict[str, bytes]] = {}
        self.stores: dict[str, Repository] = {}  # datasets that are written to
        self.names: dict[str, str] = {}  # of what was renamed: old name → new one
        self.tokens: dict[str, set[str]] = {}  # what each may do; empty: anybody may do anything
        self.asked: Counter[str] = Counter()
        self.rate = 0.0  # of calls that fail before or after they were carried out
        self.random = random.Random(0)
        self.private: set[str] = set()
        self.blobs: dict[str, bytes] = {}  # by sha256
        self.commits: list[str] = []
        self.titles: dict[str, list[str]] = {}  # of a model's commits, oldest first
        self.role = "write"
        self.licences: dict[str, str] = {}
        self.uploads = 0
        self.refuse: dict[str, int] = {}  # part of a path → status
        self.words = "no"
        self.url = ""


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def answer(self, body: Any = None, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body if body is not None else {}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        told = headers if headers is not None else {"X-Error-Code": "RepoNotFound"} if status == 404 else {}
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        for part, status in self.hub.refuse.items():
            if part in path:
                return self.answer({"error": self.hub.words}, status, {})
        if match := re.match(r"(/api)?/datasets/([^/]+/[^/.]+)(.*)", path):
            name = match[2]
            if name in self.hub.names:
                moved = self.path.replace(name, self.hub.names[name], 1)
                return self.answer({}, 307, {"Location": self.hub.url + moved})
            if name in self.hub.stores or name not in self.hub.datasets:
                return self.guarded(name, match[3], body)
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/(refs%2Fconvert%2Fparquet|[^/]+)/(.+)", path):
            return self.resolve(self.hub.datasets.get(match[1]), match[3])
        if path.startswith("/blob/"):
            self.hub.uploads += 1
            self.hub.blobs[path.removeprefix("/blob/")] = body
            return self.answer()
        if path == "/api/repos/create":
            asked = json.loads(body)
            if asked.get("type") == "dataset":
                return self.make_store(asked)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else f"me/{asked['name']}"
            if name in self.hub.files:
                return self.answer({"error": "exists", "url": f"{self.hub.url}/{name}"}, 409)
            self.hub.files[name] = {".gitattributes": b""}
            self.hub.private |= {name} if asked.get("private") or asked.get("visibility") == "private" else set()
            return self.answer({"url": f"{self.hub.url}/{name}", "name": name})
        if path == "/api/whoami-v2":
            return self.answer({"name": "me", "type": "user", "auth": {"accessToken": {"role": self.hub.role}}})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.answer({"transfer": "basic", "objects": [self.lfs(one) for one in json.loads(body)["objects"]]})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            return self.answer({"files": [self.preupload(one) for one in json.loads(body)["files"]]})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            return self.commit(match[1], [json.loads(line) for line in body.splitlines()])
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commits/main", path):
            about = {"id": "0" * 40, "authors": [], "date": "2026-01-01T00:00:00.000Z", "message": ""}
            return self.answer([about | {"title": title} for title in reversed(self.hub.titles.get(match[1], []))])
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/main", path):
            files = self.hub.files[match[1]].items()
            return self.answer([{"type": "file", "path": name, "size": len(body), "oid": ""} for name, body in files])
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/main)?", path):
            return self.info(match[1])
        return self.answer({"error": path}, 404)

    def make_store(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if self.hub.tokens and "write" not in self.may():
            return self.answer({"error": "You don't have the rights to create a dataset"}, 403)
        if name in self.hub.stores:
            there = {"error": "You already created this dataset repo", "url": f"{self.hub.url}/datasets/{name}"}
            return self.answer(there, 409)
        is_private = bool(asked.get("private") or asked.get("visibility") == "private")
        self.hub.stores[name] = Repository(is_private=is_private)
        return self.answer({"url": f"{self.hub.url}/datasets/{name}", "name": name})

    def may(self) -> set[str]:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        return self.hub.tokens.get(token, set())

    def guarded(self, name: str, rest: str, body: bytes) -> None:
        """One call for a store: with the faults that are drawn, and what it refuses as the hub says it."""
        self.hub.asked[rest.split("/")[1] if "/" in rest else rest] += 1
        drawn = self.hub.random.random() if DRAWN.search(self.path.partition("?")[0]) else 1.0
        if drawn < self.hub.rate / 2:
            return self.answer({"error": "try again"}, 503)
        try:
            is_signed = "/store-blob/" in rest  # an address for uploads is as good as a token
            if self.hub.tokens and not self.may() and not is_signed:
                raise Refused(401, "Invalid username or password.")
            if name not in self.hub.stores:
                raise Refused(404, "Repository not found", **{"X-Error-Code": "RepoNotFound"})
            shown = self.store_call(self.hub.stores[name], name, rest, body)
        except Refused as no:
            return self.answer({"error": no.said}, no.status, no.headers)
        if drawn < self.hub.rate:
            return self.answer({"error": "the answer was lost"}, 500)
        if shown is not None:
            self.answer(shown)
        return None

    def store_call(self, store: Repository, name: str, rest: str, body: bytes) -> Any:
        """What it answers, None where it has done so itself."""
        what, _, more = rest.removeprefix(".git").strip("/").partition("/")
        revision, _, path = more.partition("/")
        writing = what in ("commit", "preupload", "lfs-files")
        if writing and self.hub.tokens and "write" not in self.may():
            raise Refused(403, "Forbidden: pass a token with write access")
        if what == "resolve":
            return self.send_file(store, store.tree(unquote(revision)).get(unquote(path)))
        if what == "refs":
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": store.head}
            return {"branches": [main], "converts": [], "tags": []}
        if what == "paths-info":
            tree = store.tree(unquote(revision))
            return [tree[one].to_json() for one in parse_qs(body.decode()).get("paths", []) if one in tree]
        if what == "tree":
            below = unquote(path)
            found = [
                one for one in store.tree(unquote(revision)).values() if not below or one.path.startswith(f"{below}/")
            ]
            if below and not found:
                raise Refused(404, "no such folder", **{"X-Error-Code": "EntryNotFound"})
            return [one.to_json() for one in sorted(found, key=lambda one: one.path)]
        if what == "preupload":
            files = json.loads(body)["files"]
            modes = [{"path": one["path"], "uploadMode": store.mode(one["path"], one["size"])} for one in files]
            oids = {path: entry.sha256 or entry.to_json()["oid"] for path, entry in store.files.items()}
            return {"files": [one | {"shouldIgnore": False, "oid": oids.get(one["path"])} for one in modes]}
        if what == "info":
            return {"transfer": "basic", "objects": [self.lfs(one, store, name) for one in json.loads(body)["objects"]]}
        if what == "store-blob":
            self.hub.uploads += 1
            if hashlib.sha256(body).hexdigest() != more:
                raise Refused(400, "other bytes than were announced")
            store.blobs[more] = body
            return {}
        if what == "lfs-files":
            for sha256 in json.loads(body)["deletions"]["sha"]:
                store.blobs.pop(sha256, None)
            return {}
        if what == "commit":
            oid = store.commit([json.loads(line) for line in body.splitlines()])
            url = f"{self.hub.url}/datasets/{name}/commit/{oid}"
            return {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}
        if what in ("", "revision"):
            siblings = [{"rfilename": path} for path in store.files]
            return {"id": name, "sha": store.head, "private": store.is_private, "siblings": siblings, "tags": []}
        raise Refused(404, rest)

    def send_file(self, store: Repository, entry: Any) -> None:
        if entry is None:
            raise Refused(404, "Entry not found", **{"X-Error-Code": "EntryNotFound"})
        body = store.body(entry)
        if asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or ""):
            body = body[int(asked[1]) : int(asked[2]) + 1]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_HEAD = handle_any

    def resolve(self, files: dict[str, bytes] | None, path: str) -> None:
        body = (files or {}).get(path)
        self.send_response(404 if body is None else 200)
        if body is None:
            self.send_header("X-Error-Code", "RepoNotFound" if files is None else "EntryNotFound")
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(body or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body or b"")

    def lfs(self, one: dict[str, Any], store: Repository | None = None, name: str = "") -> dict[str, Any]:
        if one["oid"] in (self.hub.blobs if store is None else store.blobs):
            return {"oid": one["oid"], "size": one["size"]}
        place = f"datasets/{name}/store-blob" if store else "blob"
        upload = {"href": f"{self.hub.url}/{place}/{one['oid']}", "header": {}}
        return {"oid": one["oid"], "size": one["size"], "actions": {"upload": upload}}

    def preupload(self, one: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if one["path"].endswith(".safetensors") else "regular"
        return {"path": one["path"], "uploadMode": mode, "shouldIgnore": False}

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.commits.append(value["summary"])
                self.hub.titles.setdefault(name, []).append(value["summary"])
            elif line["key"] == "deletedFile":
                del self.hub.files[name][value["path"]]
            elif line["key"] == "file":
                self.hub.files[name][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.hub.files[name][value["path"]] = self.hub.blobs[value["oid"]]
        url = f"{self.hub.url}/{name}/commit/{len(self.hub.commits):040x}"
        self.answer({"success": True, "commitOid": f"{len(self.hub.commits):040x}", "commitUrl": url, "hookOutput": ""})

    def info(self, name: str) -> None:
        if name not in self.hub.files:
            return self.answer({"error": "Repository not found"}, 404)
        files, card = self.hub.files[name], self.hub.files[name].get("README.md", b"").decode()
        tags = ["wake2vec"] if "wake2vec" in card.partition("\n---\n")[0] else []
        self.answer(
            {"id": name, "modelId": name, "sha": "0" * 40, "private": name in self.hub.private, "tags": tags,
             "cardData": {"license": self.hub.licences.get(name)}, "siblings": [{"rfilename": path} for path in files]}
        )  # fmt: skip
        return None

    def log_message(self, *_said: object) -> None:
        pass


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    handler = type("Handler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
