"""Turn an old run into the start of a job, whose order is the one that `import` is about to queue."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from wake2vec.contract.errors import InputError
from wake2vec.contract.options import TakeoverOptions
from wake2vec.contract.order import Order
from wake2vec.contract.spec import P2Spec, P3Spec, TrainingSpec
from wake2vec.contract.tables import ModelTable, VocabTable
from wake2vec.contract.words.lexicon import read_lexicon
from wake2vec.model.bare import empty_model, read_config
from wake2vec.model.device import quiet_libraries
from wake2vec.model.precision import DTYPES, HeldRows, Precision
from wake2vec.model.published_files import origin_of
from wake2vec.phases.imported import write_taken
from wake2vec.phases.inputs import input_paths, load_tokenizer
from wake2vec.takeover.find import OldRows, OldRun, find
from wake2vec.takeover.fit import Base, FittedRows, fit_adapter, fit_rows, fit_words
from wake2vec.vocab.idmap import IdMap
from wake2vec.vocab.inject import inject


def run(options: TakeoverOptions) -> None:
    quiet_libraries()
    order = Order.model_validate_json(options.order.read_text(encoding="utf-8"))
    take_over(order, find(options.old), options.out)


def take_over(order: Order, old: OldRun, out: Path) -> None:
    """Check everything, then write what the job begins with. Raises InputError and ModelError."""
    job = order.training
    if job.vocab is not None and job.vocab.forms != "one":
        problem = f'forms = "{job.vocab.forms}", but an old run has one id for each word'
        raise InputError("vocab.forms", problem, 'use forms = "one"')
    model, base = outline(job.model)
    told = [f"taken over at step {old.step} of the old run"] if old.step is not None else []
    fitted, adapter = None, {}
    if old.rows is not None and job.vocab is not None:
        id_map = id_map_of(order, job.model, job.vocab)
        if old.words is not None:
            fit_words(old.words, id_map)
        fitted = fit_rows(old.rows, id_map, base)
        if job.vocab.dtype != "fp32":
            taken = nn.Parameter(fitted.rows.float(), requires_grad=False)
            HeldRows.of(taken, DTYPES[job.vocab.dtype], name="rows", seed=0)  # raises where they do not fit
        told += tell_rows(old, old.rows, fitted, id_map, job.vocab)
        if job.phase == "p1" and not base.tied and job.vocab.rows != "shared":
            told.append(
                "lacking: output rows. The old run had put its input matrix in the place of the published output "
                f"matrix; this job keeps that, and its new output rows begin as {job.vocab.output_init}"
            )
    if isinstance(job, P3Spec):
        told += tell_structure(job, old)
    if isinstance(job, P2Spec | P3Spec):
        if job.vocab is not None and fitted is None:
            raise InputError("import", "no rows among what you named", "name embeddings.pt or sentry_step_NNNN.pt too")
        if old.adapter is not None:
            adapter = fit_adapter(old.adapter, job.lora, model)
        told += tell_adapter(job, old, base)
    elif old.adapter is not None and not old.adapter.is_idle:
        told.append(f"left out: the LoRA of {old.adapter.path.parent.name}, since P1 trains rows alone")
    if fitted is None and not adapter:
        where = "its rows come from another job" if job.after else "a P1 job begins with rows"
        raise InputError("import", f"nothing for {job.name} to begin with: {where}", "name what it lacks")
    told.append(tell_held_out(job))
    told.append("lacking: optimizer state, order of the data and random state; all three begin anew")
    first_row = 0 if fitted is None else fitted.first_row
    write_taken(out, rows=None if fitted is None else fitted.rows, first_row=first_row, adapter=adapter, told=told)


def outline(table: ModelTable) -> tuple[nn.Module, Base]:
    """The published model without its weights."""
    config = read_config(origin_of(table))
    model: Any = empty_model(config, Precision(load="fp32", compute="fp32"), trust_remote_code=table.trust_remote_code)
    rows, width = model.get_input_embeddings().weight.shape
    tied = bool(getattr(config, "tie_word_embeddings", False))
    return model, Base(name=Path(table.base).name, matrix_rows=rows, width=width, tied=tied)


def id_map_of(order: Order, table: ModelTable, vocab: VocabTable) -> IdMap:
    """The ids that this job will give its words; the tokenizer itself is made when it starts."""
    (lexicon,) = input_paths(order, "lexicon")
    tokenizer = load_tokenizer(table.base, table)
    words = read_lexicon(lexicon).words
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return inject(tokenizer, words, directory=Path(folder) / "vocab", match=vocab.match, case=vocab.case).id_map


def tell_rows(old: OldRun, rows: OldRows, fitted: FittedRows, id_map: IdMap, vocab: VocabTable) -> list[str]:
    """What was taken of the rows, and what is not as it was."""
    kind = str(fitted.rows.dtype).removeprefix("torch.")
    told = [f"taken: the rows of {len(fitted.rows):,} words from {rows.path.name} ({rows.key}, {kind})"]
    if fitted.first_row:
        first = ", ".join(id_map.words[: min(3, fitted.first_row)])
        told.append(
            f"lacking: {fitted.first_row:,} words in the padding of the published matrix ({first}, …), which the old "
            f"run never trained; they begin as init = {vocab.init}"
        )
    if fitted.rows.element_size() == 2:
        told.append(f"lacking: what rounding to {kind} took from the rows")
    if old.words is None:
        told.append("not checked: no tokenizer came with the rows, so they are taken in the order of the word list")
    if vocab.match != "anywhere":
        told.append('changed: words match as wholes; match = "anywhere" cuts text as the old run did')
    return told


def tell_held_out(job: TrainingSpec) -> str:
    """Whether what this job measures on may be what the old run was trained on."""
    data = job.data
    if data.split == "blocks" and data.shuffle == "scikit-learn":
        return (
            f"held out: the blocks that train_test_split(test_size={data.held_out:g}, random_state={data.seed}) holds "
            f"out, where the old run read the same text in blocks of {data.seq_len}"
        )
    return (
        "seen: held-out text may be what the old run was trained on, so its loss says little; "
        'split = "blocks" with that run\'s seq_len and lexicon_in_corpus holds out what it held out'
    )


def tell_structure(job: P3Spec, old: OldRun) -> list[str]:
    """What a P3 lacks. Raises InputError where its own rows or its adapter are missing: both were in training."""
    if job.after is not None:
        problem = "the rows of a P3 went on training, so they cannot come from another job"
        raise InputError(
            "import", problem, f"in the job file, give the [vocab] of that run instead of after = {job.after}"
        )
    if old.adapter is None:
        raise InputError("import", "no adapter among what you named", "name the folder with adapter_config.json too")
    return [
        "lacking: the rows that the old run began with; anchor, gains and movement count from the rows it left",
        "changed: pairs are held out by the text of the base; the old run may have trained on some of them",
    ]


def tell_adapter(job: P2Spec | P3Spec, old: OldRun, base: Base) -> list[str]:
    told = []
    if old.adapter is not None:
        told.append(f"taken: a LoRA of rank {job.lora.r} from {old.adapter.path.parent.name}")
    if old.rows is not None and job.after is not None:
        told.append(f"left out: the rows of {old.rows.path.name}; the rows come from {job.after}")
    if old.adapter is not None and not base.tied:
        told.append(
            "changed: the adapter was trained under an output matrix that the input matrix had replaced; this job has "
            "the published one, so that its first loss is not the old run's last"
        )
    return told
