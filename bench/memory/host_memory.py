"""Host memory of `export` and `geometry` at the shape of Qwen2.5-14B: `python -m bench.memory.host_memory`.

The published model is written with fewer layers than it has, once with few and once with more: what streams shard by
shard must not need more for more layers. Layers are sparse files of zeros, which are read and written like any others;
the embedding and the trained rows are random. The peak is VmHWM of the measuring process, pages of mapped files
included. About 15 GB of disk are taken and given back; --folder says where.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from wake2vec.contract.files import write_json
from wake2vec.contract.options import ExportOptions, GeometryOptions, Options
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.spec import JOB_SPEC
from wake2vec.vocab.idmap import IdMap, WordIds

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "jobs" / "tiny" / "model"
MATRIX_ROWS, FIRST_NEW_ID, N_NEW, WIDTH, FEED, GROUPED, RANK = 152_064, 151_665, 44_223, 5120, 13_824, 1024, 8
DEPTHS = (2, 8)  # of 48
LINEARS = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (GROUPED, WIDTH),
    "self_attn.v_proj": (GROUPED, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (FEED, WIDTH),
    "mlp.up_proj": (FEED, WIDTH),
    "mlp.down_proj": (WIDTH, FEED),
}
ADAPTED = [name for name in LINEARS if "o_proj" not in name]
Shapes = dict[str, tuple[int, ...]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where there is room; default: the system's temporary folder")
    asked = parser.parse_args()
    print("| what | layers | peak host memory | took |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        for layers in DEPTHS:
            folder = Path(name) / str(layers)
            run, out = build(folder, layers), folder / "out"
            for what, words in commands(run, out, with_geometry=layers == DEPTHS[0]).items():
                peak, seconds = measure([sys.executable, "-m", *words])
                print(f"| {what} | {layers} | {peak / (1 << 30):.2f} GiB | {seconds:,.0f} s |", flush=True)
                shutil.rmtree(out, ignore_errors=True)
            shutil.rmtree(folder)


def commands(run: RunDir, out: Path, *, with_geometry: bool) -> dict[str, list[str]]:
    p1 = run.root.with_name("p1")
    asked: dict[str, Options] = {
        "export --merge": ExportOptions(run=run.root, out=out, merge=True),
        "export": ExportOptions(run=run.root, out=out),
    }
    if with_geometry:
        asked["geometry"] = GeometryOptions(run=p1)
        asked["geometry --side output"] = GeometryOptions(run=p1, side="output")
    return {what: ["wake2vec.use", one.name(), one.model_dump_json()] for what, one in asked.items()}


def build(folder: Path, layers: int) -> RunDir:
    """A published model, the final P1 run and the final P2 run on top of it; returns the P2 run."""
    model = folder / "model"
    write_model(model, layers)
    p1, p2 = RunDir(root=folder / "p1"), RunDir(root=folder / "p2")
    lora: Shapes = {}
    for place in (f"model.layers.{layer}.{linear}" for layer in range(layers) for linear in ADAPTED):
        outputs, inputs = LINEARS[place.split(".", 3)[3]]
        lora |= {f"{place}.lora_A.weight": (RANK, inputs), f"{place}.lora_B.weight": (outputs, RANK)}
    words = folder / "inputs" / "0"
    words.parent.mkdir()
    words.write_text("".join(f"wake{number}\n" for number in range(N_NEW)))
    for run in (p1, p2):
        run.vocab.mkdir(parents=True)
        copy_tokenizer(run.vocab)
        id_map().save(run.id_map)
        write_json(run.order, order(folder, run.root.name).model_dump(mode="json"))
        run.final.mkdir()
    rows: Shapes = {"rows.input": (N_NEW, WIDTH), "rows.output": (N_NEW, WIDTH)}
    write_tensors(p1.final / "embed_tokens.safetensors", rows, "F32", random=tuple(rows))
    (p2.final / "embed_tokens.safetensors").hardlink_to(p1.final / "embed_tokens.safetensors")
    write_tensors(p2.final / "adapter_model.safetensors", lora, "F32", random=tuple(lora))
    return p2


def write_model(folder: Path, layers: int) -> None:
    folder.mkdir(parents=True)
    copy_tokenizer(folder)
    write_json(folder / "config.json", {"model_type": "qwen2", "tie_word_embeddings": False, "vocab_size": MATRIX_ROWS})
    matrix = (MATRIX_ROWS, WIDTH)
    shards: dict[str, Shapes] = {
        "embed.safetensors": {"model.embed_tokens.weight": matrix},
        "head.safetensors": {"lm_head.weight": matrix, "model.norm.weight": (WIDTH,)},
    }
    for layer in range(layers):
        place = f"model.layers.{layer}"
        shards[f"{layer}.safetensors"] = {f"{place}.{name}.weight": shape for name, shape in LINEARS.items()} | {
            f"{place}.{name}.weight": (WIDTH,) for name in ("input_layernorm", "post_attention_layernorm")
        }
    for file, shapes in shards.items():
        write_tensors(folder / file, shapes, "BF16", random=("model.embed_tokens.weight", "lm_head.weight"))
    places = {name: file for file, shapes in shards.items() for name in shapes}
    write_json(folder / "model.safetensors.index.json", {"weight_map": places})


def write_tensors(path: Path, shapes: Shapes, dtype: str, *, random: tuple[str, ...]) -> None:
    """A safetensors file, zeros except for the tensors of these names; zeros take no room on the disk."""
    size, end = {"BF16": 2, "F32": 4}[dtype], 0
    header: dict[str, Any] = {}
    for name, shape in shapes.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size * int(np.prod(shape))]}
        end += size * int(np.prod(shape))
    body = json.dumps(header).encode()
    chance = np.random.default_rng(7)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(body)) + body)
        for name in shapes:
            begin, stop = header[name]["data_offsets"]
            if name in random:
                file.seek(8 + len(body) + begin)
                for start in range(begin, stop, 64 << 20):
                    values = chance.standard_normal(min(64 << 20, stop - start) // size, dtype=np.float32) * 0.02
                    file.write((values.view(np.uint32) >> 16).astype(np.uint16) if size == 2 else values)
        file.truncate(8 + len(body) + end)


def copy_tokenizer(folder: Path) -> None:
    for path in TOKENIZER.glob("*token*"):
        shutil.copy(path, folder)


def id_map() -> IdMap:
    entries = tuple(
        WordIds(
            word=f"wake{row}", token=f"wake{row}", id=FIRST_NEW_ID + row, row=row, trainable=True, known=False,
            reachable=True,
        )
        for row in range(N_NEW)
    )  # fmt: skip
    return IdMap(
        first_new_id=FIRST_NEW_ID, entries=entries, match="word", case="as-is", scheme="bytelevel", base_fingerprint=""
    )


def order(folder: Path, name: str) -> Order:
    table: dict[str, Any] = {
        "name": name,
        "phase": name,
        "model": {"base": str(folder / "model")},
        "data": {"corpus": "corpus"},
        "train": {"steps": 9, "lr": 0.1},
    }
    table |= {"vocab": {"lexicon": "lexicon", "init": "mean_noise"}} if name == "p1" else {"after": "p1"}
    return Order(
        job=JOB_SPEC.validate_python(table), fingerprint="", attempt=1, inputs=[], inputs_folder=str(folder / "inputs"),
        gpu_lock=str(folder / "lock"),
    )  # fmt: skip


def measure(command: list[str]) -> tuple[int, float]:
    """Peak bytes of host memory and seconds of a command."""
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        found = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0")
        peak = max(peak, int(found) << 10)
        time.sleep(0.02)
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
    return peak, time.monotonic() - started


if __name__ == "__main__":
    main()
