"""A model hub on the loopback: as much of huggingface.co's protocol as making a repository and committing needs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """What it holds: files by repository and path, and how often it was asked for what."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.datasets: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.blobs: dict[str, bytes] = {}  # by sha256
        self.commits: list[str] = []
        self.uploads = 0
        self.refuse: dict[str, int] = {}  # part of a path → status
        self.url = ""


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def answer(self, body: Any = None, status: int = 200) -> None:
        data = json.dumps(body if body is not None else {}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        for part, status in self.hub.refuse.items():
            if part in path:
                return self.answer({"error": "no"}, status)
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/(refs%2Fconvert%2Fparquet|[^/]+)/(.+)", path):
            return self.resolve(self.hub.datasets.get(match[1]), match[3])
        if path.startswith("/blob/"):
            self.hub.uploads += 1
            self.hub.blobs[path.removeprefix("/blob/")] = body
            return self.answer()
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else f"me/{asked['name']}"
            if name in self.hub.files:
                return self.answer({"error": "exists", "url": f"{self.hub.url}/{name}"}, 409)
            self.hub.files[name] = {".gitattributes": b""}
            self.hub.private |= {name} if asked.get("private") or asked.get("visibility") == "private" else set()
            return self.answer({"url": f"{self.hub.url}/{name}", "name": name})
        if path == "/api/whoami-v2":
            return self.answer({"name": "me", "type": "user", "auth": {"accessToken": {"role": "write"}}})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.answer({"transfer": "basic", "objects": [self.lfs(one) for one in json.loads(body)["objects"]]})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            return self.answer({"files": [self.preupload(one) for one in json.loads(body)["files"]]})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            return self.commit(match[1], [json.loads(line) for line in body.splitlines()])
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/main", path):
            files = self.hub.files[match[1]].items()
            return self.answer([{"type": "file", "path": name, "size": len(body), "oid": ""} for name, body in files])
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/main)?", path):
            return self.info(match[1])
        return self.answer({"error": path}, 404)

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

    def lfs(self, one: dict[str, Any]) -> dict[str, Any]:
        if one["oid"] in self.hub.blobs:
            return {"oid": one["oid"], "size": one["size"]}
        upload = {"href": f"{self.hub.url}/blob/{one['oid']}", "header": {}}
        return {"oid": one["oid"], "size": one["size"], "actions": {"upload": upload}}

    def preupload(self, one: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if one["path"].endswith(".safetensors") else "regular"
        return {"path": one["path"], "uploadMode": mode, "shouldIgnore": False}

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.commits.append(value["summary"])
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
             "siblings": [{"rfilename": path} for path in files]}
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
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
