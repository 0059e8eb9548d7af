"""A P3 at enqueue: what its groups and its P2 allow, each refusal with its numbers."""

from __future__ import annotations

import json

import pytest

from runner.commands.enqueue import Asked, run
from runner.jobfile.read import read_job, resolve_inputs
from runner.queue import jobs
from runner.queue.database import open_queue
from runner.settings import read_settings
from tests.machine import JOBS, job_file
from wake2vec.contract.errors import SpecError
from wake2vec.contract.order import InputFile


@pytest.fixture
def settings(tmp_path):
    return read_settings(tmp_path / "home", None, {})


@pytest.fixture
def queue_p3(settings, tmp_path, capsys):
    """Queue the three tiny jobs, P3 and P2 with changes; what was said."""

    def queue(p2=None, **changes):
        files = [
            job_file(tmp_path, "p1", of="tiny_p1"),
            job_file(tmp_path, "p2", of="tiny_p2", after="p1", **(p2 or {})),
            job_file(tmp_path, "p3", of="tiny_p3", after="p2", **changes),
        ]
        run(settings, files, Asked(), as_json=False)
        return capsys.readouterr().out

    return queue


def groups(folder, *lines):
    path = folder / "groups.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return str(path)


def test_the_counts_and_the_power_that_is_left_are_told(queue_p3):
    said = queue_p3()

    assert "33 of 40 pairs may train, in 5 groups" in said
    assert "7 pairs left out, the base is no word of the list or the text (line 2: bothered, bother" in said
    assert "33 pairs, fewer than 200; about 8 would be held out" in said
    assert "46 device words, in 3 devices" in said


def test_the_adapter_of_the_p2_is_written_into_the_job(queue_p3, settings):
    queue_p3(p2={"lora__r": 2, "lora__alpha": 6, "lora__dropout": 0.25})
    queue = open_queue(settings.database)
    try:
        lora = jobs.get_job(queue, "p3").spec.lora
    finally:
        queue.close()

    assert (lora.r, lora.alpha, lora.dropout, lora.train) == (2, 6, 0.25, "lora+rows")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora__r": 16}, "lora.r: 16, but the adapter of p2 has 4; leave it out"),
        ({"data__seed": 7}, "data: held_out = 0.1, seed = 7"),
        ({"data__split": "blocks"}, "so it would be measured on text that was trained on"),
        ({"data__held_out": 0.2}, "holds out another part of the text than p2"),
        ({"lora__train": "lora"}, 'lora.train: expected'),
        ({"morphemes__groups": None}, "morphemes.groups: missing"),
        ({"morphemes__min_pairs": 30}, "in no group 30 of them; are these the groups of another word list?"),
        ({"morphemes__loss": "mse"}, 'morphemes.loss: expected "cosine", "offset" or "contrast", got'),
        ({"p2": {"lora__train": "all"}}, "p2 trained every weight"),
    ],
)  # fmt: skip
def test_what_would_leak_or_does_not_fit_is_refused_with_its_numbers(queue_p3, changes, said):
    with pytest.raises(SpecError) as told:
        queue_p3(**changes)

    assert said in str(told.value)


def test_blocks_of_another_length_leak_where_blocks_are_split(queue_p3):
    with pytest.raises(SpecError, match="seq_len = 32, 1 text holds out another part"):
        queue_p3(p2={"data__split": "blocks"}, data__split="blocks", data__seq_len=32)


def test_groups_of_another_word_list_and_faulty_ones_are_told(queue_p3, tmp_path):
    line = {"morpheme": "-ing", "examples": ["running", "singing"], "bases": ["run", "sing"]}
    with pytest.raises(SpecError, match=r"of 2 pairs in 1 group 0 have a word of the 125 that train"):
        queue_p3(morphemes__groups=groups(tmp_path, line))
    with pytest.raises(SpecError, match=r"morphemes.groups: .*line 1: '-ing' has 2 examples but 1 bases"):
        queue_p3(morphemes__groups=groups(tmp_path, {**line, "bases": ["run"]}))


def test_one_device_alone_is_refused(queue_p3, tmp_path):
    with pytest.raises(SpecError, match=r"devices.groups: 2 of its words train, in 1 device; two are needed"):
        queue_p3(devices__groups=groups(tmp_path, {"device": "name", "examples": ["Joe", "Alf", "Nobody"]}))


def test_p3_cannot_build_on_p1(settings, tmp_path):
    files = [job_file(tmp_path, "p1", of="tiny_p1"), job_file(tmp_path, "p3", of="tiny_p3", after="p1")]

    with pytest.raises(SpecError, match="p1 is a p1 job; P3 builds on the adapter of a p2 job"):
        run(settings, files, Asked(), as_json=False)


def test_a_p3_on_an_imported_p2_takes_its_words_and_rows_along(settings, tmp_path, capsys, queue_p3):
    with pytest.raises(SpecError, match=r"vocab: its words are those of p2; leave it out"):
        queue_p3(vocab__lexicon="tiny/lexicon.txt")
    capsys.readouterr()
    p2 = job_file(tmp_path, "q2", of="tiny_p2", after=None, vocab__lexicon="tiny/lexicon.txt")
    spec = read_job(p2)
    found = resolve_inputs(spec, p2.parent, str(p2))
    start = InputFile(role="start", name="start.safetensors", sha256="f" * 64, size=1)
    settings.inputs.mkdir(parents=True, exist_ok=True)
    for sha256, path in found.files.items():
        if path.is_file():
            (settings.inputs / sha256).write_bytes(path.read_bytes())
    (settings.inputs / start.sha256).write_bytes(b"x")
    queue = open_queue(settings.database)
    jobs.add_jobs(queue, [(found.job, [*found.inputs, start], "f")], 1.0)

    run(settings, [job_file(tmp_path, "q3", of="tiny_p3", after="q2")], Asked(), as_json=False)

    queued = jobs.get_job(queue, "q3")
    queue.close()
    assert {item.role for item in queued.inputs} >= {"start", "lexicon", "groups"}
    assert queued.spec.vocab == found.job.vocab


def test_the_tiny_p3_needs_nothing_but_its_folder():
    assert (JOBS / "tiny" / "morphemes.jsonl").is_file()
