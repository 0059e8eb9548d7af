"""A loopback Google Drive: HTTP around `Drive`, with `Faults` between it and the client."""

from __future__ import annotations

import email.parser
import email.utils
import json
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.drive_server.drive import Drive, Refused, TokenRefused
from tests.drive_server.faults import Fault, Faults

PIECE_BYTES = 64 << 10
HTML = b"<!DOCTYPE html><html><title>Error</title><body><h1>Server Error</h1>That is all we know.</body></html>"


class Hangup(Exception):
    """The connection ends here, without a word."""


class Line:
    """One wire: what all connections move together is as slow as what one of them moves alone."""

    def __init__(self) -> None:
        self._free_at = 0.0
        self._lock = threading.Lock()

    def carry(self, size: int, bytes_per_second: float) -> None:
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + size / bytes_per_second
            wait = self._free_at - time.monotonic()
        time.sleep(max(0.0, wait))


class DriveServer:
    """`with DriveServer(folder) as server:` a Drive at `server.url`, whose `drive` and `faults` a test may change."""

    def __init__(
        self,
        folder: Path,
        *,
        faults: Faults | None = None,
        on_bytes: Callable[[int], bool] = lambda size: True,
        **habits: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.on_bytes = (
            on_bytes  # called with the size of each piece of a chunk; False: the line is dead, nothing after it arrives
        )
        self.tls: ssl.SSLContext | None = None  # set, it also is a proxy that answers for Google's own host names
        self.line = Line()
        self.drive = Drive(folder=folder, **habits)
        self.faults = faults or Faults()
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/"

    def token_json(self) -> str:
        """A token as `login` would have saved it."""
        table = {
            "client_id": "client",
            "client_secret": "secret",
            "refresh_token": "refresh",
            "token_uri": f"{self.url}token",
        }
        return json.dumps(table)

    def environ(self) -> dict[str, str]:
        """What sends the product here instead of to Google."""
        return {"WAKE2VEC_DRIVE_ROOT": self.url, "WAKE2VEC_DRIVE_TOKEN": self.token_json()}

    def __enter__(self) -> DriveServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.close_connections()
        self._http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    owner: DriveServer

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for connection in list(self._connections):
            connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that was killed or gave up; what matters is what the Drive holds afterwards


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def date_time_string(self, timestamp: float | None = None) -> str:
        return email.utils.formatdate(self.server.owner.drive.now(), usegmt=True)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_any(self) -> None:
        owner = self.server.owner
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        self.fault = owner.faults.next(f"{self.command} {url.path}")
        self.left = int(self.headers.get("content-length", 0))
        try:
            self._meet_before()
            try:
                status, headers, body = self._route(owner.drive, url.path, query)
            except Refused as refusal:
                self._drain()
                status, headers, body = refusal.status, refusal.headers, refusal.body
            except TokenRefused as refusal:
                status, headers, body = 400, {}, refusal.body
            self._meet_after()
            self._answer(status, headers, body)
        except Hangup:
            self.close_connection = True

    def do_CONNECT(self) -> None:
        """As a proxy: say that the tunnel stands, and be the other end of it."""
        context = self.server.owner.tls
        assert context is not None, "a client took this for a proxy"
        self.send_response(200)
        self.end_headers()
        self.connection = context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    # -- faults -----------------------------------------------------------------------------------------------------

    def _is(self, *kinds: str) -> bool:
        return self.fault is not None and self.fault.kind in kinds

    def _meet_before(self) -> None:
        fault = self.fault
        if fault is None:
            return
        if fault.kind == "drop":
            raise Hangup
        if fault.kind == "slow":
            time.sleep(fault.seconds)
        if fault.kind == "stall":
            self._drain()
            self.connection.settimeout(120)
            self.connection.recv(1)  # until the client gives up
            raise Hangup
        if fault.kind == "cut" and self.left == 0:
            raise Hangup
        if fault.kind in ("status", "html"):
            self._drain()
            self._answer_fault(fault)

    def _meet_after(self) -> None:
        if self._is("no_answer", "cut"):
            raise Hangup
        if self.fault is not None and self.fault.kind == "after":
            self._answer_fault(self.fault)

    def _answer_fault(self, fault: Fault) -> None:
        if fault.kind == "html":
            self._answer(fault.status, {"content-type": "text/html"}, HTML)
        else:
            refusal = Refused(fault.status, fault.reason, "as planned")
            headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
            self._answer(fault.status, headers, refusal.body)
        self.fault = None
        raise Hangup

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for key, value in {"content-type": "application/json; charset=UTF-8", **headers}.items():
            self.send_header(key, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self._is("half_answer"):
            self.wfile.write(body[: len(body) // 2])
            raise Hangup
        if self.fault is not None and self.fault.kind == "slow":
            for start in range(0, len(body), PIECE_BYTES):
                self.wfile.write(body[start : start + PIECE_BYTES])
                self.server.owner.line.carry(PIECE_BYTES, self.fault.bytes_per_second)
        else:
            self.wfile.write(body)

    # -- reading ----------------------------------------------------------------------------------------------------

    def _read(self) -> tuple[bytes, bool]:
        """The request's body and whether it is whole: half of it under the fault `cut`, less when a client dies."""
        wanted = self.left // 2 if self._is("cut") else self.left
        pieces: list[bytes] = []
        while wanted > 0:
            try:
                piece = self.rfile.read1(min(wanted, PIECE_BYTES))
            except OSError:
                piece = b""
            if not piece:
                break
            pieces.append(piece)
            if "/session/" in self.path and not self.server.owner.on_bytes(len(piece)):
                break
            wanted -= len(piece)
            self.left -= len(piece)
            if self.fault is not None and self.fault.kind == "slow":
                self.server.owner.line.carry(len(piece), self.fault.bytes_per_second)
        return b"".join(pieces), self.left == 0

    def _whole(self) -> bytes:
        body, is_whole = self._read()
        if not is_whole:
            raise Hangup
        return body

    def _drain(self) -> None:
        while self.left > 0:
            piece = self.rfile.read1(min(self.left, PIECE_BYTES))
            if not piece:
                raise Hangup
            self.left -= len(piece)

    # -- calls ------------------------------------------------------------------------------------------------------

    def _route(self, drive: Drive, path: str, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if path == "/token":
            form = dict(urllib.parse.parse_qsl(self._whole().decode()))
            with drive.lock:
                return _json(drive.token(form))
        if path.startswith("/computeMetadata/"):  # Colab's own credentials come from here
            with drive.lock:
                table = drive.token({}) if path.endswith("/token") else {"email": "default", "scopes": ["drive"]}
            return 200, {"content-type": "application/json"}, json.dumps(table).encode()
        if match := re.fullmatch(r"/session/(\w+)", path):
            return self._session(drive, match[1])
        with drive.lock:
            drive.authorise(self.headers.get("authorization", ""))
        if path == "/upload/drive/v2/files" and query.get("uploadType") == "resumable":
            metadata = json.loads(self._whole())
            with drive.lock:
                name = drive.begin(metadata, int(self.headers["x-upload-content-length"]))
            host = self.headers["host"]
            return 200, {"location": f"{'https' if self._is_tls() else 'http'}://{host}/session/{name}"}, b""
        if path.startswith("/upload/drive/v2/files"):
            metadata, media = self._multipart()
            id = path.removeprefix("/upload/drive/v2/files").strip("/")
            with drive.lock:
                file = (
                    drive.update(id, metadata, media, self.headers.get("if-match"))
                    if id
                    else drive.insert(metadata, media)
                )
                return _json(drive.describe(file))
        return self._plain(drive, path, query)

    def _is_tls(self) -> bool:
        return isinstance(self.connection, ssl.SSLSocket)

    def finish(self) -> None:
        super().finish()
        if self._is_tls():  # the server knows only the socket below it
            self.connection.close()

    def _plain(self, drive: Drive, path: str, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        body = self._whole()
        id = path.removeprefix("/drive/v2/files").strip("/")
        with drive.lock:
            if path == "/drive/v2/about":
                return _json(drive.about())
            if id == "generateIds":
                return _json(drive.generate_ids(int(query.get("maxResults", 10))))
            if not path.startswith("/drive/v2/files"):
                raise Refused(404, "notFound", path)
            if self.command == "POST":
                return _json(drive.describe(drive.insert(json.loads(body), b"")))
            if not id:
                return _json(
                    drive.list(query.get("q", ""), int(query.get("maxResults", 100)), query.get("pageToken", ""))
                )
            if self.command in ("PATCH", "PUT"):
                return _json(drive.describe(drive.update(id, json.loads(body), None, None)))
            if self.command == "DELETE":
                drive.delete(id)
                return 204, {}, b""
            file = drive.get(id)
            if query.get("alt") != "media":
                return _json(drive.describe(file))
        return self._media(file.path, file.size)

    def _media(self, path: Path, size: int) -> tuple[int, dict[str, str], bytes]:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        with open(path, "rb") as file:
            if match is None:
                return 200, {"content-type": "application/octet-stream"}, file.read()
            start, end = int(match[1]), min(int(match[2]), size - 1)
            if start >= size:
                raise Refused(416, "requestedRangeNotSatisfiable")
            file.seek(start)
            headers = {"content-type": "application/octet-stream", "content-range": f"bytes {start}-{end}/{size}"}
            return 206, headers, file.read(end - start + 1)

    def _multipart(self) -> tuple[dict[str, Any], bytes]:
        head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
        parts = email.parser.BytesParser().parsebytes(head + self._whole()).get_payload()
        if isinstance(parts, str):  # uploadType=media: no metadata
            return {}, parts.encode()
        metadata, media = (part.get_payload(decode=True) for part in parts)
        return json.loads(metadata), media

    def _session(self, drive: Drive, name: str) -> tuple[int, dict[str, str], bytes]:
        with drive.lock:
            if self._is("expire"):
                drive.session(name).expired = True
            session = drive.session(name)
        chunk, is_whole = self._read()
        with drive.lock:
            drive.counts["chunk_bytes"] += len(chunk)
            match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", self.headers.get("content-range", ""))
            if match and session.finished is None:
                drive.receive(session, int(match[1]), chunk, is_whole=is_whole)
            if not is_whole:
                raise Hangup
            file = drive.finish(session)
            if file is not None:
                return _json(drive.describe(file))
            return 308, {"range": f"bytes=0-{session.received - 1}"} if session.received else {}, b""


def _json(table: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps(table).encode()
