from __future__ import annotations

import pytest

from runner.jobfile.source_job import SourceJob, source_faults, source_notes
from runner.states import State
from tests.unit.runner.conftest import CORPUS, job_spec
from wake2vec.contract.order import InputFile

FOLDER = InputFile(role="model", name="model", sha256="a" * 64, size=1)

WEIGHED, WITH_NAN = (FOLDER.model_copy(update={"weights": letter * 64}) for letter in "bc")


def _source(*, inputs=(CORPUS,), state=State.QUEUED, steps=500, **extra):
    return {"p1": SourceJob(spec=job_spec("p1", **extra), inputs=inputs, steps=steps, state=state)}


def _p2(**extra):
    return job_spec("p2", phase="p2", **({"after": "p1"} | extra))


def test_p2_on_top_of_its_p1_has_no_faults():
    assert source_faults(_p2(), [CORPUS], _source()) == []
    assert source_faults(job_spec("other"), [CORPUS], {}) == []


@pytest.mark.parametrize(
    ("p2", "inputs", "known", "said"),
    [
        (_p2(after="p11"), [CORPUS], _source(), "after: there is no job p11; did you mean p1?"),
        (_p2(after="nothing"), [CORPUS], {}, "after: there is no job nothing in the queue; name its file before"),
        (_p2(model={"base": "org/other"}), [CORPUS], _source(), "model.base: org/other, but p1 trains tiny"),
        (_p2(model={"base": "tiny", "revision": "v2"}), [CORPUS], _source(), "model.revision: v2, but p1 uses main"),
        (_p2(), [CORPUS, FOLDER], _source(), "another model or tokenizer than p1's"),
        (_p2(), [WITH_NAN], _source(inputs=(WEIGHED,)), "another model or tokenizer than p1's"),
        (_p2(rows=501), [CORPUS], _source(), "rows: step 501, but p1 has 500 steps"),
        (_p2(rows=300), [CORPUS], _source(), "rows: step 300 is no milestone of p1; give a multiple of 200, or 500"),
    ],
)
def test_p2_that_can_never_run_is_refused(p2, inputs, known, said):
    faults = [str(fault) for fault in source_faults(p2, inputs, known)]

    assert len(faults) == 1
    assert said in faults[0]


def test_a_milestone_the_end_or_an_unknown_length_is_accepted():
    for rows in (200, 500):
        assert source_faults(_p2(rows=rows), [CORPUS], _source()) == []
    assert source_faults(_p2(rows=300), [CORPUS], _source(steps=None)) == []


def test_blocks_of_another_length_would_measure_what_p1_was_trained_on():
    blocks = {"corpus": "c.txt", "split": "blocks", "shuffle": "scikit-learn"}
    known = _source(data={**blocks, "seq_len": 64})

    (fault,) = source_faults(_p2(data={**blocks, "seq_len": 32}), [CORPUS], known)
    assert 'data.seq_len: 32, but p1 held out blocks of 64 tokens (split = "blocks")' in str(fault)
    assert source_faults(_p2(data={**blocks, "seq_len": 64}), [CORPUS], known) == []
    joined = _p2(data={**blocks, "seq_len": 64, "line_breaks": "join"})
    assert "holds out another part" in source_notes(joined, [CORPUS], known)[0]
    text = {"corpus": "c.txt", "seq_len": 64}
    assert source_faults(_p2(data={**text, "seq_len": 32}), [CORPUS], _source(data=text)) == []


def test_p2_cannot_build_on_p2():
    known = {"p1": SourceJob(spec=_p2(), inputs=[CORPUS], steps=500, state=State.QUEUED)}

    assert "builds on the rows of a p1 job" in str(source_faults(_p2(), [CORPUS], known)[0])


def test_a_held_out_text_that_p1_has_seen_is_pointed_out():
    data = {"corpus": "text.txt", "seed": 7}

    assert source_notes(_p2(), [CORPUS], _source()) == []
    assert "P1 was trained on" in source_notes(_p2(data=data), [CORPUS], _source())[0]


def test_a_source_that_failed_is_pointed_out():
    notes = source_notes(_p2(), [CORPUS], _source(state=State.FAILED))

    assert notes == ["p2 waits for p1, which has failed: wake2vec-runner retry p1"]
