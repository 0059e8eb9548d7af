"""A blind test: a sheet that gives nothing away, a key apart, and a score with its chance."""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from tests.tiny import WHOLE, loop_for, material_for, order_for
from tests.unit.wake2vec.train.test_attempt import nothing
from wake2vec.contract.errors import InputError
from wake2vec.contract.files import read_json, write_json
from wake2vec.contract.options import BlindOptions
from wake2vec.contract.rundir import RunDir
from wake2vec.hopes.blind import KEY, KINDS, SHEET, _from_a_word, run, score
from wake2vec.use.__main__ import use


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("a blind test")
    order = order_for(folder, train__steps=2, checkpoint__every_steps=2, **WHOLE)
    material = material_for(folder, order)
    write_json(material.run.order, order.model_dump(mode="json"))
    loop_for(material).run_to_end(nothing)
    return material.run


@pytest.fixture(scope="module")
def sheet(trained: RunDir) -> Path:
    with redirect_stdout(StringIO()) as said:
        run(BlindOptions(run=trained.root, count=4, words=20, device="cpu"))
    sheet = trained.evaluation / "blind" / SHEET
    assert said.getvalue().splitlines() == [
        str(sheet),
        f"key (leave it closed): {sheet.parent / KEY}",
        f"filled in: wake2vec-runner blind tiny --score '{sheet}'",
    ]
    assert f"--score '{sheet}'\n" in sheet.read_text("utf-8")
    return sheet


def passages(sheet: Path) -> list[str]:
    return re.findall(r"^--- \d+\n(.+)\nanswer:$", sheet.read_text("utf-8"), re.MULTILINE)


def test_a_sheet_has_as_many_of_each_kind_all_of_one_length(sheet: Path) -> None:
    key = read_json(sheet.parent / KEY)["key"]

    found = passages(sheet)

    assert len(found) == 12
    assert len({len(text.split()) for text in found}) == 1
    assert Counter(key.values()) == dict.fromkeys(KINDS, 4)
    assert list(key.values()) != sorted(key.values(), key=KINDS.index)
    assert not any(text in sheet.read_text("utf-8") for text in (json.dumps(key), '"human"'))


def test_passages_of_the_text_are_in_it_and_those_of_models_are_not(sheet: Path, trained: RunDir) -> None:
    from tests.machine import JOBS

    text = " ".join((JOBS / "tiny" / "corpus.txt").read_text("utf-8").split())
    key = read_json(sheet.parent / KEY)["key"]

    inside = [key[str(number)] for number, one in enumerate(passages(sheet), start=1) if one in text]

    assert inside == ["human"] * 4


def test_no_passage_begins_within_a_word() -> None:
    assert _from_a_word("s. Tay a dan") == " Tay a dan"
    assert _from_a_word("\nTay a dan") == "\nTay a dan"
    assert _from_a_word("s") == ""


def test_a_sheet_that_may_hold_answers_is_not_written_over(
    sheet: Path, trained: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert use(BlindOptions(run=trained.root, device="cpu")) != 0
    assert "may have answers in it" in capsys.readouterr().err


def filled_in(sheet: Path, folder: Path, answers: list[str]) -> Path:
    folder.mkdir()
    pieces = re.split(r"(?m)^answer:$", sheet.read_text("utf-8"))
    answers = answers + [""] * (len(pieces) - 1 - len(answers))
    body = pieces[0] + "".join(f"answer: {said}{rest}" for said, rest in zip(answers, pieces[1:], strict=True))
    (folder / SHEET).write_text(body)
    (folder / KEY).write_bytes((sheet.parent / KEY).read_bytes())
    return folder / SHEET


def test_a_sheet_that_is_all_right_is_no_luck(sheet: Path, tmp_path: Path) -> None:
    key = [kind for _, kind in sorted(read_json(sheet.parent / KEY)["key"].items(), key=lambda one: int(one[0]))]

    found = score(filled_in(sheet, tmp_path / "right", [*key[:11], ""]))

    assert (found["right"], found["answered"], found["of"]) == (11, 11, 12)
    assert found["p"] == pytest.approx(3**-11)
    assert found["taken_for"]["human"]["model"] == 0


def test_one_answer_for_all_is_luck(sheet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = filled_in(sheet, tmp_path / "same", ["Human "] * 12)

    found = score(path)

    assert (found["right"], found["by_chance"]) == (4, 4)
    assert found["p"] > 0.5
    assert found["taken_for"]["model"] == {"model": 0, "untouched": 0, "human": 4}
    run(BlindOptions(run=tmp_path, score=path))
    assert "4 of 12 answers right, 4.0 by chance" in capsys.readouterr().out


@pytest.mark.parametrize(("answers", "said"), [(["me"], "1 (me)"), ([], "no answers")])
def test_what_is_no_answer_is_told(sheet: Path, tmp_path: Path, answers: list[str], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        score(filled_in(sheet, tmp_path / "bad", answers))


def test_a_sheet_without_its_key_is_told(tmp_path: Path) -> None:
    (tmp_path / SHEET).write_text("--- 1\na\nanswer: model\n")
    with pytest.raises(InputError, match=KEY):
        score(tmp_path / SHEET)


def test_too_little_text_for_such_passages_is_told(trained: RunDir, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--words"):
        run(BlindOptions(run=trained.root, to=tmp_path, words=4000, device="cpu"))
