"""A job whose words share rows over their forms: it resumes in the same bits, and its result is a plain model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.tiny import loop_for, material_for, order_for, prepared_for, run_of
from tests.unit.wake2vec.train.test_attempt import asking_after, end, nothing, untied_model  # noqa: F401
from wake2vec.contract.files import write_json
from wake2vec.contract.order import Order
from wake2vec.contract.words.forms import Form
from wake2vec.model.device import copy_to_host
from wake2vec.model.forms import write_out
from wake2vec.phases.p1 import export as export_rows
from wake2vec.train.stopping import Stop
from wake2vec.use.export import export
from wake2vec.vocab.offsets import FORMS, form_offsets

NAMES = {
    "tied": {"rows", "rows.forms"},
    "untied": {"rows.input", "rows.input.forms", "rows.output", "rows.output.forms"},
}


def forms_order(folder: Path, kind: str, untied: str, **changes: Any) -> Order:
    changes = {"train__steps": 4, "checkpoint__every_steps": 2, "evaluate__every_steps": 4, **changes}
    model = {"model__base": untied} if kind == "untied" else {}
    return order_for(folder, **{"vocab__forms": "shared", "train__warmup_ratio": 0.0, **model, **changes})


# shared rows over both matrices: rows in 16 bits do so too, in test_held_rows.py
@pytest.mark.parametrize("kind", [pytest.param("tied", marks=pytest.mark.sweep), "untied"])
def test_it_resumes_in_the_same_bits_and_its_export_is_a_plain_model(
    tmp_path: Path,
    untied_model: str,  # noqa: F811
    kind: str,
) -> None:
    order = forms_order(tmp_path, kind, untied_model)
    uncut = loop_for(material_for(tmp_path, order, "uncut"))
    began = {name: tensor.detach().clone() for name, tensor in uncut.prepared.trainable.items()}
    assert set(began) == NAMES[kind]
    uncut.run_to_end(nothing)
    assert all(not torch.equal(began[name], tensor) for name, tensor in uncut.prepared.trainable.items())
    stop, material = Stop(), material_for(tmp_path, order)
    first = loop_for(material, stop)
    first.stepper.run = asking_after(first, stop, steps=2)  # type: ignore[method-assign]
    first.run_to_end(nothing)
    second = loop_for(material)
    second.run_to_end(nothing)
    assert end(second) == end(uncut)

    run = run_of(tmp_path)
    write_json(run.order, order.model_dump(mode="json"))
    run.final.mkdir()
    export_rows(second.prepared, material, run.final)
    id_map = material.id_map
    ids = torch.arange(id_map.first_new_id - 20, id_map.n_ids)[None]
    with torch.no_grad():
        expected = second.prepared.model.eval()(input_ids=ids).logits
    for step in ("final", 4):
        export(run, tmp_path / f"out-{step}", dtype="fp32", step=step)
        model = AutoModelForCausalLM.from_pretrained(tmp_path / f"out-{step}", dtype=torch.float32).eval()
        with torch.no_grad():
            torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-5)


def test_a_p2_stands_on_every_row_written_out(tmp_path: Path, untied_model: str) -> None:  # noqa: F811
    order = forms_order(tmp_path, "tied", untied_model)
    p1 = loop_for(material_for(tmp_path, order))
    p1.run_to_end(nothing)
    last = p1.progress.evaluations[-1]

    of_p2 = order_for(tmp_path, of="tiny_p2", name="p2", source=run_of(tmp_path), model__load="fp32")
    material = material_for(tmp_path, of_p2, "p2")
    p2 = loop_for(material)

    rows = write_out(copy_to_host(p1.prepared.tensors), material.id_map)["rows"]
    assert torch.equal(p2.prepared.rows.embedding.rows.float(), rows)
    assert len(rows) == material.id_map.n_new > len(material.id_map.new)
    p2.begin()
    assert p2.evaluate()
    assert p2.progress.evaluations[0].loss == pytest.approx(last.loss, abs=1e-4)


def test_separate_rows_begin_where_shared_ones_do(tmp_path: Path) -> None:
    found = {}
    for forms in ("shared", "separate"):
        folder = tmp_path / forms
        folder.mkdir()
        material = material_for(folder, order_for(folder, vocab__forms=forms))
        prepared = prepared_for(material)
        found[forms] = write_out(copy_to_host(prepared.tensors), material.id_map)["rows"]
        assert set(prepared.trainable) == ({"rows", "rows.forms"} if forms == "shared" else {"rows"})

    torch.testing.assert_close(found["shared"], found["separate"])


def test_forms_that_the_text_needs_are_met_and_no_others_are_made(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("A wherry, the Wherry.\nwherry and ferryboat “Ferryboat” FERRYBOAT. " * 300)
    (tmp_path / "words.txt").write_text("wherry\nferryboat\nskiffs\n")
    order = order_for(
        tmp_path, data__corpus=str(tmp_path / "text.txt"), vocab__lexicon=str(tmp_path / "words.txt"),
        vocab__forms="shared",
    )  # fmt: skip
    material = material_for(tmp_path, order)

    assert {(entry.of, entry.form) for entry in material.id_map.forms} == {
        (0, Form.BARE), (0, Form.SPACED_CAPITALISED), (1, Form.BARE_CAPITALISED), (1, Form.SPACED_CAPITALS),
    }  # fmt: skip
    assert material.places["occurrences"] == material.places["occurrences_met"] == 6 * 300


def test_an_offset_is_the_mean_difference_of_published_pairs() -> None:
    vocabulary = {"Ġsea": 0, "sea": 1, "ĠSea": 2, "Ġriver": 3, "river": 4, "ĠRIVER": 5, "Ġx": 6, "x": 7, "far": 99}
    base = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))

    found, counts = form_offsets(base, vocabulary, "byte-level")

    assert counts[Form.BARE] == 2
    assert counts[Form.BARE_CAPITALS] == 0
    torch.testing.assert_close(found[FORMS.index(Form.BARE)], (base[1] - base[0] + base[4] - base[3]) / 2)
    torch.testing.assert_close(found[FORMS.index(Form.SPACED_CAPITALS)], base[5] - base[3])
    assert not found[FORMS.index(Form.BARE_CAPITALS)].any()


def test_a_form_that_no_two_published_tokens_differ_by_begins_as_the_word_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("A wherry and a WHERRY, the Wherry. " * 300)
    (tmp_path / "words.txt").write_text("wherry\n")
    material = material_for(tmp_path, order_for(
        tmp_path, data__corpus=str(tmp_path / "text.txt"), vocab__lexicon=str(tmp_path / "words.txt"),
        vocab__forms="shared",
    ))  # fmt: skip
    prepared = prepared_for(material)
    base = prepared.rows.embedding.base.lookup(torch.arange(material.id_map.first_new_id))
    found, pairs = form_offsets(base, material.base_tokenizer.get_vocab(), material.id_map.scheme)
    without = {entry.form for entry in material.id_map.forms if not pairs[entry.form]}

    assert without == {Form.SPACED_CAPITALS}
    assert "no two published tokens differ as a word and its form spaced capitals" in capsys.readouterr().out
    assert not found[FORMS.index(Form.SPACED_CAPITALS)].any()
    assert found[FORMS.index(Form.SPACED_CAPITALISED)].any()
    torch.testing.assert_close(prepared.trainable["rows.forms"].detach(), found)
