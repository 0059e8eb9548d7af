"""What the hub refuses is told at enqueue, from its small files alone; one out of reach holds nothing up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.unit.runner.folders import write_jobs
from tests.unit.runner.jobfile.test_modelcheck import GPT2, write_config, write_weights

Change = Callable[[Path], object]
ASK = """
import sys
from pathlib import Path
from runner.jobfile.read import read_job, resolve_inputs
from wake2vec.contract.errors import SpecError
path = Path(sys.argv[1])
try:
    print(*resolve_inputs(read_job(path), path.parent, path.name).remarks)
except SpecError as error:
    print(error)
"""
REFUSED = {"gated": (403, "GatedRepo"), "gone": (404, "RepoNotFound"), "other": (404, "RevisionNotFound")}
COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """Answers as huggingface.co does, about `some/NAME`, whose files lie in a folder. Weights it gives in parts."""

    folder: Path

    def do_HEAD(self) -> None:
        self._send(*self._answer(), with_body=False)

    def do_GET(self) -> None:
        weights = self.path.endswith(".safetensors")
        assert not weights or "Range" in self.headers, "weights are wanted in whole"
        self._send(*self._answer(), with_body=True)

    def _answer(self) -> tuple[int, str, bytes]:
        name = self.path.removeprefix("/api/models").split("/")[2]
        if name in REFUSED:
            return *REFUSED[name], b""
        if self.path.startswith("/api/"):
            files = [{"rfilename": path.name} for path in self.folder.iterdir()]
            return 200, "", json.dumps({"id": f"some/{name}", "siblings": files}).encode()
        path = self.folder / self.path.rpartition("/")[2]
        return (200, "", path.read_bytes()) if path.is_file() else (404, "EntryNotFound", b"")

    def _send(self, status: int, error: str, body: bytes, *, with_body: bool) -> None:
        self.send_response(status)
        for key, value in {"X-Error-Code": error, "X-Repo-Commit": COMMIT, "ETag": f'"{hash(body)}"'}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if with_body else b"")

    def log_message(self, *_said: object) -> None:
        pass


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return write_jobs(tmp_path)


@pytest.fixture
def hub(jobs: Path) -> Iterator[str]:
    handler = type("ThisHub", (Hub,), {"folder": jobs / "model"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def ask(jobs: Path, model: str, endpoint: str, job: str = "a_p1.toml") -> str:
    """What enqueue says of a job on a model of the hub, in a process of its own: the library reads settings once."""
    file = jobs / f"hub_{job}"
    file.write_text((jobs / job).read_text().replace('base = "model"', f'base = "some/{model}"'))
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(file)], capture_output=True, text=True, check=False,
        env={"HF_ENDPOINT": endpoint, "HF_HOME": str(jobs / "cache"), "PATH": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.stdout.strip() + done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize(
    ("model", "said"),
    [("gated", "is gated"), ("gone", "is not on the hub, or is private"), ("other", "has no revision main")],
)
def test_what_the_hub_refuses_is_told(hub: str, jobs: Path, model: str, said: str) -> None:
    assert f"some/{model}: {said}" in ask(jobs, model, hub)


def short_matrix(folder: Path) -> None:
    vocab = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": "c"}]}
    (folder / "tokenizer.json").write_text(json.dumps(vocab))
    write_weights(folder, {"model.embed_tokens.weight": [2, 4]})


def lost_shard(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}')


BAD: dict[str, tuple[Change, str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json on the hub"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "holds list, not an object"),
    "a family": (lambda folder: write_config(folder, model_type="zebra"), "zebra is not a family that trains here"),
    "pickles": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "none is ever read; convert it",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no weights in it"),
    "a lost shard": (lost_shard, "model-2.safetensors is missing"),
    "a short matrix": (short_matrix, "its tokenizer has 3 tokens, its matrices 2 rows"),
    "8 bits": (
        lambda folder: write_config(folder, quantization_config={"load_in_8bit": True}),
        "stored as bitsandbytes 8-bit",
    ),
    "4 bits": (
        lambda folder: write_config(folder, quantization_config={"load_in_4bit": True}),
        "the model is stored in 4 bits",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_its_files_say_is_told_without_its_weights(hub: str, jobs: Path, bad: str) -> None:
    change, said = BAD[bad]
    change(jobs / "model")

    assert said in ask(jobs, "model", hub)


def test_targets_that_it_lacks_are_told(hub: str, jobs: Path) -> None:
    write_weights(jobs / "model", GPT2)
    with open(jobs / "a_p2.toml", "a") as file:
        file.write('[lora]\ntargets = ["c_attn", "q_proj"]\n')

    assert "lora.targets: the model has no q_proj; it has: c_attn" in ask(jobs, "model", hub, "a_p2.toml")


def test_a_list_of_which_its_tokenizer_knows_every_word_is_told(hub: str, jobs: Path) -> None:
    words = (jobs / "words.txt").read_text().split()
    vocab = {"model": {"vocab": {word: number for number, word in enumerate(words)}}}
    (jobs / "model" / "tokenizer.json").write_text(json.dumps(vocab))

    assert "list words that are new to it" in ask(jobs, "model", hub)


def test_a_model_that_is_in_order_is_taken_in_silence(hub: str, jobs: Path) -> None:
    assert ask(jobs, "model", hub) == ""


def test_a_hub_out_of_reach_is_a_remark_until_the_cache_knows_more(hub: str, jobs: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    assert "the hub cannot be reached, so the model is checked when the job starts" in ask(jobs, "model", nowhere)
    write_config(jobs / "model", model_type="zebra")
    ask(jobs, "model", hub)

    assert "zebra is not a family that trains here" in ask(jobs, "model", nowhere)


def test_a_snapshot_in_the_cache_is_looked_at_without_the_hub(jobs: Path) -> None:
    cache = jobs / "cache" / "hub" / "models--some--model"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(COMMIT)
    (cache / "snapshots").mkdir()
    short_matrix(jobs / "model")
    os.rename(jobs / "model", cache / "snapshots" / COMMIT)

    assert "its tokenizer has 3 tokens" in ask(jobs, "model", "http://127.0.0.1:9")
