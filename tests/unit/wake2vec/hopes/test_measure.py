"""What a job came to: figures that an independent computation gives too, and not a bit of the model changed by them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.machine import JOBS
from tests.tiny import loop_for, material_for, order_for, run_of
from tests.unit.wake2vec.train.test_attempt import end, nothing
from wake2vec.contract.files import read_json, write_json
from wake2vec.contract.options import HopesOptions
from wake2vec.contract.order import Order
from wake2vec.contract.words.forms import Finder
from wake2vec.data.blocks import IGNORED
from wake2vec.data.control import registers
from wake2vec.hopes import context, english
from wake2vec.hopes.context import BEFORE, CONTEXTS, FEWEST, LETTERS, Met, met_in, nats_in_contexts
from wake2vec.hopes.english import divergence_of
from wake2vec.hopes.measure import measure
from wake2vec.hopes.reader import AskedToStop, Subject, adapters_off
from wake2vec.hopes.style import divergence, passages, trigrams
from wake2vec.hopes.text import some, text_of
from wake2vec.show.hopes import Figure, Hope, Hopes, read_hopes, write_hopes
from wake2vec.train.loop import Loop
from wake2vec.use.__main__ import use

USUAL = {
    "evaluate__hopes": True,
    "train__steps": 4,
    "checkpoint__every_steps": 4,
    "evaluate__every_steps": 4,
    "evaluate__samples": 2,
}
CONTROL = "The committee met at noon, and the members of it agreed to meet again.\n" * 60


@dataclass(frozen=True)
class Done:
    """A job at its end, and what it came to."""

    loop: Loop
    order: Order
    subject: Subject
    hopes: Hopes

    def figure(self, key: str) -> Figure:
        (found,) = [one for one in self.hopes.figures if one.key == key]
        return found


def done(folder: Path, name: str, **options: Any) -> Done:
    order = order_for(folder, name=name, **{**USUAL, **options})
    material = material_for(folder, order, name)
    write_json(material.run.order, order.model_dump(mode="json"))
    loop = loop_for(material)
    loop.run_to_end(nothing)
    loop.beside.tokens = 60
    loop.sample()
    loop.hopes()
    found = read_hopes(material.run)
    assert found is not None, [row for row in loop.progress.rows if row["kind"] == "event"]
    subject = Subject(
        run=material.run, order=order, model=loop.prepared.model, tokenizer=material.tokenizer,
        base_tokenizer=material.base_tokenizer, id_map=material.id_map, device=loop.prepared.device, step=4,
    )  # fmt: skip
    return Done(loop, order, subject, found)


@pytest.fixture(scope="module", autouse=True)
def short_registers() -> Iterator[None]:
    """The beginning of each kind of English that comes with the program."""
    few = 9_000
    cut = {name: replace(register, text=register.text[:few]) for name, register in registers().items()}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(english, "bundled", lambda: cut)
        monkeypatch.setattr(english, "ENOUGH", few)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hopes")
    (path / "minutes.txt").write_text(CONTROL)
    return path


@pytest.fixture(scope="module")
def p1(folder: Path) -> Done:
    return done(folder, "p1", evaluate__controls=[str(folder / "minutes.txt")])


@pytest.fixture(scope="module")
def p2(folder: Path, p1: Done) -> Done:
    return done(folder, "p2", of="tiny_p2", source=run_of(folder, "p1"), train__lr=0.02, evaluate__prompt="Mr Bloom")


def published() -> Any:
    return AutoModelForCausalLM.from_pretrained(JOBS / "tiny" / "model", dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", ["p1", "p2"])
def test_the_untouched_reader_is_the_published_model_to_the_bit(kind: str, request: pytest.FixtureRequest) -> None:
    made: Done = request.getfixturevalue(kind)
    ids = np.arange(20, 52, dtype=np.int64)[None]
    before = end(made.loop)

    with torch.no_grad():
        expected = published()(input_ids=torch.from_numpy(ids)).logits[0].log_softmax(-1)
    targets = np.roll(ids, -1)
    found = made.subject.untouched.nats(ids, targets)[0]

    wanted = -expected[range(32), targets[0]]
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5)
    assert end(made.loop) == before


def test_new_words_cost_what_a_library_s_own_model_says(p1: Done) -> None:
    """The untouched side, worked out token by token with the published folder alone."""
    text = text_of(p1.subject, most=None).held_out[0]
    tokenizer, model = p1.subject.base_tokenizer, published()
    encoded = tokenizer(text, add_special_tokens=False)
    ids = encoded["input_ids"][:65]
    with torch.no_grad():
        shares = model(input_ids=torch.tensor([ids[:32]])).logits[0].log_softmax(-1)
    nats = [-float(shares[place, ids[place + 1]]) for place in range(32)]

    read = p1.subject.untouched.windows([text], 32)
    assert read.targets[0].tolist() == ids[1:33]
    np.testing.assert_allclose(p1.subject.untouched.nats(read.inputs[:1], read.targets[:1])[0], nats, rtol=1e-4)
    spread, asked = p1.subject.untouched.over_bytes([text], 32)
    assert spread.sum() == pytest.approx(p1.subject.untouched.nats(read.inputs, read.targets).sum())
    assert asked.sum() == len(text.encode()) - int(read.places[0, 0])


def test_each_hope_has_figures_with_an_interval_and_a_null(p1: Done, p2: Done) -> None:
    for made in (p1, p2):
        assert {one.hope for one in made.hopes.figures} == set(Hope)
        assert not [note for note in made.hopes.notes if "not measured" in note]
        for one in made.hopes.figures:
            assert one.null is not None, one
            assert math.isfinite(one.value), one
            assert one.of, one
            if one.low is not None and one.high is not None:
                assert one.low <= (one.value if one.change is None else one.change) <= one.high, one
    assert {"bits.new words", "bits.other text", "bits.all text"} <= {one.key for one in p1.hopes.figures}
    assert p1.figure("bits.Austen").untouched == p2.figure("bits.Austen").untouched


def test_in_p1_the_body_forgets_nothing_and_new_words_take_all_that_kl_finds(p1: Done) -> None:
    for name in ("Austen", "novel", "manual", "talk", "minutes.txt"):
        assert p1.figure(f"kl.{name}").value == pytest.approx(p1.figure(f"kl_new.{name}").value, abs=1e-6)
        assert p1.figure(f"kl_new.{name}").value > 1e-3
        assert p1.figure(f"states.{name}").value == pytest.approx(1, abs=1e-6)
        assert p1.figure(f"states.{name}").null < 0.99
        (told,) = [note for note in p1.hopes.notes if note.startswith(f"{name}: ")]
        assert ("few for an interval" in told) == (name in ("Austen", "minutes.txt"))
    assert any("cannot move" in note for note in p1.hopes.notes)


def test_in_p2_the_body_moves_and_its_rows_are_said_to_stand_still(p2: Done) -> None:
    assert p2.figure("kl.Austen").value > p2.figure("kl_new.Austen").value + 1e-5
    assert p2.figure("states.Austen").value < 1 - 1e-6
    assert not [one for one in p2.hopes.figures if one.key.startswith(("length", "turned"))]
    assert any("stand still" in note for note in p2.hopes.notes)


def test_where_every_weight_trains_the_published_rows_are_measured(folder: Path, p1: Done) -> None:
    made = done(
        folder, "all", of="tiny_p2", source=run_of(folder, "p1"), lora__train="all", train__lr=1e-3,
        evaluate__samples=1, model__load="fp32", model__compute="fp32",
    )  # fmt: skip

    moved = made.figure("published.input")
    assert moved.value < 1 - 1e-7
    assert moved.null < 0.9
    assert made.figure("bits.Austen").untouched == pytest.approx(p1.figure("bits.Austen").untouched)
    assert made.subject.untouched.model is not made.subject.model


def test_kl_is_that_of_whole_distributions(p1: Done) -> None:
    trained, base = p1.subject.trained, p1.subject.untouched
    ids = np.arange(30, 46, dtype=np.int64)[None]
    was, now = base.hidden(ids), trained.hidden(ids)

    kl, new = divergence_of(was, base.head, now, trained.head)

    with torch.no_grad():
        p = base.head(was[0]).double().softmax(-1)
        q = trained.head(now[0]).double().softmax(-1)
    whole = torch.cat([p, torch.zeros(len(p), q.shape[1] - p.shape[1])], dim=1)
    expected = torch.xlogy(whole, whole).sum(1) - (p * q[:, : p.shape[1]].log()).sum(1)
    torch.testing.assert_close(kl.double(), expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(new.double(), -(1 - q[:, p.shape[1] :].sum(1)).log(), rtol=1e-3, atol=1e-5)


def test_a_stop_leaves_the_figures_for_another_time(p1: Done, tmp_path: Path) -> None:
    def stop() -> None:
        raise AskedToStop

    assert measure(replace(p1.subject, tick=stop)) is None


def test_a_part_that_fails_costs_the_others_nothing(p1: Done, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = p1.order.model_copy(update={"inputs_folder": str(folder / "gone")})

    found = measure(replace(p1.subject, order=broken))

    assert found is not None
    assert {one.hope for one in found.figures} == {Hope.GEOMETRY}
    assert sum(f"not measured ({folder / 'gone'}" in note for note in found.notes) == 3
    assert capsys.readouterr().err == ""  # a text that is gone is no bug


def test_at_the_end_of_a_job_they_are_measured_once(p1: Done) -> None:
    path = run_of(p1.subject.run.root.parent.parent, "p1").evaluation / "hopes.json"
    before = path.stat().st_mtime_ns

    p1.loop.hopes()

    assert path.stat().st_mtime_ns == before
    assert "## No forgetting" in path.with_suffix(".md").read_text("utf-8")
    table = read_json(path)
    assert table["format"] == 1
    assert all("change" in row for row in table["figures"])


def test_what_is_kept_is_read_again(p1: Done, tmp_path: Path) -> None:
    run = replace(p1.subject.run, root=tmp_path)
    run.evaluation.mkdir()
    write_hopes(run, p1.hopes)

    assert read_hopes(run) == p1.hopes
    (run.evaluation / "hopes.json").write_text('{"format": 1, "figures": [{}]}')
    assert read_hopes(run) is None


def test_without_adapters_nothing_stays_changed(p2: Done) -> None:
    trains = [(name, one.requires_grad) for name, one in p2.subject.model.named_parameters()]

    with adapters_off(p2.subject.model):
        pass

    assert trains == [(name, one.requires_grad) for name, one in p2.subject.model.named_parameters()]


def test_a_word_is_met_once_in_a_text_and_behind_its_prompt() -> None:
    prompt = "riverrun, past Eve and Adam's, from swerve of shore "
    text = "to bend of bay the swerve and the riverrun again and the swerve of it"

    found = met_in([(prompt, text)], Finder(["swerve", "bay", "riverrun"]))

    assert [one.word for one in found] == ["bay"]
    assert found[0].before.endswith("bend of ")
    assert len(found[0].before.split()) >= FEWEST


def test_a_word_is_judged_by_its_own_context_and_by_those_of_others(p1: Done) -> None:
    """Each entry, worked out with a sequence of its own."""
    text = text_of(p1.subject, most=None).held_out[0].split()
    met = [Met(text[place], " ".join(text[:place])) for place in range(30, 120, 9)]
    scorer = p1.subject.untouched

    found = nats_in_contexts(scorer, met)

    assert found.shape == (10, CONTEXTS)
    encode = scorer.tokenizer
    for word, number in ((0, 0), (3, 0), (4, 5), (9, 7)):
        before = met[(word + number * 10 // CONTEXTS) % 10].before[-LETTERS:]
        read = encode(before, add_special_tokens=False)["input_ids"][-BEFORE:]
        ids = read + encode(f" {met[word].word}", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            shares = published()(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        nats = -sum(float(shares[place - 1, ids[place]]) for place in range(len(read), len(ids)))
        assert found[word, number] == pytest.approx(nats, rel=1e-4)


def test_words_that_only_their_own_context_foretells_are_all_likelier(p1: Done, monkeypatch: Any) -> None:
    nats = np.full((12, CONTEXTS), 5.0)
    nats[:, 0] = 1.0
    monkeypatch.setattr(context, "nats_in_contexts", lambda scorer, met: nats)

    assert context.fits(p1.subject.untouched, []).tolist() == [1.0] * 12


def test_letters_alike_have_no_divergence_and_nothing_in_common_a_whole_bit() -> None:
    assert divergence(trigrams("abcabc"), trigrams("abcabc")) == pytest.approx(0)
    assert divergence(trigrams("aaaa"), trigrams("bbbb")) == pytest.approx(1)


def test_passages_and_what_they_are_compared_with_are_of_different_stretches() -> None:
    texts = [f"w{number} " * 40 for number in range(6)]

    chosen, rest = passages(texts, 30)

    assert [one.split()[0] for one in chosen] == ["w0", "w2", "w4"]
    assert [one.split()[0] for one in rest] == ["w1", "w3", "w5"]


def test_some_of_a_long_text_are_evenly_chosen() -> None:
    assert some(["a" * 10] * 10, 30) == ("a" * 10,) * 3
    assert some(["a", "b"], None) == ("a", "b")
    assert some(["a" * 100], 10) == ("a" * 100,)


@pytest.mark.parametrize("split", ["text", "blocks"])
def test_held_out_text_is_what_the_job_holds_out(folder: Path, split: str, tmp_path: Path) -> None:
    order = order_for(tmp_path, data__split=split, data__shuffle="scikit-learn")
    material = material_for(tmp_path, order)
    subject = Subject(
        run=material.run, order=order, model=None, tokenizer=material.tokenizer,
        base_tokenizer=material.base_tokenizer, id_map=material.id_map, device=torch.device("cpu"), step=0,
    )  # fmt: skip

    text = text_of(subject, most=None)

    targets = material.windows.targets
    held = material.tokenizer.decode(targets[targets != IGNORED].tolist())
    together = "".join(text.held_out)
    assert abs(len(together) - len(held)) <= 20 * len(text.held_out)
    assert held[200:260] in together
    assert text.held_out[0][:80] not in text.trained


def test_the_tool_measures_what_the_end_of_the_job_did_and_not_without_the_text(
    p1: Done, capsys: pytest.CaptureFixture[str]
) -> None:
    assert use(HopesOptions(run=p1.subject.run.root, device="cpu", as_json=True)) == 0

    table = json.loads(capsys.readouterr().out)
    found = {row["key"]: row["value"] for row in table["figures"]}
    assert found == pytest.approx({one.key: one.value for one in p1.hopes.figures}, rel=1e-4)

    kept = (p1.subject.run.evaluation / "hopes.json").read_bytes()
    gone = p1.order.model_copy(update={"inputs_folder": "/nowhere"})
    write_json(p1.subject.run.order, gone.model_dump(mode="json"))
    assert use(HopesOptions(run=p1.subject.run.root, device="cpu")) != 0
    write_json(p1.subject.run.order, p1.order.model_dump(mode="json"))
    assert (p1.subject.run.evaluation / "hopes.json").read_bytes() == kept
    assert "the frozen corpus of this job is gone" in capsys.readouterr().err
