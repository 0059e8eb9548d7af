"""What a job is made from, before any model is loaded: tokenizer, id map, training blocks, held-out windows."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wake2vec.contract.errors import InputError, ModelChanged, ModelError, NothingTrains, first_line
from wake2vec.contract.files import digest_file, read_json, whole_folder, write_json
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.spec import TrainingSpec
from wake2vec.contract.tables import ModelTable, VocabTable
from wake2vec.contract.words.forms import Form
from wake2vec.contract.words.lexicon import read_lexicon
from wake2vec.data.blocks import Blocks, Windows
from wake2vec.data.control import english, english_text
from wake2vec.data.corpus import Corpus, open_corpus
from wake2vec.data.dataset import prepare
from wake2vec.data.lines import Print, as_printed, stretches
from wake2vec.data.seen_words import SeenWords
from wake2vec.data.tokens import fingerprint
from wake2vec.model.layers.stage import Stage
from wake2vec.model.published_files import Origin, origin_of
from wake2vec.phases.identity import PUT_BACK, Digests, Identity, digests_of, identify_beside
from wake2vec.vocab import idmap
from wake2vec.vocab.idmap import IdMap
from wake2vec.vocab.inject import inject
from wake2vec.vocab.occurrences import count, forms_in

COUNTED = 64 << 20  # characters of a text in which words are counted

GettingOn = Callable[[str, float], None]  # something that takes long, and the share of it that is done


def unheard(what: str, share: float) -> None:
    """For whom nobody waits."""


@dataclass(frozen=True, kw_only=True)
class JobInputs:
    run: RunDir
    order: Order
    tokenizer: Any
    base_tokenizer: Any
    id_map: IdMap
    vocab_sha256: str  # of the id map's file: a job never goes on under another one
    identity: Future[Identity]  # of the published model, which is hashed while it is loaded
    blocks: Blocks
    windows: Windows
    english: Windows  # the control text as this job's tokenizer cuts it
    english_base: Windows  # and as the published one does
    places: dict[str, Any]  # where new words stand in the text: `Occurrences.as_json`
    steps: int  # in all
    first_total: int  # before any extension
    getting_on: GettingOn
    stage: Stage | None = None  # where layers are dealt out to several cards: those of this one

    @property
    def job(self) -> TrainingSpec:
        return self.order.training


def input_paths(order: Order, role: str) -> list[Path]:
    """Where the frozen inputs of a role lie; raises InputError when one has gone."""
    paths = [Path(order.inputs_folder) / item.sha256 for item in order.inputs if item.role == role]
    for path in paths:
        if not path.is_file():
            raise InputError(path, f"the frozen {role} of this job is gone", "enqueue the job again")
    return paths


def read_inputs(
    run: RunDir,
    order: Order,
    say: Callable[[str], None],
    getting_on: GettingOn = unheard,
    identify: Callable[[Origin, Any, Digests], Future[Identity]] = identify_beside,
) -> JobInputs:
    """Everything cheap and likely to be wrong comes first, so that a bad input ends the attempt in seconds."""
    job = order.training
    say("reading the tokenizer")
    base_tokenizer = load_tokenizer(job.model.base, job.model)
    tokenizer, id_map = vocabulary(run, order, base_tokenizer, say)
    require_same_tokenizer(job.model.base, base_tokenizer, id_map)
    say("tokenising the text")
    lexicon = input_paths(order, "lexicon")
    words = read_lexicon(lexicon[0]).words if lexicon and job.data.lexicon_in_corpus else ()
    corpus = open_corpus(input_paths(order, "corpus"), lexicon=words)
    data = prepare(
        corpus,
        tokenizer,
        seq_len=job.data.seq_len,
        fraction=job.data.held_out,
        seed=job.data.seed,
        split=job.data.split,
        shuffle=job.data.shuffle,
        line_breaks=job.data.line_breaks,
        hyphens=job.data.hyphens,
        cache_dir=Path(order.inputs_folder).with_name("tokens"),
        progress=lambda share: getting_on("tokenising the text", share),
    )
    if data.lines is not None:
        say(data.lines.told())
    steps = total_steps(job, len(data.blocks))
    if job.phase == "p1":
        met = SeenWords(
            data.blocks,
            batch=job.train.batch,
            seed=job.data.seed,
            first_new_id=id_map.first_new_id,
            n_new=len(id_map.new),
            row_of=id_map.word_of,
        )
        require_met(met, steps, lexicon[0], id_map)
    return JobInputs(
        run=run,
        order=order,
        tokenizer=tokenizer,
        base_tokenizer=base_tokenizer,
        id_map=id_map,
        vocab_sha256=digest_file(run.id_map).sha256,
        identity=identify(origin_of(job.model), base_tokenizer, digests_of(order)),
        blocks=data.blocks,
        windows=data.held_out,
        english=english(tokenizer, job.data.seq_len),
        english_base=english(base_tokenizer, job.data.seq_len),
        places=places_of(run, corpus, data.lines, tokenizer, id_map),
        steps=steps,
        first_total=first_total(job, len(data.blocks)),
        getting_on=getting_on,
    )


def places_of(run: RunDir, corpus: Corpus, lines: Print | None, tokenizer: Any, id_map: IdMap) -> dict[str, Any]:
    """Where new words stand in the text, or in its first part; counted once and kept beside the evaluations."""
    path = run.evaluation / "occurrences.json"
    found = read_json(path)
    if not isinstance(found, dict):
        found = count(stretches(corpus, lines, COUNTED), tokenizer, id_map).as_json()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found, durable=False)
    return found


def require_same_tokenizer(base: str, tokenizer: Any, id_map: IdMap) -> None:
    """The vocabulary is older than the first checkpoint. Raises ModelChanged where another tokenizer lies there now."""
    if (now := fingerprint(tokenizer)) != id_map.base_fingerprint:
        was = id_map.base_fingerprint
        problem = f"its tokenizer is not the one that this job's vocabulary was made from: {was[:12]}, now {now[:12]}"
        raise ModelChanged(f"model.base = {base}", problem, PUT_BACK)


def require_met(met: SeenWords, steps: int, lexicon: Path, id_map: IdMap) -> None:
    """Raises NothingTrains where no step of the job meets a new word, so that nothing could ever move."""
    if met.first(steps) is None:
        raise NothingTrains(
            f"{lexicon}: none of its {len(id_map.new):,} new words stands in what the {steps:,} steps read"
        )


def total_steps(job: TrainingSpec, n_blocks: int) -> int:
    """Steps of the whole job, with those that `extend` added."""
    return job.train.extended[-1].steps if job.train.extended else first_total(job, n_blocks)


def first_total(job: TrainingSpec, n_blocks: int) -> int:
    """Steps that the job was enqueued with; `epochs` become the steps that pass over the blocks so often."""
    passes = job.train.epochs or 0.0
    return job.train.steps or max(1, -int(-passes * n_blocks // job.train.batch))


def load_tokenizer(place: str, model: ModelTable | None) -> Any:
    """A fast tokenizer. Raises ModelError when there is none, or it cannot be read."""
    from transformers import AutoTokenizer

    options = {} if model is None else {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
    except Exception as error:  # the library raises plain ones for a torn file
        problem = f"its tokenizer cannot be loaded: {first_line(error)}"
        raise ModelError(place, problem, "check model.base and the network") from error
    if not tokenizer.is_fast:
        raise ModelError(place, "its tokenizer has no fast version", "use a model that ships a tokenizer.json")
    return tokenizer


def vocabulary(run: RunDir, order: Order, base_tokenizer: Any, say: Callable[[str], None]) -> tuple[Any, IdMap]:
    """The job's tokenizer and id map, out of its vocab folder, which is made where it is missing or damaged.

    Made anew it has the same bytes, or the checkpoints, which know its hash, refuse it. Raises InputError.
    """
    for again in (False, True):
        if order.job.vocab is not None:
            write_vocabulary(run, order, order.job.vocab, base_tokenizer)
        else:
            copy_vocabulary(run, order)
        try:
            tokenizer, id_map = load_tokenizer(str(run.vocab), None), idmap.load(run.id_map)
            id_map.check(tokenizer, run.vocab)
            return tokenizer, id_map
        except InputError as error:
            if again:
                raise
            say(f"{error}; the folder is made again")
            shutil.rmtree(run.vocab)
    raise AssertionError("a second failure is raised")


def write_vocabulary(run: RunDir, order: Order, vocab: VocabTable, base_tokenizer: Any) -> None:
    """Inject the lexicon once; a folder that is there already is complete, since it is renamed into place."""
    if run.id_map.is_file():
        return
    (lexicon,) = input_paths(order, "lexicon")
    words = read_lexicon(lexicon).words
    forms = frozenset() if vocab.forms == "one" else needed_forms(order, words)
    with whole_folder(run.vocab) as folder:
        injection = inject(
            base_tokenizer,
            words,
            directory=folder,
            match=vocab.match,
            case=vocab.case,
            forms=forms,
            shared=vocab.forms == "shared",
        )
        injection.id_map.save(folder / run.id_map.name)


def needed_forms(order: Order, words: Sequence[str]) -> frozenset[tuple[str, Form]]:
    """The forms of the words that stand in the job's text, held out or not, or in the English control."""
    data = order.training.data
    corpus = open_corpus(input_paths(order, "corpus"))
    lines = as_printed(corpus, data.line_breaks, data.hyphens)
    return forms_in((*stretches(corpus, lines, COUNTED), english_text()), words)


def copy_vocabulary(run: RunDir, order: Order) -> None:
    """P2 speaks the vocabulary of its source, read from what the source wrote and never made anew."""
    if run.id_map.is_file():
        return
    assert order.source, "called for P2"
    origin = run.root / order.source.folder / "vocab"
    if not (origin / run.id_map.name).is_file():
        raise InputError(origin, f"the vocabulary of {order.source.job} is missing", "run that job to its end first")
    with whole_folder(run.vocab) as folder:
        shutil.copytree(origin, folder, dirs_exist_ok=True)
