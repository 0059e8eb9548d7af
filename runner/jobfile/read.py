"""Read a job file, and find the texts and the model folder that it names."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runner.jobfile.faults import Checked, check
from runner.jobfile.hub import look_up
from runner.jobfile.hub_text import PREFIX, fetch_text
from runner.jobfile.inputs import Role, os_problem, text_input, where_to_look
from runner.jobfile.modelcheck import Seen, fit_targets, look, model_faults, notes
from runner.jobfile.modelfolder import digest_model
from runner.jobfile.overrides import Pair, lay_over
from runner.jobfile.reach import about_forms, nothing_new, places_in_pieces, with_other_apostrophe, words_not_met
from runner.jobfile.wording import PATTERNS
from wake2vec.contract.errors import Fault, InputError, SpecError
from wake2vec.contract.expectation import parse_expectation, parse_stop_rule
from wake2vec.contract.files import counted, open_regular
from wake2vec.contract.order import InputFile
from wake2vec.contract.spec import JOB_SPEC, CommandSpec, JobSpec, JobTable, TrainingSpec
from wake2vec.contract.tables import NAME_PATTERN, DataTable, EvaluateTable, LoraTable, ModelTable, TrainTable
from wake2vec.contract.words.groups import read_groups
from wake2vec.contract.words.lexicon import Lexicon, read_lexicon

ROUNDED = {
    "bf16": ["its rows are held in bf16: each step is rounded by a draw that is right on average"],
    "fp16": ["its rows are held in fp16: steps below half of its spacing vanish, and beyond 65,504 the job ends"],
}
MAX_JOB_BYTES = 1 << 20
ENOUGH_CONTROL = 30_000  # bytes
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def read_job(path: Path, pairs: Sequence[Pair] = ()) -> JobSpec:
    """The checked job in a TOML file; its name defaults to the file's. Raises SpecError with every fault.

    `pairs` stand for what the file says at their keys.
    """
    try:
        table = read_table(path)
        lay_over(table, pairs)
        _fill_in(table)
        checked = check(JobTable, table)
    except RecursionError:
        raise SpecError(str(path), [Fault(key="", problem="nested too deeply; is this a job file?")]) from None
    faults = checked.faults
    if "name" not in table:
        table["name"] = path.stem
        if not re.fullmatch(NAME_PATTERN, path.stem):
            problem = f"missing, and {path.stem!r} is none: expected {PATTERNS[NAME_PATTERN]}; set one"
            faults.append(Fault(key="name", problem=problem))
    if faults:
        raise SpecError(str(path), faults + _faults_of_inputs(checked, path))
    return JOB_SPEC.validate_python(table)


def _fill_in(table: dict[str, Any]) -> None:
    """What a new job is given and a frozen one of the first release lacks.

    The original's own stream of blocks, and where there is weight decay rows that rest until their words are met.
    """
    data, train, phase = table.get("data"), table.get("train"), table.get("phase")
    update = lora.get("update") if isinstance(lora := table.get("lora"), dict) else None
    if isinstance(data, dict) and data.get("split") == "blocks":
        data.setdefault("shuffle", "scikit-learn")
    rests = phase == "p1" or update == "seen" or (phase == "p3" and update != "all")
    if isinstance(train, dict) and rests and train.get("weight_decay"):
        train.setdefault("row_steps", "own")


def name_of(path: Path) -> str:
    """What the job in a file is called, whatever else stands there; the file's own name where it cannot be read."""
    try:
        return str(read_table(path).get("name", path.stem))
    except SpecError:
        return path.stem


def _faults_of_inputs(checked: Checked, path: Path) -> list[Fault]:
    """What is wrong with the files that a faulty job names, as far as it can be read."""
    faulty = {".".join(fault.key.split(".")[:2]) for fault in checked.faults}
    try:
        resolve_inputs(JOB_SPEC.validate_python(checked.healed), path.parent, str(path))
    except ValidationError:
        return []
    except SpecError as error:
        return [fault for fault in error.faults if not faulty & {fault.key, fault.key.split(".")[0]}]
    return []


def read_table(path: Path) -> dict[str, Any]:
    body = _read_body(path, MAX_JOB_BYTES)
    try:
        return tomllib.loads(body.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = body[: error.start].count(b"\n") + 1
        problem = f"not UTF-8: byte 0x{body[error.start]:02x} in line {line}; save the file as UTF-8"
        raise SpecError(str(path), [Fault(key="", problem=problem)]) from error
    except tomllib.TOMLDecodeError as error:
        raise SpecError(str(path), [Fault(key="", problem=f"not TOML: {error}")]) from error


def _read_body(path: Path, limit: int) -> bytes:
    try:
        if path.is_file() and path.stat().st_size > limit:
            problem = f"{path.stat().st_size} bytes; a job file has at most {limit}, is this one?"
            raise SpecError(str(path), [Fault(key="", problem=problem)])
        with open_regular(path) as file:
            return file.read()
    except OSError as error:
        named = path.with_name(f"{path.name}.toml")
        meant = f"; did you mean {named}?" if named.is_file() and not path.exists() else ""
        raise SpecError(str(path), [Fault(key="", problem=f"{os_problem(error)}{meant}")]) from error


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A job whose inputs are found; `files` says where each lies, by sha256 (a model folder stays where it is).

    `remarks` tell what was passed over in them.
    """

    job: JobSpec
    inputs: list[InputFile]
    files: dict[str, Path]
    remarks: list[str]


def resolve_inputs(job: JobSpec, base_dir: Path, place: str) -> Resolved:
    """Find and check what the job names, relative to its file's folder. Raises SpecError naming `place`."""
    faults: list[Fault] = []
    inputs: list[InputFile] = []
    files: dict[str, Path] = {}
    remarks: list[str] = []
    lexicon: Lexicon | None = None
    for key, role, name in _named_texts(job):
        try:
            path = fetch_text(name) if name.startswith(PREFIX) else (base_dir / Path(name).expanduser()).absolute()
            item = text_input(path, role)
            if role == "lexicon":
                lexicon = read_lexicon(path)
                remarks += lexicon.remarks()
            if role in ("groups", "devices"):
                read_groups(path, "morpheme" if role == "groups" else "device")
        except InputError as error:
            faults.append(Fault(key=key, problem=str(error)))
            continue
        if role in ("corpus", "control") and item.sha256 in files:
            faults.append(Fault(key=key, problem=f"{path}: the same text as {files[item.sha256]}; name it once"))
        if role == "control" and item.size < ENOUGH_CONTROL:
            remarks.append(f"{path.name}: {item.size:,} bytes of control text, few for an interval; 30 kB will do")
        inputs.append(item)
        files[item.sha256] = path
    if isinstance(job, CommandSpec):
        job = _resolve_command(job, base_dir)
    else:
        if not faults and (fault := _too_short(job.data, inputs)):
            faults.append(fault)
        if fault := _only_warm_up(job.train):
            faults.append(fault)
        remarks += _never_met(job.evaluate, job.train.steps)
        corpora = [files[item.sha256] for item in inputs if item.role == "corpus"]
        if lexicon is not None and job.vocab is not None and not faults:
            fault = words_not_met(job.vocab, job.data, lexicon.words, corpora)
            faults += [fault] if fault else []
        try:
            model, folder = _resolve_model(job.model, base_dir)
            inputs += [folder] if folder else []
            job = job.model_copy(update={"model": model})
            seen = look(Path(model.base)) if folder else look_up(model.base, model.revision)
            lora, found, said = _check_model(job, seen, is_folder=folder is not None)
            job = job if lora == job.lora else job.model_copy(update={"lora": lora})
            faults += found
            remarks += said
            if lexicon is not None and job.vocab is not None and not faults:
                listed, published = lexicon.words, seen.vocabulary if seen else {}
                fault = nothing_new(job.vocab, job.data, listed, corpora, published)
                faults += [fault] if fault else []
                remarks += places_in_pieces(job.vocab, job.data, listed, corpora, published)
                remarks += with_other_apostrophe(listed, corpora)
                remarks += about_forms(job.vocab, listed, corpora)
                remarks += ROUNDED.get(job.vocab.dtype, [])
        except InputError as error:
            faults.append(Fault(key="model.base", problem=str(error)))
    if faults:
        raise SpecError(place, faults)
    return Resolved(job=job, inputs=inputs, files=files, remarks=remarks)


def _named_texts(job: JobSpec) -> list[tuple[str, Role, str]]:
    named: list[tuple[str, Role, str]] = []
    if job.data is not None:
        named += [("data.corpus", "corpus", name) for name in job.data.corpora]
        named += [("evaluate.controls", "control", name) for name in job.evaluate.controls]
    if job.vocab is not None:
        named.append(("vocab.lexicon", "lexicon", job.vocab.lexicon))
        if job.vocab.morphemes is not None:
            named.append(("vocab.morphemes", "morphemes", job.vocab.morphemes))
    if job.morphemes is not None:
        named.append(("morphemes.groups", "groups", job.morphemes.groups))
    if job.devices is not None:
        named.append(("devices.groups", "devices", job.devices.groups))
    return named


def _too_short(data: DataTable, inputs: list[InputFile]) -> Fault | None:
    # A tokenizer gives at most a token per byte, so this text cannot fill a block whatever the model is.
    size = sum(item.size for item in inputs if item.role == "corpus")
    if size * (1 - data.held_out) < data.seq_len:
        problem = f"{size} bytes cannot fill one training block of {data.seq_len} tokens beside the held-out text"
        return Fault(key="data.corpus", problem=f"{problem}; use a longer text or a smaller data.seq_len")
    least = data.seq_len if data.split == "blocks" else 2
    if size * data.held_out < least:
        problem = f"{data.held_out:g} of {size} bytes holds no {least} tokens, so nothing could be measured"
        return Fault(key="data.held_out", problem=f"{problem}; hold out more, or use a longer text")
    return None


def _only_warm_up(train: TrainTable) -> Fault | None:
    if train.steps is None:
        return None
    is_share = train.warmup_steps is None
    warmup = math.ceil(train.warmup_ratio * train.steps) if train.warmup_steps is None else train.warmup_steps
    if warmup == 0 or warmup < train.steps:
        return None
    problem = f"{counted(warmup, 'step')} of warm-up in a job of {train.steps}: the learning rate would never arrive"
    less = "a smaller share, or 0" if is_share else "fewer"
    return Fault(key=f"train.warmup_{'ratio' if is_share else 'steps'}", problem=f"{problem}; give {less}")


def _never_met(evaluate: EvaluateTable, steps: int | None) -> list[str]:
    """Rules for a step at which nothing is measured: they would be passed over without a word."""
    if steps is None:
        return []
    named = [(f"stop_if {rule}", parse_stop_rule(rule)[1]) for rule in [evaluate.stop_if] if rule]
    named += [(f"expect {line}", parse_expectation(line).step) for line in evaluate.expect if line.startswith("val ")]
    every = evaluate.every_steps
    return [
        f"evaluate.{rule}: step {step} is not measured (each {every} steps, and at {steps}), so this comes to nothing"
        for rule, step in named
        if (step % every and step != steps) or step > steps or (step == 0 and rule.startswith("stop_if"))
    ]


def _resolve_model(model: ModelTable, base_dir: Path) -> tuple[ModelTable, InputFile | None]:
    """A model folder becomes an absolute path with its digest; a hub id stays. Raises ModelError."""
    path = (base_dir / Path(model.base).expanduser()).absolute()
    looks_local = (
        model.base.startswith(("/", "./", "../", "~", ".\\")) or (base_dir / model.base.split("/")[0]).is_dir()
    )
    if not path.is_dir():
        if HUB_ID.fullmatch(model.base) and not looks_local:
            return model, None
        remedy = where_to_look(path) or 'give a folder with config.json, or a hub id such as "Qwen/Qwen2.5-14B"'
        raise InputError(path, "no such folder", remedy)
    path = path.resolve()
    return model.model_copy(update={"base": str(path)}), digest_model(path, with_code=model.trust_remote_code)


def _check_model(
    job: TrainingSpec, seen: Seen | None, *, is_folder: bool
) -> tuple[LoraTable | None, list[Fault], list[str]]:
    """What can be told of the model unloaded: [lora] fitted to it, faults and remarks."""
    base = job.model.base
    if seen is None:
        return job.lora, [], [f"{base}: the hub cannot be reached, so the model is checked when the job starts"]
    lora, unfit = fit_targets(job.lora, seen) if job.lora else (None, [])
    # where a hub may be out of reach, what a job is must not hang on it: the trainer fits the targets itself
    return lora if is_folder else job.lora, model_faults(job, base, seen) + unfit, notes(seen)


def _resolve_command(job: CommandSpec, base_dir: Path) -> CommandSpec:
    """Words of a command that name something beside the job file become absolute: it may run from anywhere."""
    places = [base_dir / word for word in job.command]
    named = [
        str(place.absolute()) if "{" not in word and "/" in word and place.exists() else word
        for word, place in zip(job.command, places, strict=True)
    ]
    return job.model_copy(update={"command": named})
