"""The artefacts of a job: there after every evaluation, sensible for every ledger, rebuilt to the same bytes."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.image import imread

from wake2vec.contract.rundir import RunDir
from wake2vec.contract.spec import JOB_SPEC
from wake2vec.show.facts import RunFacts, SessionFact, read_facts
from wake2vec.show.write import write_artefacts

JOB = JOB_SPEC.validate_python(
    {
        "name": "tiny_p1",
        "phase": "p1",
        "model": {"base": "tiny"},
        "vocab": {"lexicon": "lexicon"},
        "data": {"corpus": "wake.txt"},
        "train": {"steps": 100, "lr": 0.01},
    }
)
FACTS = RunFacts(model="tiny", first_new_id=900, n_new=100, sessions=(SessionFact(first_step=0, gpu="T4"),))

LEDGERS = {
    "nothing": "",
    "one step": '{"kind":"step","step":1,"loss":3.0,"tokens":8,"lr":0.01}\n',
    "no evaluation": "".join(
        f'{{"kind":"step","step":{n},"loss":{9 / n},"tokens":8,"lr":0.01}}\n' for n in range(1, 30)
    ),
    "one evaluation": '{"kind":"evaluation","step":0,"loss":6.9,"tokens":8,"ln_v":6.907}\n',
    "not finite": '{"kind":"step","step":1,"loss":NaN,"tokens":8,"lr":NaN}\n'
    '{"kind":"evaluation","step":1,"loss":Infinity,"tokens":8}\n',
    "overflow": '{"kind":"evaluation","step":1,"loss":5000.0,"tokens":8}\n',
    "across a regime": '{"kind":"step","step":1,"loss":3.0,"tokens":8,"lr":0.01}\n'
    '{"kind":"event","step":1,"event":"regime","text":"context 256 to 128"}\n'
    '{"kind":"event","step":1,"event":"oom","text":"$\\\\frac{1}"}\n'
    '{"kind":"step","step":2,"loss":2.0,"tokens":8,"lr":0.01}\n'
    '{"kind":"evaluation","step":2,"loss":2.5,"tokens":8,"bits_per_byte":1.9}\n',
    "torn": '{"kind":"step","step":1,"loss":3.0,"tokens":8}\n{"kind":"ste',
}


def run_with(tmp_path: Path, ledger: str) -> RunDir:
    run = RunDir(root=tmp_path / "run")
    run.metrics.parent.mkdir(parents=True)
    run.metrics.write_text(ledger, "utf-8")
    return run


@pytest.mark.parametrize("ledger", LEDGERS.values(), ids=LEDGERS.keys())
def test_any_ledger_gives_all_four_artefacts(tmp_path: Path, ledger: str) -> None:
    run = run_with(tmp_path, ledger)

    written = write_artefacts(run, job=JOB, facts=FACTS)

    assert {path.name for path in written} == {
        "training_log.json",
        "devlog.md",
        "perplexity_report.txt",
        "val_loss_curve.png",
    }
    picture = imread(io.BytesIO((run.evaluation / "val_loss_curve.png").read_bytes()))
    assert picture.shape[:2] == (1050, 1800)
    json.loads(run.training_log.read_text("utf-8"), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert not list(run.root.rglob("*.tmp"))


def test_the_same_ledger_gives_the_same_bytes(tmp_path: Path) -> None:
    run = run_with(tmp_path, LEDGERS["across a regime"])

    first = [path.read_bytes() for path in write_artefacts(run, job=JOB, facts=FACTS)]

    assert first == [path.read_bytes() for path in write_artefacts(run, job=JOB, facts=FACTS)]


def test_a_name_that_is_markup_or_another_script_is_drawn_as_it_is(tmp_path: Path) -> None:
    run = run_with(tmp_path, LEDGERS["one evaluation"])

    written = write_artefacts(run, job=JOB, facts=RunFacts(model="$x_{|\n| 漢字 \x07"))

    assert (run.evaluation / "val_loss_curve.png") in written


def test_the_facts_of_a_run_are_read_back_from_its_log(tmp_path: Path) -> None:
    run = run_with(tmp_path, "")
    facts = RunFacts(model="m", n_new=3, sessions=(SessionFact(first_step=5, gpu="T4"),), versions={"torch": "2"})

    write_artefacts(run, job=JOB, facts=facts)

    assert read_facts(run) == facts


def test_the_perplexity_report_holds_before_best_and_last(tmp_path: Path) -> None:
    rows = [(0, 6.0, 3.0), (10, 4.0, 2.0), (20, 5.0, 2.5)]
    fixed = {"kind": "evaluation", "tokens": 7, "new_tokens": 2, "base_tokens": 5, "ln_v": math.log(1000)}
    measured = [
        {"step": step, "loss": loss, "bits_per_byte": bits, "new_loss": loss + 1, "base_loss": loss - 1, **fixed}
        for step, loss, bits in rows
    ]
    run = run_with(tmp_path, "".join(json.dumps(row) + "\n" for row in measured))

    write_artefacts(run, job=JOB, facts=FACTS)

    text = (run.evaluation / "perplexity_report.txt").read_text("utf-8")
    assert "before (step 0)" in text
    assert "best (step 10)" in text
    assert text.split("all, nats")[1].split()[:3] == ["6.0000", "4.0000", "5.0000"]
    assert text.split("all, perplexity")[1].split()[:3] == ["403.4", "54.6", "148.4"]
    assert text.split("new, nats")[1].split()[:3] == ["7.0000", "5.0000", "6.0000"]
    assert "6.9078" in text


@pytest.mark.parametrize(("held_out", "said"), [(9000, "2,749 bytes of text of the 9,000 held out"), (2749, "; V =")])
def test_the_perplexity_report_names_the_bytes_that_were_measured(tmp_path: Path, held_out: int, said: str) -> None:
    row = '{"kind":"evaluation","step":0,"loss":6.9,"tokens":8,"new_tokens":2,"base_tokens":6,"bytes":2749}\n'

    write_artefacts(run_with(tmp_path, row), job=JOB, facts=replace(FACTS, held_out_bytes=held_out))

    text = (tmp_path / "run" / "eval" / "perplexity_report.txt").read_text("utf-8")
    assert said in text.split("2 new and 6 base; ")[1].splitlines()[0]
    assert "; 2,749 bytes of text" in text


def test_the_devlog_is_a_markdown_table_with_one_row_for_each_evaluation(tmp_path: Path) -> None:
    run = run_with(tmp_path, LEDGERS["across a regime"])

    write_artefacts(run, job=JOB, facts=FACTS)

    rows = [line for line in (run.evaluation / "devlog.md").read_text("utf-8").splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert len({row.count("|") for row in rows}) == 1
    assert [cell.strip() for cell in rows[2].strip("|").split("|")][:4] == ["2", "2.5000", "2.5000", "–"]
