"""Know a local model folder by a digest of its configuration, its tokenizer and the outline of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from runner.jobfile.modelcheck import read_object
from wake2vec.contract.errors import ModelError
from wake2vec.contract.models.weight_files import header_bytes
from wake2vec.contract.order import InputFile

WEIGHTS = (".safetensors", ".gguf", ".bin")
TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "tokenizer_config.json")
SETTINGS = ("config.json", "generation_config.json", "special_tokens_map.json", "added_tokens.json")
OUTLINE_BYTES = 1 << 20  # of a weight file without a header of its own
SAMPLES, SAMPLE_BYTES = 64, 64 << 10  # of each weight file


def digest_model(folder: Path, *, with_code: bool) -> InputFile:
    """What the folder is, without reading gigabytes of weights. Raises ModelError when it is no model."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    weights = [name for name in names if name.endswith(WEIGHTS)]
    _require(folder, names, weights)
    digest, samples, size = hashlib.sha256(), hashlib.sha256(), 0
    for name in names:
        path = folder / name
        if name in weights:
            part = _outline(path)
            samples.update(_sample(path))
        elif name in TOKENIZER + SETTINGS or (with_code and name.endswith(".py")):
            part = path.read_bytes()
        else:
            continue
        digest.update(f"{name}\0{path.stat().st_size}\0".encode() + hashlib.sha256(part).digest())
        size += path.stat().st_size
    return InputFile(role="model", name="model", sha256=digest.hexdigest(), size=size, weights=samples.hexdigest())


def _require(folder: Path, names: list[str], weights: list[str]) -> None:
    remedy = "give the folder that save_pretrained wrote"
    if "config.json" not in names:
        raise ModelError(folder, "no config.json in it", remedy)
    read_object(folder / "config.json")
    if not weights:
        raise ModelError(folder, f"no weights in it ({', '.join('*' + ending for ending in WEIGHTS)})", remedy)
    if not any(name in names for name in TOKENIZER[:3]):
        raise ModelError(folder, f"no tokenizer in it ({', '.join(TOKENIZER[:3])})", remedy)


def same_weights(ours: Iterable[InputFile], theirs: Iterable[InputFile]) -> bool:
    """As far as both are known: digests of an older version, and names on the hub, have no samples."""
    here, there = (next((item.weights for item in items if item.role == "model"), None) for items in (ours, theirs))
    return here is None or there is None or here == there


def _sample(path: Path) -> bytes:
    """Stretches from all over a file: enough to tell a fine-tune or a broken copy from the original in an instant."""
    digest, last = hashlib.sha256(), max(0, path.stat().st_size - SAMPLE_BYTES)
    with open(path, "rb") as file:
        for number in range(SAMPLES):
            file.seek(last * number // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.digest()


def _outline(path: Path) -> bytes:
    """The header of a safetensors file (names, types, shapes, offsets), or the first bytes of another."""
    if path.suffix == ".safetensors":
        return header_bytes(path)
    with open(path, "rb") as file:
        return file.read(OUTLINE_BYTES)
