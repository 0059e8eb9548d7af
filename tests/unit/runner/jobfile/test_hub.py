"""What the hub refuses is told at enqueue; a hub that cannot be reached holds nothing up."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ASK = "import sys; from runner.jobfile.hub import hub_config; print(hub_config(sys.argv[1], 'main'))"


class Hub(BaseHTTPRequestHandler):
    """Answers as huggingface.co does; the name of a model says how."""

    def do_HEAD(self) -> None:
        code = {"gated": (403, "GatedRepo"), "gone": (404, "RepoNotFound"), "other": (404, "RevisionNotFound")}
        status, error = next(
            (found for name, found in code.items() if f"/{name}/" in self.path), (404, "EntryNotFound")
        )
        self.send_response(status)
        self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_said: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def ask(model: str, endpoint: str, home: Path) -> str:
    """In a process of its own: the library reads its settings once."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, model],
        capture_output=True, text=True, check=False, env={"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PATH": ""},
    )  # fmt: skip
    return done.stdout.strip() + done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("some/gated", "is gated"),
        ("some/gone", "is not on the hub, or is private"),
        ("some/other", "has no revision main"),
        ("some/bare", "has no config.json"),
    ],
)
def test_what_the_hub_refuses_is_told(hub: str, tmp_path: Path, model: str, said: str) -> None:
    assert said in ask(model, hub, tmp_path)


def test_a_hub_out_of_reach_says_nothing(tmp_path: Path) -> None:
    assert ask("some/model", "http://127.0.0.1:9", tmp_path) == "None"
