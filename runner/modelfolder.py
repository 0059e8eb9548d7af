"""Know a local model folder by a digest of its configuration, its tokenizer and the outline of its weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

from runner.modelcheck import header_bytes, read_object
from wake2vec.errors import ModelError
from wake2vec.order import InputFile

WEIGHTS = (".safetensors", ".gguf", ".bin")
TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "tokenizer_config.json")
SETTINGS = ("config.json", "generation_config.json", "special_tokens_map.json", "added_tokens.json")
OUTLINE_BYTES = 1 << 20  # of a weight file without a header of its own


def digest_model(folder: Path, *, with_code: bool) -> InputFile:
    """What the folder is, without reading gigabytes of weights. Raises ModelError when it is no model."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    weights = [name for name in names if name.endswith(WEIGHTS)]
    _require(folder, names, weights)
    digest, size = hashlib.sha256(), 0
    for name in names:
        path = folder / name
        if name in weights:
            part = _outline(path)
        elif name in TOKENIZER + SETTINGS or (with_code and name.endswith(".py")):
            part = path.read_bytes()
        else:
            continue
        digest.update(f"{name}\0{path.stat().st_size}\0".encode() + hashlib.sha256(part).digest())
        size += path.stat().st_size
    return InputFile(role="model", name="model", sha256=digest.hexdigest(), size=size)


def _require(folder: Path, names: list[str], weights: list[str]) -> None:
    remedy = "give the folder that save_pretrained wrote"
    if "config.json" not in names:
        raise ModelError(folder, "no config.json in it", remedy)
    read_object(folder / "config.json")
    if not weights:
        raise ModelError(folder, f"no weights in it ({', '.join('*' + ending for ending in WEIGHTS)})", remedy)
    if not any(name in names for name in TOKENIZER[:3]):
        raise ModelError(folder, f"no tokenizer in it ({', '.join(TOKENIZER[:3])})", remedy)


def _outline(path: Path) -> bytes:
    """The header of a safetensors file (names, types, shapes, offsets), or the first bytes of another."""
    if path.suffix == ".safetensors":
        return header_bytes(path)
    with open(path, "rb") as file:
        return file.read(OUTLINE_BYTES)
