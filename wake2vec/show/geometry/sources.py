"""Find the matrices of a run: its trained rows, the published rows, and where the new ones started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from wake2vec.contract.errors import InputError
from wake2vec.contract.files import read_json
from wake2vec.contract.manifest import TRAINABLE, require_step, saved_steps
from wake2vec.contract.models.weight_files import INPUT, OUTPUT, ROWS_FILE, is_called
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.tables import VocabTable
from wake2vec.show.geometry.matrix import Array, InFile, Matrix, Part, Places, chunks, matrices_in
from wake2vec.vocab.idmap import IdMap, WordIds
from wake2vec.vocab.idmap import load as load_id_map

Side = Literal["input", "output"]


@dataclass(frozen=True, kw_only=True)
class Sources:
    new: Matrix  # [n_new, d] fp32
    base: Matrix  # [first_new_id, d]
    start: Matrix | None
    no_start: str  # why there is none
    step: int
    id_map: IdMap
    token: Callable[[int], str]  # how a base token reads


def open_sources(run: RunDir, *, step: int | None = None, side: Side = "input") -> Sources:
    """The newest checkpoint unless `step` says otherwise. Raises InputError naming what is missing."""
    from wake2vec.phases.identity import trained_order

    order = trained_order(run)
    id_map = load_id_map(run.id_map)
    found, new = trained_rows(run, step, side)
    whole = published(order, side)
    if side == "output" and new == trained_rows(run, step, "input")[1]:  # one set of rows, made from the input matrix
        start, reason = _start(run, order, id_map, published(order, "input"), "input")
    else:
        start, reason = _start(run, order, id_map, whole, side)
    tokenizer = _tokenizer(str(run.vocab))
    return Sources(
        new=Part(new, len(id_map.new)),  # of the words; ids of their forms stand behind them
        base=Part(whole, id_map.first_new_id),
        start=start,
        no_start=reason,
        step=found,
        id_map=id_map,
        token=lambda id: str(tokenizer.decode([id])),
    )


def trained_rows(run: RunDir, step: int | None, side: Side) -> tuple[int, Matrix]:
    """Rows of a checkpoint, or of the final result where no checkpoint is left."""
    steps = saved_steps(run)
    if steps or step is not None:
        step = steps[0] if step is None else require_step(run, step)
        return step, _rows(run.checkpoint(step) / TRAINABLE, side)
    if (run.final / ROWS_FILE).is_file():
        result = read_json(run.result)
        return (int(result["step"]) if isinstance(result, dict) else 0), _rows(run.final / ROWS_FILE, side)
    raise InputError(run.checkpoints, "has no checkpoint yet", "wait for the first one, or restore it from the store")


def _rows(path: Path, side: Side) -> Matrix:
    found = matrices_in(path)
    for name in ("rows", f"rows.{side}"):
        if name in found:
            return found[name]
    raise InputError(path, "holds no rows of new tokens", "a P2 job keeps them still: look at its P1 job")


def published(order: Order, side: Side) -> InFile:
    """A matrix of the published model, in its file. A tied model has one matrix for both sides."""
    from wake2vec.model.published_files import PublishedFiles, origin_of

    files = PublishedFiles(origin_of(order.training.model))
    for ending in (*OUTPUT, *INPUT) if side == "output" else INPUT:
        for name in filter(lambda name: is_called(name, (ending,)), files.files):
            if (matrix := matrices_in(files.path(files.files[name])).get(name)) is not None:
                return matrix
    raise InputError(
        files.origin.path, f"no {side} matrix was found in its safetensors files", "is the model complete?"
    )


def _start(run: RunDir, order: Order, id_map: IdMap, base: InFile, side: Side) -> tuple[Matrix | None, str]:
    if order.source is not None and order.job.vocab is None:
        source = order.source.rows or order.source
        folder = run.checkpoint(source.step, source.folder)
        return Part(_rows(folder / TRAINABLE, side), len(id_map.new)), ""
    vocab = order.job.vocab
    if vocab is None:
        return None, "the job names neither a source nor a word list"
    if side == "output" and vocab.calibrate:
        return None, "output rows were shifted to their words' shares of the text before step 1 (vocab.calibrate)"
    try:
        return Initial(order=order, vocab=vocab, id_map=id_map, base=base, side=side), ""
    except (InputError, OSError) as error:
        return None, str(error)


class Initial:
    """The rows as injection made them, made again a few thousand at a time."""

    def __init__(self, *, order: Order, vocab: VocabTable, id_map: IdMap, base: InFile, side: Side) -> None:
        from wake2vec.phases.imported import taken_over
        from wake2vec.phases.inputs import input_paths, load_tokenizer

        job = order.training
        self._vocab, self._seed, self._side = vocab, job.train.seed, side
        self._method = vocab.output_init if side == "output" else vocab.init
        self._tokenizer = load_tokenizer(job.model.base, job.model)
        self._morphemes = next(iter(input_paths(order, "morphemes")), None)
        self._id_map, self._taken = id_map, taken_over(order) if side == "input" else None
        self._matrix, self._base = Part(base, id_map.first_new_id), _mapped(base)
        self.shape = (len(id_map.new), base.shape[1])

    @cached_property
    def _statistics(self) -> Any:
        """Taken once, and from plain reads: the pages of a mapping would stay in memory."""
        import torch

        from wake2vec.vocab.initial import ROWS_AT_ONCE, statistics

        return statistics(torch.from_numpy(rows) for _, rows in chunks(self._matrix, ROWS_AT_ONCE))

    def read(self, start: int, stop: int) -> Array:
        return self._of(self._id_map.new[start:stop])

    def take(self, places: Places) -> Array:
        return self._of(tuple(self._id_map.new[place] for place in places))

    def _of(self, entries: tuple[WordIds, ...]) -> Array:
        from wake2vec.vocab.initial import initial_rows

        # a row depends on its word alone, so some of the words give the same rows as all of them
        rows = initial_rows(
            replace(self._id_map, entries=entries),
            self._base,
            method=self._method,
            seed=self._seed,
            tokenizer=self._tokenizer,
            part=self._side,
            scale=self._vocab.init_scale,
            morphemes=self._morphemes,
            stats=self._statistics,
        )
        if self._taken is not None and (old := self._taken.rows()) is not None:
            for place, entry in enumerate(entries):
                if entry.row is not None and entry.row >= self._taken.first_row:
                    rows[place] = old[entry.row - self._taken.first_row]
        found: Array = rows.numpy()
        return found


def _mapped(matrix: InFile) -> Any:
    """The published matrix as a tensor that lies in its file, not in memory."""
    import torch

    kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}[matrix.dtype]
    whole = torch.from_file(str(matrix.path), shared=False, size=matrix.path.stat().st_size, dtype=torch.uint8)
    count = matrix.shape[0] * matrix.shape[1] * kind.itemsize
    flat = whole[matrix.offset : matrix.offset + count]
    # a header may leave the data at an odd place, where a wider type cannot lie
    return (flat if matrix.offset % kind.itemsize == 0 else flat.clone()).view(kind).reshape(matrix.shape)


def _tokenizer(folder: str) -> Any:
    from wake2vec.phases.inputs import load_tokenizer

    return load_tokenizer(folder, None)
