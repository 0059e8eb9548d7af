"""Small inputs for the tests of the command line: a model folder, texts, and job files that name them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

P1 = """
phase = "p1"
[model]
base = "model"
[vocab]
lexicon = "words.txt"
[data]
corpus = "text.txt"
seq_len = 64
[train]
steps = 60
lr = 1e-3
[checkpoint]
every_steps = 20
"""

P2 = """
phase = "p2"
after = "a_p1"
[model]
base = "model"
[data]
corpus = "text.txt"
seq_len = 64
[train]
steps = 40
lr = 1e-3
"""


def write_model(folder: Path, *, weight: str = "rows") -> Path:
    folder.mkdir(parents=True)
    header = json.dumps({weight: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {}}}')
    return folder


def write_jobs(folder: Path) -> Path:
    """a_p1.toml and a_p2.toml with everything that they need."""
    write_model(folder / "model")
    (folder / "text.txt").write_text("riverrun past eve and adam's " * 200)
    (folder / "words.txt").write_text("riverrun\n")
    (folder / "a_p1.toml").write_text(P1)
    (folder / "a_p2.toml").write_text(P2)
    return folder
