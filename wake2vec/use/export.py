"""Write a trained model for others to use.

P1, and P2 with merge: a plain Hugging Face folder, loaded by AutoModelForCausalLM.from_pretrained(OUT).
P2 without merge: OUT is a PEFT adapter and OUT/base the plain model with the new rows that it belongs to.
adapter_only: the adapter and the rows alone, without any published weight.
gguf: one file for llama.cpp and what is built on it, adapters merged.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wake2vec.contract.errors import InputError
from wake2vec.contract.files import size, whole_folder, write_json
from wake2vec.contract.models.targets import named_targets
from wake2vec.contract.models.weight_files import ADAPTER_FILE, ROWS_FILE
from wake2vec.contract.options import ExportOptions
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.tables import LoraTable
from wake2vec.model.bare import bare_model, read_config, read_outline
from wake2vec.model.outline import Outline, is_transposed
from wake2vec.model.precision import Precision
from wake2vec.model.published_files import Origin, PublishedFiles, origin_of
from wake2vec.model.stored import Dequantised, parts_of, without_parts
from wake2vec.phases.identity import trained_order
from wake2vec.phases.p2 import lora_options
from wake2vec.show.card import Kind, model_card
from wake2vec.use.merged_weights import Layout, Trained, lay_out
from wake2vec.use.shards import write_model
from wake2vec.use.trained_weights import read_trained, require_published
from wake2vec.vocab.idmap import load as load_id_map

ID_MAP = "wake2vec_ids.json"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
Progress = Callable[[int, int], None]


def export(
    run: RunDir,
    out_dir: Path,
    *,
    merge: bool = False,
    dtype: str | None = None,
    step: int | str = "final",
    adapter_only: bool = False,
    gguf: str | None = None,
    progress: Progress = lambda done, whole: None,
) -> Path:
    """Write `out_dir`, which appears whole or not at all. `dtype` None: as published; `step`: a number, best or final.

    Raises InputError when something needed is missing, when the folder is taken or when the disk is too small.
    """
    order = trained_order(run)
    job = order.training
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise InputError(out_dir, "is there already", "choose a new folder")
    if adapter_only and merge:
        raise InputError("export", "an adapter that is merged is no adapter", "choose one of the two")
    if gguf and (adapter_only or dtype):
        raise InputError("export", "a GGUF file holds the whole model in its own type", "leave the other choice out")
    if adapter_only and job.phase == "p1":
        raise InputError(run.root, "has no adapter: P1 trains rows", "export it without --adapter-only")
    trained, place = read_trained(run, order, step)
    if adapter_only and trained.own:
        raise InputError(run.root, "has trained every weight, not an adapter alone", "export it without --adapter-only")
    with whole_folder(out_dir, out_dir.with_name(f".{out_dir.name}.{os.getpid()}.tmp")) as temporary:
        if gguf:
            write_gguf(run, order, trained, temporary, place=place, kind=gguf, progress=progress)
        else:
            _write(run, order, trained, temporary, out_dir, place, merge, dtype, adapter_only, progress)
        if out_dir.exists():
            out_dir.rmdir()  # fails where somebody has put something there meanwhile
    return out_dir


def _write(
    run: RunDir,
    order: Order,
    trained: Trained,
    folder: Path,
    out_dir: Path,
    place: str,
    merge: bool,
    dtype: str | None,
    adapter_only: bool,
    progress: Progress,
) -> None:
    is_adapter = bool(trained.lora) and not merge
    if not adapter_only:
        base = folder / "base" if is_adapter else folder
        base.mkdir(exist_ok=True)
        write_plain(run, order, trained, base, merge=merge, dtype=dtype, progress=progress)
    if is_adapter:
        model = order.training.model
        write_adapter(order, trained, folder, base=model.base if adapter_only else str(out_dir / "base"))
    if adapter_only:
        write_rows(order, trained, folder)
    copy_tokenizer(run, folder)
    kind: Kind = "adapter_only" if adapter_only else "adapter" if is_adapter else "plain"
    (folder / "README.md").write_text(model_card(run, order, place=place, kind=kind, dtype=dtype), "utf-8")


def write_plain(
    run: RunDir, order: Order, trained: Trained, folder: Path, *, merge: bool, dtype: str | None, progress: Progress
) -> None:
    """A folder that AutoModelForCausalLM.from_pretrained loads."""
    config, layout = _laid_out(run, order, trained, merge=merge, dtype=dtype)
    origin = origin_of(order.training.model)
    _check_space(folder, sum(piece.size for piece in layout.pieces))
    write_model(folder, layout.pieces, progress=progress)
    write_json(folder / "config.json", changed_config(config, trained, layout, dtype))
    generation = _json(origin, "generation_config.json")
    if generation is not None:
        write_json(folder / "generation_config.json", generation)
    copy_tokenizer(run, folder)


def write_gguf(
    run: RunDir, order: Order, trained: Trained, folder: Path, *, place: str, kind: str, progress: Progress
) -> None:
    """One file with everything that llama.cpp needs, its card, and the id map.

    Raises ModelError, before anything is written, for a family or a tokenizer that llama.cpp does not read alike.
    """
    try:
        from wake2vec.use.gguf.words import words_of
        from wake2vec.use.gguf.write import GgufFile
    except ModuleNotFoundError as error:
        raise InputError("export", f"{error.name} is not installed here", "pip install gguf") from error
    _, layout = _laid_out(run, order, trained, merge=True, dtype=None)
    words = words_of(run.vocab, load_id_map(run.id_map), trained.vocabulary)
    file = GgufFile(read_config(origin_of(order.training.model)), layout.pieces, words, kind)
    _check_space(folder, file.size)
    name = order.job.name
    file.write(folder / f"{name}-{kind.upper()}.gguf", name=name, vocab=run.vocab, progress=progress)
    shutil.copyfile(run.id_map, folder / ID_MAP)
    if words.remark:
        print(words.remark, file=sys.stderr, flush=True)
    card = model_card(run, order, place=place, kind="gguf", dtype=kind, remark=words.remark)
    (folder / "README.md").write_text(card, "utf-8")


def _laid_out(
    run: RunDir, order: Order, trained: Trained, *, merge: bool, dtype: str | None
) -> tuple[dict[str, Any], Layout]:
    """The published config, and the tensors of the model as it is to be."""
    table = order.training.model
    origin = origin_of(table)
    require_published(run, order)
    published = PublishedFiles(origin)
    config = _json(origin, "config.json")
    if config is None:
        raise InputError(table.base, "has no config.json", "download the model again")
    outline = read_outline(published, read_config(origin))
    whole = whole_weights(published, outline, asked=merge or dtype is not None)
    layout = lay_out(whole or published, trained, outline=outline, merge=merge, dtype=DTYPES[dtype] if dtype else None)
    if whole is not None and config.pop("quantization_config", None):
        said = "its weights are published in 4 bits and are written as whole ones; quantise the result to have it small"
        print(f"{table.base}: {said}", file=sys.stderr, flush=True)
    return config, layout


def whole_weights(files: PublishedFiles, outline: Outline, *, asked: bool) -> Dequantised | None:
    """Weights that are stored in 4 bits as whole ones, where that is asked for or a matrix is among them."""
    packed = set(files.files) - set(without_parts(files.files))
    matrices = (outline.file_name(outline.inputs), outline.file_name(outline.outputs))
    needed = asked or any(parts_of(name, packed) for name in matrices)
    return Dequantised(files) if packed and needed else None


def changed_config(config: dict[str, Any], trained: Trained, layout: Layout, dtype: str | None) -> dict[str, Any]:
    """The published config with the new size, and the tying as it now is."""
    changed = dict(config)
    changed["vocab_size"] = trained.vocabulary
    changed["tie_word_embeddings"] = layout.tied
    if isinstance(inner := config.get("text_config"), dict):
        changed["text_config"] = {**inner, "vocab_size": trained.vocabulary, "tie_word_embeddings": layout.tied}
    if dtype is not None:
        changed.pop("torch_dtype", None)  # its name before transformers 4.56
        changed["dtype"] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[dtype]
    changed.pop("_name_or_path", None)
    return changed


def write_adapter(order: Order, trained: Trained, folder: Path, *, base: str) -> None:
    """A PEFT adapter whose config names the model it belongs to."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    halves = {}
    for module, (a, b) in trained.lora.items():
        halves[f"base_model.model.{module}.lora_A.weight"] = a.contiguous()
        halves[f"base_model.model.{module}.lora_B.weight"] = b.contiguous()
    save_file(halves, folder / ADAPTER_FILE, metadata={"format": "pt"})
    lora = order.training.lora or LoraTable()
    targets = named_targets(lora.targets, list(trained.lora))
    options = lora_options(lora, targets)
    config = LoraConfig(
        **options,
        inference_mode=True,
        base_model_name_or_path=base,
        fan_in_fan_out=is_published_transposed(order, trained),
    )
    config.target_modules = sorted(targets)  # PEFT's set is written in any order
    config.save_pretrained(str(folder))


def is_published_transposed(order: Order, trained: Trained) -> bool:
    """Whether the layers under the adapters keep their weights as [in, out]. PEFT sees it too."""
    table = order.training.model
    try:
        config = read_config(origin_of(table))
        model = bare_model(config, Precision(load="fp32", compute="fp32"), trust_remote_code=table.trust_remote_code)
    except InputError:
        return False
    return any(is_transposed(model.get_submodule(module)) for module in trained.lora)


def write_rows(order: Order, trained: Trained, folder: Path) -> None:
    """The rows, and the name of the model whose matrices they follow."""
    from safetensors.torch import save_file

    named = {"format": "pt", "base_model": order.training.model.base}
    rows = {"rows": trained.input_rows}
    if trained.output_rows is not None:
        rows = {"rows.input": trained.input_rows, "rows.output": trained.output_rows}
    whole = {name: tensor.contiguous() for name, tensor in rows.items()}
    save_file(whole, folder / ROWS_FILE, metadata=named)


def copy_tokenizer(run: RunDir, folder: Path) -> None:
    """The tokenizer with the new words, and the id map, under a name that no tokenizer's own file has."""
    for path in sorted(run.vocab.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            shutil.copyfile(path, folder / (ID_MAP if path == run.id_map else path.name))


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        problem = f"has {size(free)} free, the model needs {size(needed)}"
        raise InputError(folder.parent, problem, "free some space, or choose another disk")


def _json(origin: Origin, name: str) -> dict[str, Any] | None:
    path = origin.file(name)
    if path is None:
        return None
    table: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return table


def run(options: ExportOptions) -> None:
    step = int(options.step) if options.step.isdecimal() else options.step
    print(
        export(
            RunDir(root=options.run), options.out, merge=options.merge, dtype=options.dtype, step=step,
            adapter_only=options.adapter_only, gguf=options.gguf, progress=_show,
        )
    )  # fmt: skip


def _show(done: int, whole: int) -> None:
    end = "\n" if done == whole else "\r" if sys.stderr.isatty() else ""
    if end:
        print(f"{100 * done / whole:5.1f} %  {size(done)} of {size(whole)}", end=end, file=sys.stderr, flush=True)
