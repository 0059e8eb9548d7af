"""A text on the hub is fetched once and frozen like any other; what cannot be had is told at enqueue."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tests.hub import Hub, running_hub

ASK = """
import sys
from runner.jobfile.hub_text import fetch_text
from wake2vec.contract.errors import InputError
try:
    print(fetch_text(sys.argv[1]).read_text("utf-8"), end="")
except InputError as error:
    sys.exit(f"error: {error}")
"""
ROWS = ["riverrun, past Eve", "and Adam's"]


def parquet(**columns: list[str | None]) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), out)
    return out.getvalue()


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        hub.datasets["joyce/wake"] = {
            "wake.txt": "riverrun, päst".encode(),
            "data/wake.parquet": parquet(text=[*ROWS], other=["a", "b"]),
            "holes.parquet": parquet(text=["a", None, "b"]),
            "torn.parquet": parquet(text=[*ROWS])[:-9],
            "torn.jsonl": b'{"text": "a"}\n{"text": "b',
            "list.jsonl": b'["a", "b"]\n[1]\n',
            "wake.csv": b"text\nriverrun\n",
            "wake.jsonl": "".join(json.dumps({"line": row}) + "\n" for row in ROWS).encode(),
        }
        yield hub


def ask(hub: Hub, address: str, home: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the library reads its settings once."""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", ASK, address]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("hf://datasets/joyce/wake/wake.txt", "riverrun, päst"),
        ("hf://datasets/joyce/wake@main/wake.txt", "riverrun, päst"),
        ("hf://datasets/joyce/wake/data/wake.parquet", "\n\n".join(ROWS)),
        ("hf://datasets/joyce/wake/data/wake.parquet#other", "a\n\nb"),
        ("hf://datasets/joyce/wake/wake.jsonl#line", "\n\n".join(ROWS)),
        ("hf://datasets/joyce/wake@refs/convert/parquet/data/wake.parquet", "\n\n".join(ROWS)),
        ("hf://datasets/joyce/wake/holes.parquet", "a\n\nb"),
    ],
)
def test_a_text_on_the_hub_is_one_text_here(hub: Hub, tmp_path: Path, address: str, text: str) -> None:
    assert ask(hub, address, tmp_path).stdout == text


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf://datasets/joyce/gone/wake.txt", "no such dataset"),
        ("hf://datasets/joyce/wake/gone.txt", "no such file or revision"),
        ("hf://datasets/joyce/wake/data/wake.parquet#gone", "has no column gone; there are text, other"),
        ("hf://datasets/joyce/wake/wake.jsonl", "has no column text; there are line"),
        ("hf://datasets/joyce/wake/torn.parquet", "cannot be read as a table"),
        ("hf://datasets/joyce/wake/torn.jsonl", "cannot be read as a table"),
        ("hf://datasets/joyce/wake/list.jsonl", "has no column text"),
        ("hf://datasets/joyce/wake/list.jsonl#a", "cannot be read as a table"),
        ("hf://datasets/joyce/wake/wake.csv", "a .csv file is no text"),
        ("hf://joyce/wake.txt", "no address of a file on the hub"),
    ],
)
def test_what_cannot_be_had_is_told(hub: Hub, tmp_path: Path, address: str, said: str) -> None:
    done = ask(hub, address, tmp_path)

    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hub_that_is_away_is_told(hub: Hub, tmp_path: Path) -> None:
    away = Hub()
    away.url = "http://127.0.0.1:9"

    assert "cannot be reached" in ask(away, "hf://datasets/joyce/wake/wake.txt", tmp_path).stderr
