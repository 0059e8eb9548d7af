"""serve: the queue and the reports as pages for a browser on this machine, which can read them and no more."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from runner.errors import RunnerError
from runner.machine.session import this_machine
from runner.screen.look import look
from runner.screen.page import POLICY, queue_page
from runner.settings import Settings

HERE = "127.0.0.1"
REPORT = "/report/"


def run(settings: Settings, port: int) -> None:
    """Until Ctrl-C. Raises RunnerError on a platform whose terms forbid web pages, and for a port that is taken."""
    platform = this_machine(os.environ).platform
    if platform != "plain":
        raise RunnerError(
            f"serve: {platform.title()} does not allow web pages of one's own; `%wake2vec report` shows one in a cell"
        )
    try:
        server = ThreadingHTTPServer((HERE, port), type("Pages", (_Pages,), {"settings": settings}))
    except OSError as error:
        raise RunnerError(f"serve: port {port}: {error.strerror}; choose another with --port") from error
    with server, suppress(KeyboardInterrupt):
        print(f"http://{HERE}:{server.server_port}/ shows the queue to this machine alone; Ctrl-C ends it", flush=True)
        server.serve_forever()


class _Pages(BaseHTTPRequestHandler):
    settings: Settings
    server: ThreadingHTTPServer

    def do_GET(self) -> None:
        own = f":{self.server.server_port}"
        if self.headers.get("Host") not in (HERE + own, "localhost" + own):
            return self._answer(403, "another site's name leads here; it is not served")
        try:
            self._show(self.path.partition("?")[0])
        except RunnerError as error:
            self._answer(500, str(error))
        return None

    def _show(self, path: str) -> None:
        snapshot = look(self.settings, time.time())
        pages = {job.name: self.settings.runs / job.name / "report.html" for job in snapshot.jobs}
        there = {name: page for name, page in pages.items() if page.is_file()}
        name = path.removeprefix(REPORT)
        if path == "/":
            self._send(200, queue_page(snapshot, there).encode(), "text/html")
        elif path.startswith(REPORT) and name in there:  # names of jobs, never a part of a path
            self._send(200, Path(there[name]).read_bytes(), "text/html")
        else:
            self._answer(404, "there is no such page; `wake2vec-runner report JOB` makes one of a job")

    def _answer(self, status: int, text: str) -> None:
        self._send(status, f"{text}\n".encode(), "text/plain")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The terminal is for people."""
