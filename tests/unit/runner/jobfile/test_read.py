from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from runner.jobfile.faults import check
from runner.jobfile.read import read_job, resolve_inputs
from tests.machine import JOBS, job_file
from tests.unit.runner.folders import P1, P2, write_jobs, write_model
from wake2vec.contract.errors import SpecError
from wake2vec.contract.spec import JOB_SPEC, JobTable


def _write(folder: Path, text: str, name: str = "a_p1.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def _faults(path: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read_job(path)
    return [str(fault) for fault in caught.value.faults]


def test_a_job_file_becomes_a_spec_named_after_the_file(tmp_path: Path) -> None:
    write_jobs(tmp_path)

    job = read_job(tmp_path / "a_p1.toml")

    assert job.name == "a_p1"
    assert job.train is not None
    assert (job.train.steps, job.train.batch) == (60, 16)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    write_jobs(tmp_path)
    path = tmp_path / "a_p1.toml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert read_job(path).phase == "p1"


def test_every_fault_is_told_at_once_with_key_value_and_what_is_allowed(tmp_path: Path) -> None:
    text = P1.replace("lr = 1e-3", 'lr = "2e-5"\nepochs = 2').replace("every_steps", "every_stps")
    text = text.replace("seq_len = 64", "seq_len = 4").replace('base = "model"', 'base = "model"\nload = "NF4"')
    write_jobs(tmp_path)

    faults = _faults(_write(tmp_path, text + '\n[lora]\ntargets = "q_proj"\n'))

    assert faults == [
        "checkpoint.every_stps: unknown key; did you mean every_steps?",
        'model.load: expected "auto", "nf4", "int8", "fp16", "bf16" or "fp32", got the text "NF4"; did you mean "nf4"?',
        "data.seq_len: expected a whole number of at least 8, at most 131072, got 4",
        'train.lr: expected a number above 0, at most 10, got the text "2e-5"; remove the quotes',
        'lora.targets: expected a list of texts, got the text "q_proj"; put it in [ ]',
        "train: give steps or epochs, one of the two",
        "phase p1 has no lora",
    ]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("steps = 60.0", "train.steps: expected a whole number of at least 1, got 60.0; write 60"),
        ("steps = true", "train.steps: expected a whole number of at least 1, got true"),
        ("steps = 10000000000000", "train.steps: expected a number of at most 12 digits, got 1.000e+13"),
        ("steps = 2026-01-01", "train.steps: expected a whole number of at least 1, got a date"),
        ("steps = [60]", "train.steps: expected a whole number of at least 1, got a list"),
        ("steps = 60\nclip_norm = inf", "train.clip_norm: expected a finite number, got inf"),
        ("steps = 60\nweight_decay = nan", "train.weight_decay: expected a finite number, got nan"),
        ("steps = 60\nwarmup_ratio = 1", "train.warmup_ratio: expected a number of at least 0, below 1, got 1"),
        ("steps = 60\nallow_shorter_context = 'true'", 'remove the quotes'),
        ("steps = 60\ncorpus = 'x'", "train.corpus: unknown key; it belongs in [data]"),
        ("steps = 60\nphase = 'p1'", "train.phase: unknown key; it belongs above the first [table]"),
        ("steps = 60\nevery_steps = 5", "train.every_steps: unknown key; it belongs in [evaluate] or [checkpoint]"),
        ("steps = 60\nzzz = 1", "train.zzz: unknown key; allowed here: steps, epochs, batch"),
        ("steps = 60\nmicro_batch = 'autto'", 'did you mean "auto"?'),
    ],
)  # fmt: skip
def test_a_single_fault_is_said_plainly(tmp_path: Path, line: str, fault: str) -> None:
    write_jobs(tmp_path)

    faults = _faults(_write(tmp_path, P1.replace("steps = 60", line)))

    assert len(faults) == 1
    assert fault in faults[0]


def test_a_misspelt_table_is_read_as_what_was_meant(tmp_path: Path) -> None:
    write_jobs(tmp_path)

    faults = _faults(_write(tmp_path, P1.replace("[train]", "[trian]").replace("lr = 1e-3", "lr = -1")))

    assert faults == [
        "trian: unknown key; did you mean train?",
        "train.lr: expected a number above 0, at most 10, got -1",
    ]


def test_a_missing_file_is_told_together_with_a_wrong_value(tmp_path: Path) -> None:
    write_jobs(tmp_path)
    (tmp_path / "text.txt").unlink()

    faults = _faults(_write(tmp_path, P1.replace("lr = 1e-3", "lr = 0")))

    assert [fault.split(":")[0] for fault in faults] == ["train.lr", "data.corpus"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"phase = ", "not TOML: Invalid value (at end of document)"),
        (b"a = 1\nphase == 'p1'\n", "not TOML: Invalid value (at line 2, column 8)"),
        (b"# caf\xe9\nphase = 'p1'\n", "not UTF-8: byte 0xe9 in line 1; save the file as UTF-8"),
        (b"x" * (1 << 20) + b"x", "1048577 bytes; a job file has at most 1048576, is this one?"),
        (b"", 'phase: missing; expected "p1", "p2", "p3" or "command"'),
    ],
)
def test_what_is_not_a_job_file_is_refused_with_its_line(tmp_path: Path, body: bytes, said: str) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(body)

    assert _faults(path) == [said]


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    assert _faults(tmp_path) == ["is a folder, not a file"]
    assert _faults(tmp_path / "no.toml") == ["no such file"]


@pytest.mark.parametrize("name", ["../x", "/x", "", ".hidden", "a\\nb", "x" * 81, "a/b", "\\u0000"])
def test_a_name_cannot_leave_the_run_folder(tmp_path: Path, name: str) -> None:
    write_jobs(tmp_path)

    faults = _faults(_write(tmp_path, f'name = "{name}"\n' + P1))

    assert len(faults) == 1
    assert faults[0].startswith(("name: expected letters, digits", "name: holds a NUL"))


def test_a_file_whose_name_cannot_be_a_job_name_is_told_so(tmp_path: Path) -> None:
    write_jobs(tmp_path)

    (said,) = _faults(_write(tmp_path, P1, "my job.toml"))

    assert said.startswith("name: missing, and 'my job' is none: expected letters, digits")


def test_inputs_are_known_by_their_content_and_the_model_folder_by_its_digest(tmp_path: Path) -> None:
    write_jobs(tmp_path)
    job = read_job(tmp_path / "a_p1.toml")

    resolved = resolve_inputs(job, tmp_path, "a_p1.toml")

    assert [item.role for item in resolved.inputs] == ["corpus", "lexicon", "model"]
    assert resolved.job.model is not None
    assert resolved.job.model.base == str(tmp_path / "model")
    assert sorted(path.name for path in resolved.files.values()) == ["text.txt", "words.txt"]


def test_another_weight_or_tokenizer_changes_the_digest_of_the_model(tmp_path: Path) -> None:
    def digest(folder: Path) -> str:
        write_jobs(folder)
        return resolve_inputs(read_job(folder / "a_p1.toml"), folder, "").inputs[-1].sha256

    (first, second, third) = (tmp_path / name for name in "abc")
    before = digest(first)
    again = digest(second)
    (second / "model" / "tokenizer.json").write_text('{"model": {"vocab": {}}, "x": 1}')
    other_tokenizer = resolve_inputs(read_job(second / "a_p1.toml"), second, "").inputs[-1].sha256
    digest(third)
    for file in (third / "model").iterdir():
        file.unlink()
    (third / "model").rmdir()
    write_model(third / "model", weight="head")
    other_weight = resolve_inputs(read_job(third / "a_p1.toml"), third, "").inputs[-1].sha256

    assert before == again
    assert len({before, other_tokenizer, other_weight}) == 3


def test_an_id_of_the_hub_is_left_alone(tmp_path: Path) -> None:
    write_jobs(tmp_path)
    job = read_job(_write(tmp_path, P1.replace('"model"', '"Qwen/Qwen2.5-14B"')))

    resolved = resolve_inputs(job, tmp_path, "")

    assert resolved.job.model is not None
    assert resolved.job.model.base == "Qwen/Qwen2.5-14B"
    assert [item.role for item in resolved.inputs] == ["corpus", "lexicon"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "text.txt").unlink(), "data.corpus: {f}/text.txt: no such file"),
        (lambda f: (f / "text.txt").write_bytes(b""), "data.corpus: {f}/text.txt: empty"),
        (lambda f: (f / "words.txt").write_text(" \n\t\n"), "vocab.lexicon: {f}/words.txt: holds nothing but blanks"),
        (lambda f: (f / "words.txt").write_text("one\ntwo words\n"), "line 2: 'two words' has a space in it"),
        (lambda f: (f / "text.txt").write_bytes(b"a" * 1048576 + b"\xff"), "byte 0xff at offset 1048576"),
        (lambda f: (f / "text.txt").write_bytes(b"a" * 1048575 + b"\xc3\x28"), "byte 0xc3 at offset 1048575"),
        (lambda f: (f / "text.txt").write_bytes(b"a" * 1048575 + "é".encode() + b"\xff"), "0xff at offset 1048577"),
        (lambda f: (f / "text.txt").write_bytes(b"ab\xc3"), "not UTF-8: byte 0xc3 at offset 2"),
        (lambda f: (f / "text.txt").write_bytes("hello".encode("utf-16")), "(UTF-16 by the look of it)"),
        (lambda f: (f / "text.txt").write_text("short"), "5 bytes cannot fill one training block of 64 tokens"),
        (lambda f: (f / "model" / "config.json").unlink(), "model.base: {f}/model: no config.json in it"),
        (lambda f: (f / "model" / "config.json").write_text("{"), "model.base: {f}/model/config.json: not JSON"),
        (lambda f: (f / "model" / "tokenizer.json").unlink(), "model.base: {f}/model: no tokenizer in it"),
        (lambda f: (f / "model" / "model.safetensors").unlink(), "model.base: {f}/model: no weights in it"),
        (lambda f: (f / "model" / "model.safetensors").write_bytes(b"\xff" * 9), "torn: its header is not whole"),
    ],
)  # fmt: skip
def test_a_text_or_model_that_cannot_be_used_is_named(tmp_path: Path, damage, said: str) -> None:  # type: ignore[no-untyped-def]
    write_jobs(tmp_path)
    damage(tmp_path)

    with pytest.raises(SpecError, match=r"^a_p1\.toml: ") as caught:
        resolve_inputs(read_job(tmp_path / "a_p1.toml"), tmp_path, "a_p1.toml")

    assert said.format(f=tmp_path) in str(caught.value)


@pytest.mark.parametrize("base", ["./gone", "../gone", "/gone", "gone", "model/gone", "~/gone-gone"])
def test_a_model_folder_that_is_not_there_is_no_hub_id(tmp_path: Path, base: str) -> None:
    write_jobs(tmp_path)
    job = read_job(_write(tmp_path, P1.replace('"model"', f'"{base}"')))

    with pytest.raises(SpecError, match="no such folder"):
        resolve_inputs(job, tmp_path, "a_p1.toml")


def test_files_that_a_command_names_are_found_from_anywhere(tmp_path: Path) -> None:
    write_jobs(tmp_path)
    words = '["python", "./text.txt", "--model", "./model", "model", "{steps}", "gone/x"]'
    path = _write(tmp_path, f'phase = "command"\nsteps = 5\ncommand = {words}\n', "c.toml")

    resolved = resolve_inputs(read_job(path), tmp_path, "c.toml")

    there = [str(tmp_path / "text.txt"), "--model", str(tmp_path / "model"), "model", "{steps}", "gone/x"]
    assert resolved.job.command == ["python", *there]


def test_the_same_text_twice_is_refused(tmp_path: Path) -> None:
    write_jobs(tmp_path)
    (tmp_path / "copy.txt").write_bytes((tmp_path / "text.txt").read_bytes())
    job = read_job(_write(tmp_path, P1.replace('"text.txt"', '["text.txt", "copy.txt"]')))

    with pytest.raises(SpecError, match="the same text as"):
        resolve_inputs(job, tmp_path, "a_p1.toml")


def test_a_control_is_a_text_that_nobody_trains_on_and_long_enough_to_say_something(tmp_path: Path) -> None:
    write_jobs(tmp_path)
    (tmp_path / "minutes.txt").write_text("The committee met at noon. " * 2000)
    (tmp_path / "note.txt").write_text("The committee met.")
    named = "\n[evaluate]\ncontrols = {}\n"
    job = read_job(_write(tmp_path, P1 + named.format('["minutes.txt", "note.txt"]')))

    resolved = resolve_inputs(job, tmp_path, "a_p1.toml")

    assert [item.name for item in resolved.inputs if item.role == "control"] == ["minutes.txt", "note.txt"]
    (told,) = [one for one in resolved.remarks if "control" in one]
    assert told.startswith("note.txt: 18 bytes of control text")
    for again in ('["text.txt"]', '["minutes.txt", "minutes.txt"]'):
        with pytest.raises(SpecError, match=r"evaluate\.controls: .*the same text as"):
            resolve_inputs(read_job(_write(tmp_path, P1 + named.format(again))), tmp_path, "a_p1.toml")


@pytest.mark.parametrize(
    ("file", "keys", "steps"),
    [
        ("tiny_p1", {}, "job"),
        ("tiny_p1", {"train.weight_decay": 0.1}, "own"),
        ("tiny_p1", {"train.weight_decay": 0.1, "train.row_steps": "job"}, "job"),
        ("tiny_p2", {}, "job"),  # has decay, on adapters alone
        ("tiny_p2", {"lora.train": "lora+rows"}, "job"),  # every row moves from step 1
        ("tiny_p2", {"lora.train": "lora+rows", "lora.update": "seen"}, "own"),
        ("tiny_p3", {}, "own"),
        ("tiny_p3", {"lora.update": "all"}, "job"),
    ],
)
def test_weight_decay_leaves_waiting_rows_alone(file: str, keys: dict[str, object], steps: str) -> None:
    job = read_job(JOBS / f"{file}.toml", list(keys.items()))

    assert job.train is not None
    assert job.train.row_steps == steps


def test_where_a_file_is_missing_the_folder_s_readme_is_pointed_to(tmp_path: Path) -> None:
    write_jobs(tmp_path)
    (tmp_path / "text.txt").unlink()
    (tmp_path / "README.md").write_text("put your text here")

    with pytest.raises(SpecError, match=r"README.md says what belongs there"):
        resolve_inputs(read_job(tmp_path / "a_p1.toml"), tmp_path, "a_p1.toml")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
PLACES = [(table, key) for source in (P1, P2) for table, keys in tomllib.loads(source).items()
          for key in (keys if isinstance(keys, dict) else [None])]  # fmt: skip


@settings(max_examples=100, deadline=None)
@example(place=("model", "base"), value="\0", source=P1)
@given(place=st.sampled_from(PLACES), value=VALUES, source=st.sampled_from([P1, P2]))
def test_whatever_stands_in_a_job_file_is_either_accepted_or_named(  # type: ignore[no-untyped-def]
    place, value, source: str
) -> None:
    table = tomllib.loads(source)
    name, key = place
    if key is None or name not in table:
        table[name] = value
    else:
        table[name][key] = value

    faults = check(JobTable, table).faults

    try:
        JOB_SPEC.validate_python(table)
        accepted = True
    except ValidationError:
        accepted = False
    assert accepted or faults
    if faults and accepted:  # stricter than the schema only where no number is one, and no text
        known = ("finite", "12 digits", "NUL character")
        assert all(any(one in fault.problem for one in known) for fault in faults)


@pytest.mark.parametrize(("dtype", "says"), [("fp32", 0), ("bf16", 1), ("fp16", 1)])
def test_rows_that_are_rounded_are_remarked_on(tmp_path, dtype, says):
    path = job_file(tmp_path, "rows", of="tiny_p1", vocab__dtype=dtype)

    remarks = resolve_inputs(read_job(path), JOBS, str(path)).remarks

    assert sum(f"its rows are held in {dtype}: " in one for one in remarks) == says
