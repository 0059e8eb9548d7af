"""A word list that says nothing about the text is refused before anything is spent, with what it seems to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.jobfile.read import read_job, resolve_inputs
from tests.unit.runner.folders import write_jobs
from wake2vec.contract.errors import SpecError

TEXT = "Riverrun, past Eve and Adam’s, from swerve of shore; the bisexcycle—mememormee! " * 100


def fault(tmp_path: Path, words: str, *, text: str = TEXT, old: str = "", new: str = "") -> str:
    folder = write_jobs(tmp_path / "jobs") if (tmp_path / "jobs").mkdir() is None else tmp_path
    (folder / "words.txt").write_text(words)
    (folder / "text.txt").write_text(text)
    file = folder / "a_p1.toml"
    file.write_text(file.read_text().replace(old, new))
    try:
        resolve_inputs(read_job(file), folder, str(file))
    except SpecError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("zzqx\nqqvv\nxxyy\n", "0 of 3 words (zzqx, qqvv, xxyy) stand in the text"),
        ("shore,3\nswerve,2\npast,1\n", "cut -d',' -f1"),
        ("shore;3\nswerve;2\n", "semicolons"),
        ('["shore",\n"swerve"]\n', "JSON"),
        ("'shore',\n'swerve',\n", "list of a program"),
        ("-shore\n-swerve\n", "marks of a list"),
        ("SHORE\nSWERVE\n", "2 of them stand there in other capitals"),
        ("берег\nповорот\n", "Cyrillic, the text is Latin"),
        ("hor\nwer\n", "word list of another text"),
        ("Adam's\n", "if the list had the other apostrophe (Adam’s for Adam's); write it as the text does"),
    ],
)
def test_a_list_that_fits_nothing_is_refused_with_the_count_and_what_it_seems(
    tmp_path: Path, words: str, said: str
) -> None:
    told = fault(tmp_path, words)

    assert said in told
    assert "vocab.lexicon: 0 of" in told


@pytest.mark.parametrize(
    ("words", "old", "new"),
    [
        ("zzqx\nshore\n", "", ""),
        ("Adam’s\n", "", ""),
        ("mememormee!\n", "", ""),
        ("riverrun\n", '"words.txt"', '"words.txt"\ncase = "also-capitalised"'),
        ("hor\n", '"words.txt"', '"words.txt"\nmatch = "anywhere"'),
        ("zzqx\n", "seq_len = 64", "seq_len = 64\nlexicon_in_corpus = true"),
    ],
)
def test_one_word_that_stands_in_the_text_is_enough(tmp_path: Path, words: str, old: str, new: str) -> None:
    assert fault(tmp_path, words, old=old, new=new) == ""


def test_where_no_spaces_part_words_it_is_told_what_finds_them(tmp_path: Path) -> None:
    told = fault(tmp_path, "森の\n鹿\n水\n", text="深い森の鹿たちが見える。" * 100)

    assert "0 of 3 words" in told
    assert '2 of them stand there inside longer runs of letters: where no spaces part words, match = "anywhere"' in told


def test_a_word_is_found_across_pieces_of_a_long_text_and_in_either_normal_form(tmp_path: Path) -> None:
    assert fault(tmp_path, "caf\u00e9\n", text="x" * (1 << 20) + " cafe\u0301 " + "y " * 99) == ""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps = 60", "steps = 60\nwarmup_steps = 60", "train.warmup_steps: 60 steps of warm-up in a job of 60"),
        ("steps = 60", "steps = 60\nwarmup_steps = 99", "train.warmup_steps: 99 steps"),
        ("steps = 60", "steps = 1\nwarmup_ratio = 0.05", "train.warmup_ratio: 1 step of warm-up in a job of 1"),
        ("steps = 60", "steps = 60\nwarmup_ratio = 0.999", "train.warmup_ratio: 60 steps"),
        ("seq_len = 64", "seq_len = 64\nheld_out = 0.0001", "data.held_out: 0.0001 of"),
        ("seq_len = 64", 'seq_len = 2048\nsplit = "blocks"', "data.held_out: 0.1 of"),
        ("seq_len = 64", "seq_len = 9000", "data.corpus"),
    ],
)
def test_what_can_never_train_or_be_measured_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert said in fault(tmp_path, "shore\n", old=old, new=new)


def remarks(tmp_path: Path, text: str, *changes: tuple[str, str]) -> list[str]:
    (tmp_path / "jobs").mkdir()
    folder = write_jobs(tmp_path / "jobs")
    (folder / "words.txt").write_text("swerve\nshore\n")
    (folder / "text.txt").write_text(text * 100)
    file = folder / "a_p1.toml"
    for old, new in changes:
        file.write_text(file.read_text().replace(old, f"{old}\n{new}"))
    return [one for one in resolve_inputs(read_job(file), folder, str(file)).remarks if "places" in one]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('stop_if = "val > 5.4 at 25"', "evaluate.stop_if val > 5.4 at 25: step 25 is not measured"),
        ('stop_if = "val > 5.4 at 80"', "step 80 is not measured (each 20 steps, and at 60)"),
        ('stop_if = "val > 5.4 at 0"', "step 0 is not measured"),
        (
            'expect = ["val = 5 at 7 within 1", "loss = 5 at 7 within 1"]',
            "evaluate.expect val = 5 at 7 within 1: step 7",
        ),
        ('stop_if = "val > 5.4 at 40"', ""),
        ('stop_if = "val > 5.4 at 60"', ""),
        ('expect = ["val = 5 at 0 within 1"]', ""),
    ],
)
def test_a_rule_for_a_step_at_which_nothing_is_measured_is_told(tmp_path: Path, rule: str, said: str) -> None:
    (tmp_path / "jobs").mkdir()
    folder = write_jobs(tmp_path / "jobs")
    file = folder / "a_p1.toml"
    file.write_text(f"{file.read_text()}\n[evaluate]\nevery_steps = 20\n{rule}\n")

    told = [one for one in resolve_inputs(read_job(file), folder, str(file)).remarks if one.startswith("evaluate.")]

    assert len(told) == bool(said)
    assert said in "".join(told)


def test_places_that_are_read_in_pieces_are_told_with_what_helps(tmp_path: Path) -> None:
    (told,) = remarks(tmp_path, "a swerve of shore\nshore, Shore\n\n")

    assert "200 of 400 places of its words are read in pieces and teach nothing" in told
    assert "(bare 100, spaced capitalised 100)" in told
    assert told.endswith('vocab.forms = "shared" gives these an id, data.line_breaks = "join" joins lines of print')


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("a swerve of shore " * 60 + "\n\nShore ", ("", "")),
        ("a swerve of shore\nshore\n\n", ("seq_len = 64", 'line_breaks = "join"')),
        ("a swerve of shore\n\nshore, Shore SHORE\n\n", ('"words.txt"', 'forms = "shared"')),
    ],
)
def test_few_of_them_and_those_that_the_job_meets_are_no_remark(
    tmp_path: Path, text: str, change: tuple[str, str]
) -> None:
    assert remarks(tmp_path, text, *([change] if change[0] else [])) == []


@pytest.mark.parametrize(
    ("words", "forms", "said"),
    [
        ("swerve\nshore\n", "one", []),
        ("swerve\nshore\n", "shared", ["its 2 words get up to 4 ids with their forms, and 2 rows to train"]),
        ("swerve\nshore\n", "separate", ["its 2 words get up to 4 ids with their forms, and 4 rows to train"]),
        (
            "shore\nShore\nswerve\n",
            "shared",
            [
                "its 3 words get up to 4 ids with their forms, and 3 rows to train",
                "1 of its words are listed in other capitals too: each spelling is a word of its own",
            ],
        ),
        (
            "নদী\nshore\n",
            "shared",
            [
                "its 2 words get up to 5 ids with their forms, and 2 rows to train",
                "1 of its words are in a script without capitals: they have no form but the bare one",
            ],
        ),
    ],
)
def test_what_forms_come_to_is_told_before_a_job_is_queued(
    tmp_path: Path, words: str, forms: str, said: list[str]
) -> None:
    folder = write_jobs(tmp_path)
    (folder / "words.txt").write_text(words)
    (folder / "text.txt").write_text("a swerve of shore\n\nshore, Shore নদী (নদী)\n\n" * 100)
    file = folder / "a_p1.toml"
    file.write_text(file.read_text().replace('"words.txt"', f'"words.txt"\nforms = "{forms}"'))

    found = resolve_inputs(read_job(file), folder, str(file)).remarks

    assert [one for one in found if "places" not in one] == said


def known_already(tmp_path: Path, words: str, *tokens: str, case: str = "as-is") -> str:
    """What enqueue says where the model's tokenizer has these tokens."""
    (tmp_path / "jobs").mkdir()
    folder = write_jobs(tmp_path / "jobs")
    vocab = {"model": {"vocab": {token: number for number, token in enumerate(tokens)}}}
    (folder / "model" / "tokenizer.json").write_text(json.dumps(vocab))
    (folder / "words.txt").write_text(words)
    (folder / "text.txt").write_text(TEXT)
    file = folder / "a_p1.toml"
    file.write_text(file.read_text().replace('"words.txt"', f'"words.txt"\ncase = "{case}"'))
    try:
        resolve_inputs(read_job(file), folder, str(file))
    except SpecError as error:
        return str(error)
    return ""


def test_a_list_of_which_the_model_knows_every_word_is_refused(tmp_path: Path) -> None:
    told = known_already(tmp_path, "shore\nswerve\n", "shore", "swerve")

    assert "vocab.lexicon: the model has a token for each of its 2 words already (shore, swerve)" in told
    assert told.endswith("list words that are new to it")


def test_a_known_word_whose_capitalised_spelling_is_new_is_enough(tmp_path: Path) -> None:
    assert known_already(tmp_path, "shore\nriverrun\n", "shore", "riverrun", case="also-capitalised") == ""


def test_new_words_that_do_not_stand_in_the_text_are_refused_beside_known_ones_that_do(tmp_path: Path) -> None:
    told = known_already(tmp_path, "shore\nzzqx\n", "shore")

    assert "0 of 1 words that are new to the model (zzqx) stand in the text" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("mole's\nshore\n", ["2 places of the text would be met if the list had the other apostrophe"]),
        ("mole's\nmole’s\nshore\n", []),
        ("moles\nshore\n", []),
    ],
)
def test_places_with_the_other_apostrophe_are_told(tmp_path: Path, words: str, said: list[str]) -> None:
    (tmp_path / "jobs").mkdir()
    folder = write_jobs(tmp_path / "jobs")
    (folder / "words.txt").write_text(words)
    (folder / "text.txt").write_text("a shore, the mole’s and a mole’s, a mole's moles " + "the shore " * 60)
    file = folder / "a_p1.toml"
    told = [one for one in resolve_inputs(read_job(file), folder, str(file)).remarks if "apostrophe" in one]

    assert [one.partition(" (")[0] for one in told] == said
