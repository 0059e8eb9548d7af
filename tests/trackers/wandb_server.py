"""A W&B server on the loopback: as much of its GraphQL and of its file stream as a run that logs figures calls."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ME = {"id": "1", "name": "me"}
ABOUT = {"cliVersionInfo": {"max_cli_version": "9.9.9"}, "latestLocalVersionInfo": None, "features": []}


@dataclass
class Run:
    """The lines of its streams, each at the offset that was said with it: told again, it is the same line."""

    lines: dict[str, list[str]] = field(default_factory=dict)

    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.get("wandb-history.jsonl", [])]

    def steps(self, kind: str) -> list[int]:
        return [row[f"{kind}/step"] for row in self.history() if f"{kind}/step" in row]


@dataclass
class Server:
    runs: dict[str, Run] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)  # whatever came, in its own words
    is_away: bool = False
    url: str = ""

    def take(self, name: str, files: dict[str, Any]) -> None:
        for file, told in files.items():
            lines, at = self.runs[name].lines.setdefault(file, []), told["offset"]
            lines[at : at + len(told["content"])] = told["content"]

    def ask(self, query: str, asked: dict[str, Any]) -> dict[str, Any]:
        if "RunResumeStatus" in query:
            return {"model": {**ME, "name": asked["project"], "entity": ME, "bucket": self.bucket(asked["name"])}}
        if "UpsertBucket" in query:
            is_new = asked["name"] not in self.runs
            self.runs.setdefault(asked["name"], Run())
            project = {"id": "2", "name": asked["project"], "entity": ME}
            bucket = self.bucket(asked["name"]) or {}
            return {"upsertBucket": {"bucket": {**bucket, "project": project, "sweepName": None}, "inserted": is_new}}
        if "CreateRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/file/{name}"} for name in asked["files"]]
            return {"createRunFiles": {"runID": "3", "uploadHeaders": [], "files": files}}
        return {"viewer": {**ME, "entity": "me", "username": "me", "teams": {"edges": []}}, "serverInfo": ABOUT}

    def bucket(self, name: str) -> dict[str, Any] | None:
        if name not in self.runs:
            return None
        lines = self.runs[name].lines
        history, summary = lines.get("wandb-history.jsonl", []), lines.get("wandb-summary.json", ["{}"])
        return {
            "id": "3", "name": name, "displayName": name, "description": None, "config": "{}",
            "wandbConfig": '{"t": {}}',
            "tags": [], "notes": None, "summaryMetrics": summary[-1], "logLineCount": 0, "eventsLineCount": 0,
            "historyLineCount": len(history), "historyTail": json.dumps(history[-1:]), "eventsTail": "[]",
        }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    server_of: Server
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server_of.said.append(f"{self.path} {body.decode(errors='replace')}")
        if self.server_of.is_away:
            return self.answer({"error": "away"}, 503)
        if self.path == "/graphql":
            asked = json.loads(body)
            return self.answer({"data": self.server_of.ask(asked["query"], asked.get("variables") or {})})
        if self.path.endswith("/file_stream"):
            self.server_of.take(self.path.split("/")[-2], json.loads(body).get("files", {}))
        return self.answer({})

    def answer(self, body: Any, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = handle_any

    def log_message(self, *_said: object) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_who: object) -> None:
        """A client that was killed, or has hung up."""


@contextmanager
def running_wandb() -> Iterator[Server]:
    served = Server()
    server = Quiet(("127.0.0.1", 0), type("Handler", (Handler,), {"server_of": served}))
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
